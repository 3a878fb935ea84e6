// Rows in bf16 for packed_sm90.cu: a step is 64 numbers of the sum, weights are bf16, and sums are what they are.
#pragma once
#include "packed_sm90.cuh"

#define STAGES 6
#define H8_BYTES 0
#define FINE_WIDTHS true
#define MORE_PARAMETERS
#define MORE_ARGUMENTS nullptr, 1.0f, 1.0f
static_assert(SUM_STEP == STEP, "128 bytes of a row");

template <bool TRANSPOSED, class W>
__device__ __forceinline__ void begin_tile(const Places&, const Tile&, u32, int, W&) {}
template <class W> __device__ __forceinline__ void begin_last_step(const Places&, W&) {}
template <int N> __device__ __forceinline__ void product_of_weights(float (&acc)[N / 2], const u32 (&x)[4], u64 rows) {
    product<N>(acc, x, rows);
}
template <int N> __device__ __forceinline__ void scale_sums(float (&)[N / 2], u32, int) {}
template <class W> __device__ __forceinline__ u32 pair_of_v(u32 pair, int, const W&) { return pair; }
struct ColumnFactors {
    template <class W> __device__ __forceinline__ explicit ColumnFactors(const W&) {}
    __device__ __forceinline__ void finish(float* y, u32 bias) const {
        y[0] += low_float(bias), y[1] += low_float(bias), y[2] += high_float(bias), y[3] += high_float(bias);
    }
};
