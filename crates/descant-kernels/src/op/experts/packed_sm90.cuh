// What packed_sm90.cu and the packings that it decodes have in common: the problem, its tiles, what lies where in
// shared memory, and which columns a thread multiplies.
#pragma once
#include "grouped.cuh"
#include "sm90.cuh"
#include "mma.cuh"

#define ROWS 192
#define STAGES 6
#define GROUPS 3  // warpgroups that multiply
#define COLUMNS (GROUPS * 64)

// Where things lie in shared memory, in bytes. A group's packed weights in a stage are 64 lines of 32 bytes: columns by
// k forward, k by columns backward. Behind them are the factors that the packing makes of their scales.
#define A_BYTES (ROWS * 128)
#define W_BYTES 2048
#define GROUP_FACTORS (2 * 256 + 16)
#define STAGE ((A_BYTES + GROUPS * (W_BYTES + GROUP_FACTORS) + 1023) / 1024 * 1024)
#define ROW_LD 208  // a staged row: 64 columns, 32 of h, 16 bytes against bank conflicts
#define STAGED (STAGES * STAGE)
#define RAW (STAGED + GROUPS * 32 * ROW_LD)  // scales on their way, RAW_BYTES a group
#define TABLES (RAW + GROUPS * RAW_BYTES)  // what the packing looks up
#define FULL (TABLES + TABLE_BYTES)
#define EMPTY (FULL + STAGES * 8)
#define OFFSETS (EMPTY + STAGES * 8)
static_assert(THREADS == 128 * (1 + GROUPS), "one warpgroup that loads");
static_assert(ROWS % ROW_BOX == 0 && ROW_BOX % 8 == 0 && WEIGHT_BOX == 64, "whole boxes, in whole swizzles");

struct Places {
    const u8* scales;
    const float* tables;
    const bf16* bias;
    const bf16* v;
    bf16* out;
    bf16* h;
    int n_experts, n_out, n_in;
    float limit;
};

using Tiles = Walk<ROWS, COLUMNS>;

__device__ __forceinline__ int steps_of(const Places& g) { return (g.n_in + STEP - 1) / STEP; }

// Which of its group's 64 columns a thread has: this one and the next. They are rows lane / 4 and 8 below of its
// warp's fragments; the order is ours to choose, and with this one gate and up meet in a thread, forward, and a thread
// finds its columns in what a transposed load gives it, backward.
template <bool TRANSPOSED> __device__ __forceinline__ int column_of_thread() {
    const int r = (threadIdx.x & 31) >> 2, warp = (threadIdx.x >> 5) & 3;
    return TRANSPOSED ? warp / 2 * 32 + r * 4 + warp % 2 * 2 : warp * 16 + r * 2;
}
