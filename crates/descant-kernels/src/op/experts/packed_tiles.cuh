// MXFP4 in the order of tiles for packed_sm90.cu: boxes bring the tiles and the scales of a step as they lie, and
// ldmatrix gives a thread the numbers of its fragments. What they become is in packed_mxfp4.cuh and packed_fp8.cuh.
#pragma once
#include "packed_sm90.cuh"

// A stage's tiles, and its scales behind them. Forward they are [12 bands of 16 columns][a step of k], backward [a step
// of k in bands of 16][192 columns].
#define TILES_BYTES (COLUMNS * SUM_STEP / 2)
#define PACKED_BYTES (TILES_BYTES + COLUMNS * SUM_STEP / 32)
#define BAND_BYTES(transposed) (((transposed) ? COLUMNS : SUM_STEP) / TILE * TILE_BYTES)
#define BAND_SCALES(transposed) (((transposed) ? COLUMNS : SUM_STEP) / 32 * SCALE_PIECE)
#define COPIED_BYTES PACKED_BYTES  // by tensor copies
#define SCALE_WARPS 0  // the scales come with the tiles
#define COPY_REGISTERS 32
#define REGISTERS 160

// One thread: the tiles and scales of a step.
template <bool TRANSPOSED>
__device__ __forceinline__ void copy_packed(const Places& g, const TensorMap& w, const TensorMap& scales,
                                            const Tiles& tiles, int step, u32 to, u32 full) {
    const int bands = tiles.expert * ((TRANSPOSED ? g.n_in : g.n_out) / TILE);
    const int column = TRANSPOSED ? tiles.column : step * SUM_STEP;
    const int band = bands + (TRANSPOSED ? step * SUM_STEP : tiles.column) / TILE;
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
// A warp: 16 rows of its 16 columns, of which a thread has eight sums, from `to` on in shared memory, in bf16.
template <bool TRANSPOSED> __device__ __forceinline__ void stage_rows(u32 to, int ld, int t, const float* y) {
    const int lane = t & 31, warp = t >> 5;
    const u32 both[4] = {to_bf16x2(y[0], y[1]), to_bf16x2(y[2], y[3]), to_bf16x2(y[4], y[5]), to_bf16x2(y[6], y[7])};
    store_matrices_transposed(to + ((lane & 7) + (lane >> 4) * 8) * ld + warp * 32 + (lane >> 3 & 1) * 16, both);
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
