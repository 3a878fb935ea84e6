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

// ---- for products of few rows: 16 columns of a result and CHUNK of k, in the fragments of a warp
#define CHUNK 128
// Two units on their way. A lane has a block of 32 numbers of each of two lines, eight columns apart, so that the lanes
// of a row have different blocks: whose numbers meet is the same on both sides.
struct Chunk {
    uint4 words[2];
    u32 codes[2];
    float nested[2];
};
__device__ __forceinline__ int block_of_chunk(int chunk) { return chunk * 4 + (threadIdx.x & 3); }
// Of the 16 columns from `column` on, which counts those of all experts; zeros beyond n_in.
__device__ __forceinline__ Chunk load_chunk(const u8* blocks, const Scales& scales, u64 column, int n_in, int chunk) {
    Chunk x = {};
    const int block = block_of_chunk(chunk);
    if (block * 32 >= n_in) return x;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const u64 from = (column + ((threadIdx.x & 31) >> 2) + i * 8) * (n_in / 32) + block;
        uint4& words = x.words[i];
        asm volatile("ld.global.nc.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
                     : "l"(blocks + from * 16));
        const u32 pair = (u32)(from / 2);
        x.codes[i] = load_byte(scales.codes + pair);
        asm volatile("ld.global.nc.f32 %0, [%1];"
                     : "=f"(x.nested[i])
                     : "l"(scales.nested + (pair - scales.first) / 256));
    }
    return x;
}
// Which 16 bytes of a row of the activation a unit meets: these and the next ones.
__device__ __forceinline__ int pieces_of_unit(int chunk, int unit) { return block_of_chunk(chunk) * 4 + unit * 2; }
// Where a staged row has its piece p, so that lanes that read together read different banks.
__device__ __forceinline__ int place_of_piece(int row, int p) { return p ^ (((p >> 3) + 2 * (row & 1)) & 3); }
// The left operands of its four products: numbers (i, i + 4) of a word are neighbours.
__device__ __forceinline__ void decode_unit(const Chunk& x, int unit, const Scales& scales, u32 tables,
                                            u32 (&left)[4][4]) {
    const u32 levels = levels_of_lane(tables);
#pragma unroll
    for (int line = 0; line < 2; line++) {
        // What is not there has zeros for activations.
        const float absmax = absmax_of(x.codes[line], x.nested[line], scales.offset, tables);
        const u32 words[2] = {unit ? x.words[line].z : x.words[line].x, unit ? x.words[line].w : x.words[line].y};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const u32 four = i % 2 ? high_nibbles(words[i / 4]) : low_nibbles(words[i / 4]);
            const int at = i % 4 / 2;
            left[i / 2][i % 2 * 2 + line] =
                numbers(level_of(four, pick(at), levels), level_of(four, pick(at + 2), levels), absmax, absmax);
        }
    }
}
// The right operand of product i.
__device__ __forceinline__ void right_of(int i, const uint4& x, const uint4& y, u32& first, u32& second) {
    const uint4 z = i < 2 ? x : y;
    first = i % 2 ? __byte_perm(z.y, z.w, 0x5410) : __byte_perm(z.x, z.z, 0x5410);
    second = i % 2 ? __byte_perm(z.y, z.w, 0x7632) : __byte_perm(z.x, z.z, 0x7632);
}
