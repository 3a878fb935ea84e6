// Rows of activations in 8 bits (e4m3), each with a factor that its numbers were divided by, and the order of a row's
// numbers that products of packed experts want.
#pragma once
#include "common.cuh"

#define E4M3_LARGEST 448.0f

// Where number k of a row lies: of each 16, places 4q to 4q + 3 have numbers 2q, 2q + 1, 2q + 8 and 2q + 9, which is
// what a thread decodes from one word of a tile of weights (mxfp4.cuh), whichever side is summed over.
__device__ __forceinline__ int fp8_place(int k) { return (k & ~15) | (k & 6) << 1 | (k & 8) >> 2 | (k & 1); }
// Two numbers, the first in the lower byte; to nearest even, larger ones than E4M3_LARGEST become that.
__device__ __forceinline__ u32 to_e4m3x2(float low, float high) {
    bf16 y;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(y) : "f"(high), "f"(low));
    return y;
}
