// How a row of activations becomes one in 8 bits: its factor, and its numbers in their places. The definition is
// `encode_row` of descant-quant.
#pragma once
#include "fp8.cuh"

// A row whose largest magnitude is less is one of zeros.
#define E4M3_LEAST_ROW 1e-30f

// What a row is multiplied with so that its largest magnitude becomes the largest number, and what undoes it.
__device__ __forceinline__ float e4m3_up(float largest) {
    return largest < E4M3_LEAST_ROW ? 1.0f : __fdiv_rn(E4M3_LARGEST, largest);
}
__device__ __forceinline__ float e4m3_factor(float largest) {
    return largest < E4M3_LEAST_ROW ? 1.0f : __fdiv_rn(largest, E4M3_LARGEST);
}
// 16 numbers of a row times `up`, in their places.
__device__ __forceinline__ uint4 to_e4m3x16(const float* x, float up) {
    float y[16];
#pragma unroll
    for (int k = 0; k < 16; k++) y[fp8_place(k)] = x[k] * up;
    u32 words[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        words[i] = to_e4m3x2(y[4 * i], y[4 * i + 1]) | to_e4m3x2(y[4 * i + 2], y[4 * i + 3]) << 16;
    return make_uint4(words[0], words[1], words[2], words[3]);
}
