// The one order of a sum in a step's dense products, whoever computes them: so a sequence's bits do not depend on how
// many are beside it.
//
// k goes by pairs of chunks of 32. Part p of PARTS has pairs p, p + PARTS, p + 2 PARTS, ...; it multiplies chunk after
// chunk into one sum. Neighbouring parts are added to each other, then these sums from the first to the last:
//   ((p0 + p1) + (p2 + p3)) + ...
#pragma once
#include "common.cuh"

#define PARTS 8

// A part of the sum of squares of a row of bf16, the same in every lane of a warp.
__device__ __forceinline__ float part_of_square(const u8* row, int part, int lane, int K) {
    float f[8], sum = 0.0f;
#pragma unroll 2
    for (int i = part * 32 + lane; i < K / 8; i += PARTS * 32) {
        unpack8(*(const uint4*)(row + i * 16), f);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += f[j] * f[j];
    }
    return warp_sum(sum);
}
// What RMSNorm (Zhang and Sennrich 2019) multiplies a row by.
__device__ __forceinline__ float norm_scale(const float* parts, int K, float epsilon) {
    float sum = 0.0f;
#pragma unroll 1
    for (int i = 0; i < PARTS; i++) sum += parts[i];
    return rsqrtf(sum / K + epsilon);
}
// Eight normed numbers; `weight` is that of the norm at them.
__device__ __forceinline__ uint4 normed8(uint4 v, float scale, const float4* weight) {
    float f[8];
    unpack8(v, f);
    const float4 a = weight[0], c = weight[1];
    const float by[8] = {a.x, a.y, a.z, a.w, c.x, c.y, c.z, c.w};
#pragma unroll
    for (int j = 0; j < 8; j++) f[j] = f[j] * scale * by[j];
    return pack8(f);
}
