// The trainable path for few rows, as in generation: y = (x A^T) B^T, read from the factors as the optimizer keeps
// them, in f32, so that nothing is made of them before a token. Products and roundings are those of the grouped form:
// both factors and x A^T are rounded to bf16, sums are f32.
//
// A CTA makes x A^T of one row for itself, a warp a rank, and then THREADS columns of y. A row's matrices are found by
// the offsets of the groups; without offsets there is one pair. Launch: grid = (columns / THREADS, rows).
#include "common.cuh"

#define WARPS (THREADS / 32)
static_assert(MAX_EXPERTS <= THREADS, "a thread looks at the end of each group");
static_assert(THREADS % 32 == 0, "whole warps");

__device__ __forceinline__ float rounded(float x) { return to_float(to_bf16(x)); }

extern "C" __global__ void __launch_bounds__(THREADS)
    low_rank_few(const bf16* x, const float* a, const float* b, const int* offsets, bf16* y, int count, int rank,
                 int n_in, int n_out, float scaling) {
    __shared__ float inner[RANK_WIDTH];
    __shared__ int matrix;
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, row = blockIdx.y;
    if (t == 0) matrix = 0;
    __syncthreads();
    if (offsets && t < count && offsets[t] <= row && row < offsets[t + 1]) matrix = t;
    __syncthreads();
    const uint2* from = (const uint2*)(x + (u64)row * n_in);
    for (int r = warp; r < rank; r += WARPS) {
        const float4* line = (const float4*)(a + ((u64)matrix * rank + r) * n_in);
        float sum = 0.0f;
#pragma unroll 4
        for (int i = lane; i < n_in / 4; i += 32) {
            const float4 w = line[i];
            const uint2 v = from[i];
            sum += low_float(v.x) * rounded(w.x);
            sum += high_float(v.x) * rounded(w.y);
            sum += low_float(v.y) * rounded(w.z);
            sum += high_float(v.y) * rounded(w.w);
        }
        sum = warp_sum(sum);
        if (lane == 0) inner[r] = rounded(sum);
    }
    __syncthreads();
    const int column = blockIdx.x * THREADS + t;
    if (column >= n_out) return;
    const float* line = b + ((u64)matrix * n_out + column) * rank;
    float sum = 0.0f;
    for (int r = 0; r < rank; r++) sum += inner[r] * rounded(scaling * line[r]);
    y[(u64)row * n_out + column] = to_bf16(sum);
}
