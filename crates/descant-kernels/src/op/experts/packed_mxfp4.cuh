// MXFP4 as bf16 for packed_sm90.cu: a number is a mask, two shifts at most and a product; see mxfp4.cuh.
#pragma once
#include "packed_tiles.cuh"
#include "packed_bf16.cuh"

#define RAW_BYTES 0

// The words of a step's four tiles of a warp.
struct Words {
    u32 of_tile[4];
};
// The fragments of one half of the 64 elements of the inner dimension, twice 16. The first half brings the words of
// both.
template <bool TRANSPOSED>
__device__ __forceinline__ void decode(u32, u32 packed, int group, int half, Words& words, u32 (&x)[2][4]) {
    const int lane = threadIdx.x & 31, tile = group * 4 + ((threadIdx.x >> 5) & 3), q = lane & 3;
    if (TRANSPOSED) {
        if (half == 0) {
            const u32 from = packed + (lane >> 3) * BAND_BYTES(true) + tile * TILE_BYTES + (lane & 7) * 16;
            load_matrices_transposed(words.of_tile, from);
        }
        const u32 from = packed + TILES_BYTES + tile / 2 * SCALE_PIECE + q * 4;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int j = half * 2 + i;
            const u32 scales = shared_load(from + j * BAND_SCALES(true));
            const u32 upper = factors(scales, 0x4140), lower = factors(scales, 0x4342);
            u32 y[4];
            spread(words.of_tile[j], y);
            // Rows of a tile are of the inner dimension here, and columns are those of the result.
            x[i][0] = multiply_bf16x2(y[0], upper), x[i][1] = multiply_bf16x2(y[2], upper);
            x[i][2] = multiply_bf16x2(y[1], lower), x[i][3] = multiply_bf16x2(y[3], lower);
        }
    } else {
        if (half == 0) load_matrices(words.of_tile, packed + tile * BAND_BYTES(false) + lane * 16);
        const u32 from = packed + TILES_BYTES + tile * BAND_SCALES(false) + (lane >> 3) * 4;
        const u32 select = 0x4040 + (lane >> 2 & 1) * 0x0101;
        const u32 scales = shared_load(from + half * SCALE_PIECE);
        const u32 upper = factors(scales, select), lower = factors(scales, select + 0x0202);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            u32 y[4];
            spread(words.of_tile[half * 2 + i], y);
            x[i][0] = multiply_bf16x2(y[0], upper), x[i][1] = multiply_bf16x2(y[1], lower);
            x[i][2] = multiply_bf16x2(y[2], upper), x[i][3] = multiply_bf16x2(y[3], lower);
        }
    }
}
