// Packed MXFP4 to bf16, exactly, from the order of tiles (descant-quant's mxfp4/tiles.rs): a word of a tile becomes
// four pairs of bf16 with shifts, masks and a multiplication.
//
// A nibble is sign, two exponent bits, one mantissa bit. Its magnitude bits placed at bits 6..8 of a bf16 are the same
// number times 2^-126 (the smallest ones are subnormal, which bf16 multiplication keeps), its sign goes to bit 15.
//
// A tile has 16 rows and 16 columns of a matrix in 128 bytes, eight by eight u16. A tile's rows follow each other as
// rows of 16 bytes, so ldmatrix brings it, and transposed as well. Tiles of the same 16 rows follow each other.
#pragma once
#include "common.cuh"

#define TILE 16          // rows of a tile, and columns
#define TILE_BYTES 128
#define SCALE_PIECE 16   // bytes of the scales of a tile's rows and 32 columns

// Products of two pairs; adding minus zero keeps the sign of a zero.
__device__ __forceinline__ u32 multiply_bf16x2(u32 a, u32 b) {
    u32 y;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(0x80008000u));
    return y;
}
// The numbers of two u16 of a tile, (x, y) in the lower half and its neighbour in the upper one, times 2^-126: those of
// row x and column y, of row x + 8, of column y + 8, and of both.
__device__ __forceinline__ void spread(u32 word, u32 (&out)[4]) {
    out[0] = word & 0x81c081c0u;
    out[1] = (word << 3) & 0x81c081c0u;
    out[2] = ((word << 6) & 0x01c001c0u) | ((word << 1) & 0x80008000u);
    out[3] = ((word >> 3) & 0x01c001c0u) | ((word << 2) & 0x80008000u);
}
// Two bytes of a word of scales as a pair of factors: selector 0x4i4j puts byte j into the lower half, i into the
// upper.
__device__ __forceinline__ u32 factors(u32 word, u32 selector) { return __byte_perm(word, 0, selector) << 7; }

// ---- for products of few rows: 16 columns of a result and CHUNK of k, in the fragments of a warp
#define CHUNK 128
// Nothing to look up, and nothing about a matrix but where its scales are.
#define TABLE_BYTES 0
__device__ __forceinline__ void fill_tables(const float*, u32) {}
struct Scales {
    const u8* bytes;
};
__device__ __forceinline__ Scales scales_of(const u8* scales, const float*, int, int, u32) { return {scales}; }

// Two units on their way. A lane has a row of eight u16 of its own tile, so that in each of four products the lanes of
// a row have different tiles: whose numbers meet is the same on both sides.
struct Chunk {
    u32 words[2][4];
    u32 scales[2];
};
__device__ __forceinline__ int tile_of_unit(int chunk, int unit) { return chunk * 8 + unit * 4 + (threadIdx.x & 3); }
// Of the 16 columns from `column` on, which counts those of all experts; zeros beyond n_in.
__device__ __forceinline__ Chunk load_chunk(const u8* tiles, const Scales& scales, u64 column, int n_in, int chunk) {
    const int g = (threadIdx.x & 31) >> 2;
    Chunk x = {};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int tile = tile_of_unit(chunk, i);
        if (tile * TILE >= n_in) continue;
        const u8* from = tiles + (column / TILE * (n_in / TILE) + tile) * TILE_BYTES + g * 16;
        asm volatile("ld.global.nc.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x.words[i][0]), "=r"(x.words[i][1]), "=r"(x.words[i][2]), "=r"(x.words[i][3])
                     : "l"(from));
        from = scales.bytes + (column / TILE * (n_in / 32) + tile / 2) * SCALE_PIECE + g / 2 * 4;
        asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(x.scales[i]) : "l"(from));
    }
    return x;
}
// Which 16 bytes of a row of the activation a unit meets: these and the next ones.
__device__ __forceinline__ int pieces_of_unit(int chunk, int unit) { return tile_of_unit(chunk, unit) * 2; }
// Where a staged row has its piece p, so that lanes that read together read different banks.
__device__ __forceinline__ int place_of_piece(int row, int p) { return p ^ (row & 1); }
// The left operands of its four products.
__device__ __forceinline__ void decode_unit(const Chunk& x, int unit, const Scales&, u32, u32 (&left)[4][4]) {
    const u32 select = 0x4040 + (threadIdx.x >> 2 & 1) * 0x0101;
    const u32 upper = factors(x.scales[unit], select), lower = factors(x.scales[unit], select + 0x0202);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        spread(x.words[unit][i], left[i]);
        left[i][0] = multiply_bf16x2(left[i][0], upper), left[i][1] = multiply_bf16x2(left[i][1], lower);
        left[i][2] = multiply_bf16x2(left[i][2], upper), left[i][3] = multiply_bf16x2(left[i][3], lower);
    }
}
// The right operand of product i.
__device__ __forceinline__ void right_of(int i, const uint4& x, const uint4& y, u32& first, u32& second) {
    const u32 of_x[4] = {x.x, x.y, x.z, x.w}, of_y[4] = {y.x, y.y, y.z, y.w};
    first = of_x[i], second = of_y[i];
}
