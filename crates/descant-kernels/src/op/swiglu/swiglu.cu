// gpt-oss' clamped SwiGLU on interleaved gate and up, forward, and backward with the router weight folded in.
//
// Both are bound by bytes. The backward rebuilds the activation from its input, so that nothing but the input is kept:
// one pass gives the input's gradient (over the input itself), the router weights' gradients, and where the low-rank
// path asks for it the activation.
#include "step.cuh"
#include "swiglu.cuh"

#define VECTORS 3
static_assert(THREADS % 32 == 0 && BACKWARD_THREADS % 32 == 0, "whole warps");

// Eight activations from sixteen inputs.
__device__ __forceinline__ void activate(const float* x, float limit, float* h) {
#pragma unroll
    for (int j = 0; j < 8; j++) {
        float gate = fminf(x[2 * j], limit), up = fminf(fmaxf(x[2 * j + 1], -limit), limit);
        h[j] = (up + 1.0f) * gate * sigmoid(ALPHA * gate);
    }
}

// h[p, i] = (u + 1) g sigmoid(1.702 g) with g = min(pre[p, 2i], limit), u = clamp(pre[p, 2i + 1]).
// pre bf16 [rows, 2F], h bf16 [rows, F], both dense; n = rows * F / 8. Grid: ceil(n / (THREADS * FORWARD_VECTORS)).
// Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
    swiglu(const bf16* __restrict__ pre, bf16* __restrict__ h, u64 n, float limit) {
    u64 base = (u64)blockIdx.x * (THREADS * FORWARD_VECTORS) + threadIdx.x;
    uint4 in[FORWARD_VECTORS][2];
#pragma unroll
    for (int i = 0; i < FORWARD_VECTORS; i++) {
        u64 v = base + THREADS * i;
        if (v < n) in[i][0] = load16(pre + 16 * v), in[i][1] = load16(pre + 16 * v + 8);
    }
#pragma unroll
    for (int i = 0; i < FORWARD_VECTORS; i++) {
        u64 v = base + THREADS * i;
        if (v >= n) return;
        float x[16], y[8];
        unpack8(in[i][0], x);
        unpack8(in[i][1], x + 8);
        activate(x, limit, y);
        store16(h + 8 * v, pack8(y));
    }
}

// Row p = place of a pair: with h = swiglu(pre[p]), q = pairs[p], weight = weights[q] (1 where `weights` is null):
//   dpre[p] = weight * swiglu'(pre[p]) dh[p]                     (dpre may be pre)
//   d_weights[q] = dot(dh[p], h)
//   h_out[p] = h                                                 (may be null)
// A clamp passes the gradient where it does not bite, its borders included.
// pre, dpre bf16 [P, 2F]; dh, h_out bf16 [P, F]; pairs i32 [P]; weights, d_weights f32 [T k]. pairs, weights and
// d_weights may all be null. Grid: P. Block: BACKWARD_THREADS.
extern "C" __global__ void __launch_bounds__(BACKWARD_THREADS, 6)
    swiglu_backward(const bf16* pre, const bf16* dh, bf16* dpre, bf16* h_out, const int* pairs, const float* weights,
                    float* d_weights, int F, float limit) {
    follow_closely();
    __shared__ float scratch[32];
    u64 place = blockIdx.x;
    int pair = pairs ? pairs[place] : 0;
    SwigluRow row = {pre + place * 2 * F, dh + place * F, weights ? weights[pair] : 1.0f, limit, 0.0f};
    dpre += place * 2 * F;
    int n = F / 8;
    for (int start = 0; start < n; start += VECTORS * BACKWARD_THREADS) {
        SwigluVector v[VECTORS];
#pragma unroll
        for (int i = 0; i < VECTORS; i++) {
            int c = start + i * BACKWARD_THREADS + threadIdx.x;
            if (c < n) v[i].load(row, c);
        }
#pragma unroll
        for (int i = 0; i < VECTORS; i++) {
            int c = start + i * BACKWARD_THREADS + threadIdx.x;
            if (c >= n) break;
            uint4 gradient[2], h;
            v[i].back(row, gradient, h);
            store16(dpre + 16 * c, gradient[0]);
            store16(dpre + 16 * c + 8, gradient[1]);
            if (h_out) store16(h_out + place * F + 8 * c, h);
        }
    }
    if (!d_weights) return;
    float sum = block_sum(row.sum, scratch);
    if (threadIdx.x == 0) d_weights[pair] = sum;
}
