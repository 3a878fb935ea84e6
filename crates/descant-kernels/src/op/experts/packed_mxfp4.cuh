// MXFP4 for packed_sm90.cu, in the order of tiles: boxes bring the tiles and the scales of a step as they lie, ldmatrix
// gives a thread the numbers of its fragments, and a number is a mask, two shifts at most and a product; see mxfp4.cuh.
#pragma once
#include "packed_sm90.cuh"

// A stage's tiles, and its scales behind them. Forward they are [12 bands of 16 columns][64 of k], backward [4 bands of
// 16 of k][192 columns].
#define BANDS (COLUMNS / TILE)
#define STEP_BANDS (STEP / TILE)
#define TILES_BYTES (COLUMNS * STEP / 2)
#define PACKED_BYTES (TILES_BYTES + COLUMNS * STEP / 32)
#define BAND_BYTES(transposed) (((transposed) ? COLUMNS : STEP) / TILE * TILE_BYTES)
#define BAND_SCALES(transposed) (((transposed) ? COLUMNS : STEP) / 32 * SCALE_PIECE)
#define RAW_BYTES 0
#define COPIED_BYTES PACKED_BYTES  // by tensor copies
#define SCALE_WARPS 0  // the scales come with the tiles
#define COPY_REGISTERS 32
#define REGISTERS 160

// One thread: the tiles and scales of a step.
template <bool TRANSPOSED>
__device__ __forceinline__ void copy_packed(const Places& g, const TensorMap& w, const TensorMap& scales,
                                            const Tiles& tiles, int step, u32 to, u32 full) {
    const int bands = tiles.expert * ((TRANSPOSED ? g.n_in : g.n_out) / TILE);
    const int column = TRANSPOSED ? tiles.column : step * STEP;
    const int band = bands + (TRANSPOSED ? step * STEP : tiles.column) / TILE;
    // In u64: a tile has 16 of them, the scales of 32 columns two.
    tensor_copy(to, w, column, band, full);
    tensor_copy(to + TILES_BYTES, scales, column / 16, band, full);
}
template <bool TRANSPOSED>
__device__ __forceinline__ void scale(const Places&, u32, int) {}

// Which of its group's 64 columns a row of a warp's fragments is, of the upper eight or the lower.
template <bool TRANSPOSED> __device__ __forceinline__ int column_of_fragment(int half) {
    return ((threadIdx.x >> 5) & 3) * TILE + ((threadIdx.x & 31) >> 2) + half * 8;
}
// Which of them a thread stores, this one and the next, once neighbours have exchanged their sums: four threads of a
// column of the upper half, and those of the next column, which store two of the lower half.
template <bool TRANSPOSED> __device__ __forceinline__ int column_of_thread() {
    const int r = (threadIdx.x & 31) >> 2;
    return ((threadIdx.x >> 5) & 3) * TILE + (r & 1 ? r + 7 : r);
}
__device__ __forceinline__ void exchange(float* y) {
    const bool odd = threadIdx.x & 4;
    const float first = __shfl_xor_sync(FULL_WARP, odd ? y[0] : y[2], 4);
    const float second = __shfl_xor_sync(FULL_WARP, odd ? y[1] : y[3], 4);
    if (odd)
        y[0] = first, y[1] = second;
    else
        y[2] = first, y[3] = second;
}

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
