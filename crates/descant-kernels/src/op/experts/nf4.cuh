// Packed NF4 to bf16, exactly the numbers of bitsandbytes: bf16(level · absmax) with absmax = map[code] · nested +
// offset, where each product and sum is rounded to f32 on its own.
//
// 64 numbers of a line share a code, 256 codes of a matrix a nested scale. Nibbles lie as in MXFP4, the low one first
// (the checkpoint has them the other way round; the loader swaps them). `tables` has, in f32,
// [16 levels][256 of the map][E offsets][E][blocks of a matrix / 256, rounded up].
//
// In shared memory the levels lie once for each lane: 32 lanes read 32 banks, whatever they look up.
#pragma once
#include "common.cuh"

#define LEVEL_BYTES (16 * 32 * 4)
#define TABLE_BYTES (LEVEL_BYTES + 256 * 4)

// Levels and map to shared memory; the block meets afterwards.
__device__ __forceinline__ void fill_tables(const float* tables, u32 to) {
    for (int i = threadIdx.x; i < 16 * 32; i += THREADS) shared_store(to + i * 4, __float_as_uint(tables[i / 32]));
    for (int i = threadIdx.x; i < 256; i += THREADS)
        shared_store(to + LEVEL_BYTES + i * 4, __float_as_uint(tables[16 + i]));
}

// Where an expert's scales are.
struct Scales {
    const u8* codes;      // of all experts
    const float* nested;  // of this one
    float offset;
    u32 first;  // its first block of 64
};
// `blocks` of 64 a matrix.
__device__ __forceinline__ Scales scales_of(const u8* codes, const float* tables, int expert, int n_experts,
                                            u32 blocks) {
    const float* offsets = tables + 16 + 256;
    return {codes, offsets + n_experts + (u64)expert * ((blocks + 255) / 256), offsets[expert], expert * blocks};
}
__device__ __forceinline__ float absmax_of(u32 code, float nested, float offset, u32 tables) {
    const float number = __uint_as_float(shared_load(tables + LEVEL_BYTES + code * 4));
    return __fadd_rn(__fmul_rn(number, nested), offset);
}

// Where this lane finds level 0; the others follow, 128 bytes apart.
__device__ __forceinline__ u32 levels_of_lane(u32 tables) { return tables + (threadIdx.x & 31) * 4; }
// The low nibbles of a word's bytes, and the high ones.
__device__ __forceinline__ u32 low_nibbles(u32 word) { return word & 0x0f0f0f0fu; }
__device__ __forceinline__ u32 high_nibbles(u32 word) { return word >> 4 & 0x0f0f0f0fu; }
// What picks a byte in level_of.
__device__ __forceinline__ u32 pick(int byte) { return 128u << byte * 8; }
// The level of one nibble of four: a dot product with 128 in its place gives the address.
__device__ __forceinline__ float level_of(u32 nibbles, u32 picked, u32 levels) {
    u32 at;
    float level;
    asm("dp4a.u32.u32 %0, %1, %2, %3;" : "=r"(at) : "r"(nibbles), "r"(picked), "r"(levels));
    // Nothing is written there once the tables are full, so that loads may change places.
    asm("ld.shared.f32 %0, [%1];" : "=f"(level) : "r"(at));
    return level;
}
__device__ __forceinline__ u32 numbers(float first, float second, float by_first, float by_second) {
    return to_bf16x2(__fmul_rn(first, by_first), __fmul_rn(second, by_second));
}

// ---- the packing of grouped.cuh, 32 numbers at a time
// A block's scale on its way.
struct Scale {
    u32 code;
    float nested;
};
#define NO_SCALE {0, 0.0f}
__device__ __forceinline__ Scale load_scale(const Scales& scales, u64 block) {
    const u32 pair = (u32)(block / 2);
    Scale scale;
    scale.code = load_byte(scales.codes + pair);
    asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(scale.nested) : "l"(scales.nested + (pair - scales.first) / 256));
    return scale;
}
// What its levels are multiplied with.
using Factor = float;
__device__ __forceinline__ Factor factor_of(const Scale& scale, const Scales& scales, u32 tables) {
    return absmax_of(scale.code, scale.nested, scales.offset, tables);
}
// Numbers (i, i + 4) of a word.
__device__ __forceinline__ void decode_pairs(u32 word, Factor absmax, u32 tables, u32 (&out)[1][4]) {
    const u32 levels = levels_of_lane(tables), low = low_nibbles(word), high = high_nibbles(word);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const u32 four = i % 2 ? high : low;
        out[0][i] =
            numbers(level_of(four, pick(i / 2), levels), level_of(four, pick(i / 2 + 2), levels), absmax, absmax);
    }
}
