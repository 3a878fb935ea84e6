// The backward of SwiGLU before a product in fp8: its result also, or only, in E4M3.
#include "step.cuh"
#include "swiglu.cuh"
#include "fp8_rows.cuh"

static_assert(THREADS % 32 == 0, "whole warps");

// As `swiglu_backward` of swiglu.cu, whose row it makes: dpre may be null, and what would be stored there goes to
// `codes` in E4M3 in the order of fp8.cuh, its factor to factors[p]. codes u8 [P, 2F], factors f32 [P]; pairs, weights
// and d_weights are given. F is a multiple of 8 and at most 8 * VECTORS * THREADS: a block has its row in registers.
// Grid: P. Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS, 6)
    swiglu_backward_fp8(const bf16* pre, const bf16* dh, bf16* dpre, bf16* h_out, u8* codes, float* factors,
                        const int* pairs, const float* weights, float* d_weights, int F, float limit) {
    follow_closely();
    __shared__ float scratch[32];
    const u64 place = blockIdx.x;
    const int pair = pairs[place], n = F / 8;
    SwigluRow row = {pre + place * 2 * F, dh + place * F, weights[pair], limit, 0.0f};
    SwigluVector v[VECTORS];
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        const int c = i * THREADS + threadIdx.x;
        if (c < n) v[i].load(row, c);
    }
    uint4 gradient[VECTORS][2];
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        const int c = i * THREADS + threadIdx.x;
        if (c >= n) break;
        uint4 h;
        float x[16];
        v[i].back(row, gradient[i], h);
        unpack8(gradient[i][0], x);
        unpack8(gradient[i][1], x + 8);
#pragma unroll
        for (int j = 0; j < 16; j++) largest = fmaxf(largest, fabsf(x[j]));
        if (h_out) store16(h_out + place * F + 8 * c, h);
    }
    largest = block_max(largest, scratch);
    const float up = e4m3_up(largest);
    if (threadIdx.x == 0) factors[place] = e4m3_factor(largest);
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        const int c = i * THREADS + threadIdx.x;
        if (c >= n) break;
        float x[16];
        unpack8(gradient[i][0], x);
        unpack8(gradient[i][1], x + 8);
        store16(codes + place * 2 * F + 16 * c, to_e4m3x16(x, up));
        if (dpre) {
            store16(dpre + place * 2 * F + 16 * c, gradient[i][0]);
            store16(dpre + place * 2 * F + 16 * c + 8, gradient[i][1]);
        }
    }
    const float sum = block_sum(row.sum, scratch);
    if (threadIdx.x == 0) d_weights[pair] = sum;
}
