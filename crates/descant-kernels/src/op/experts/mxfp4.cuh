// Packed MXFP4 to bf16, exactly: eight nibbles of a word become eight bf16 with shifts, masks and a multiplication.
//
// A nibble is sign, two exponent bits, one mantissa bit. Its magnitude bits placed at bits 6..8 of a bf16 are the same
// number times 2^-126 (the smallest ones are subnormal, which bf16 multiplication keeps), its sign goes to bit 15.
#pragma once
#include "common.cuh"

// What a block's numbers are multiplied with, twice: 2^(scale - 127 + 126) as far as bf16 can say it, and the rest.
struct BlockScale {
    u32 first, second;
};
__device__ __forceinline__ BlockScale block_scale(u32 byte) {
    u32 first = (min(byte, 128u) + 126) << 7, second = (127 + max(byte, 128u) - 128) << 7;
    return {first * 0x10001u, second * 0x10001u};
}
// Products of two pairs; adding minus zero keeps the sign of a zero.
__device__ __forceinline__ u32 multiply_bf16x2(u32 a, u32 b) {
    u32 y;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(0x80008000u));
    return y;
}
// Elements 0..8 of `word`, low nibble first, as pairs; still to be multiplied.
__device__ __forceinline__ void spread8(u32 word, u32 (&out)[4]) {
    u32 odd = word >> 4;
    // Halves of `p`: elements 0 and 1 in their low nibbles, 2 and 3 at bit 8; `q` the same for 4 to 7.
    u32 p = __byte_perm(word, odd, 0x5410), q = __byte_perm(word, odd, 0x7632);
    out[0] = ((p << 6) & 0x01c001c0u) | ((p << 12) & 0x80008000u);
    out[1] = ((p >> 2) & 0x01c001c0u) | ((p << 4) & 0x80008000u);
    out[2] = ((q << 6) & 0x01c001c0u) | ((q << 12) & 0x80008000u);
    out[3] = ((q >> 2) & 0x01c001c0u) | ((q << 4) & 0x80008000u);
}

// ---- the packing of grouped.cuh, 32 numbers at a time
// A block's scale on its way.
using Scale = u32;
#define NO_SCALE 127
// Where an expert's scales are.
struct Scales {
    const u8* bytes;
};
__device__ __forceinline__ Scales scales_of(const u8* scales, const float*, int, int, u32) { return {scales}; }
__device__ __forceinline__ Scale load_scale(const Scales& scales, u64 block) {
    Scale scale;
    asm volatile("{\n.reg .u16 s;\nld.global.nc.u8 s, [%1];\ncvt.u32.u16 %0, s;\n}"
                 : "=r"(scale)
                 : "l"(scales.bytes + block));
    return scale;
}
// What its numbers are multiplied with.
struct Factor {
    BlockScale by;
    bool more;
};
__device__ __forceinline__ Factor factor_of(Scale scale, const Scales&, u32) {
    return {block_scale(scale), scale > 128};
}
template <int N> __device__ __forceinline__ void multiply_all(u32 (&x)[N][4], const Factor& factor) {
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) x[j][i] = multiply_bf16x2(x[j][i], factor.by.first);
    if (factor.more) {
#pragma unroll
        for (int j = 0; j < N; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) x[j][i] = multiply_bf16x2(x[j][i], factor.by.second);
    }
}
// A block's 32 numbers in order, two in a register.
__device__ __forceinline__ void decode_block(const u32 (&words)[4], const Factor& factor, u32, u32 (&out)[4][4]) {
#pragma unroll
    for (int j = 0; j < 4; j++) spread8(words[j], out[j]);
    multiply_all(out, factor);
}
// Numbers (i, i + 4) of a word.
__device__ __forceinline__ void decode_pairs(u32 word, const Factor& factor, u32, u32 (&out)[1][4]) {
    out[0][0] = ((word << 6) & 0x01c001c0u) | ((word << 12) & 0x80008000u);
    out[0][1] = ((word << 2) & 0x01c001c0u) | ((word << 8) & 0x80008000u);
    out[0][2] = ((word >> 2) & 0x01c001c0u) | ((word << 4) & 0x80008000u);
    out[0][3] = ((word >> 6) & 0x01c001c0u) | (word & 0x80008000u);
    multiply_all(out, factor);
}
// Nothing to look up.
#define TABLE_BYTES 0
__device__ __forceinline__ void fill_tables(const float*, u32) {}
