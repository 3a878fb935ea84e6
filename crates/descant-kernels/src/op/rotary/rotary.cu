// Rotary embedding of heads inside wider rows, in place or from one buffer to another. Source: Su et al. 2021.
//
// A thread turns eight pairs (i, i + d/2) of up to HEADS heads of one token, so that the angles are read once for
// them and 2 HEADS loads of 16 bytes are under way at a time.
#include "step.cuh"

static_assert(THREADS % 32 == 0, "whole warps");

// For every head h < n_heads: out[t, h*d + j] = x1 cos - sign x2 sin, out[t, h*d + d/2 + j] = x2 cos + sign x1 sin.
// x bf16 rows of stride ld, out bf16 rows of stride out_ld (may be x); cos, sin f32 [T, d/2]; d a multiple of 16.
// sign 1 turns forward, -1 back (the gradient). Grid: ceil(T * ceil(n_heads / HEADS) * (d / 16) / THREADS). Block:
// THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
    rotary(const bf16* x, const float* __restrict__ cos, const float* __restrict__ sin, bf16* out, int T, int n_heads,
           int d, int ld, int out_ld, float sign) {
    follow_closely();
    int half = d / 2, vectors = half / 8, groups = (n_heads + HEADS - 1) / HEADS;
    u64 item = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= (u64)T * groups * vectors) return;
    int j = item % vectors * 8, group = item / vectors % groups, token = item / vectors / groups;
    float c[8], s[8];
    const float4* from = (const float4*)(cos + (u64)token * half + j);
    ((float4*)c)[0] = from[0], ((float4*)c)[1] = from[1];
    from = (const float4*)(sin + (u64)token * half + j);
    ((float4*)s)[0] = from[0], ((float4*)s)[1] = from[1];
    x += (u64)token * ld + j;
    out += (u64)token * out_ld + j;
    uint4 first[HEADS], second[HEADS];
#pragma unroll
    for (int i = 0; i < HEADS; i++) {
        int head = group * HEADS + i;
        if (head < n_heads) first[i] = load16(x + head * d), second[i] = load16(x + head * d + half);
    }
#pragma unroll
    for (int i = 0; i < HEADS; i++) {
        int head = group * HEADS + i;
        if (head >= n_heads) return;
        float a[8], b[8];
        unpack8(first[i], a);
        unpack8(second[i], b);
#pragma unroll
        for (int k = 0; k < 8; k++) {
            float turned = sign * s[k], a0 = a[k];
            a[k] = a0 * c[k] - b[k] * turned;
            b[k] = b[k] * c[k] + a0 * turned;
        }
        store16(out + head * d, pack8(a));
        store16(out + head * d + half, pack8(b));
    }
}
