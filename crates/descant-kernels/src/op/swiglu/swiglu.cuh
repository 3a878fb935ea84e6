// What the kernels of the clamped SwiGLU have in common: its values, and its gradient for eight columns.
#pragma once
#include "common.cuh"

#define ALPHA 1.702f

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

// Where the backward is at work, and what it adds to d_weights.
struct SwigluRow {
    const bf16 *pre, *dh;
    float weight, limit;
    float sum;
};

// Columns 8c to 8c + 7 in the two steps of a pass: what is read, and what comes of it: the gradient of the sixteen
// inputs and the activation.
struct SwigluVector {
    uint4 in[2], grad;

    __device__ __forceinline__ void load(const SwigluRow& row, int c) {
        in[0] = load16(row.pre + 16 * c), in[1] = load16(row.pre + 16 * c + 8), grad = load16(row.dh + 8 * c);
    }
    __device__ __forceinline__ void back(SwigluRow& row, uint4 (&dpre)[2], uint4& activation) const {
        float x[16], g[8], h[8];
        unpack8(in[0], x);
        unpack8(in[1], x + 8);
        unpack8(grad, g);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float x0 = x[2 * j], x1 = x[2 * j + 1];
            float gate = fminf(x0, row.limit), up = fminf(fmaxf(x1, -row.limit), row.limit), s = sigmoid(ALPHA * gate);
            h[j] = to_float(to_bf16((up + 1.0f) * gate * s));
            row.sum += g[j] * h[j];
            g[j] *= row.weight;
            x[2 * j] = x0 <= row.limit ? g[j] * (up + 1.0f) * (s + ALPHA * gate * s * (1.0f - s)) : 0.0f;
            x[2 * j + 1] = fabsf(x1) <= row.limit ? g[j] * gate * s : 0.0f;
        }
        dpre[0] = pack8(x), dpre[1] = pack8(x + 8);
        activation = pack8(h);
    }
};
