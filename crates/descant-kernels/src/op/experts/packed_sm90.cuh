// What packed_sm90.cu and the packings that it decodes have in common: the problem, its tiles, what lies where in
// shared memory, and which columns a thread multiplies.
#pragma once
#include "balanced.cuh"
#include "fp8.cuh"
#include "grouped.cuh"
#include "sm90.cuh"
#include "mma.cuh"

#define ROWS 192
#define GROUPS 3  // warpgroups that multiply
#define COLUMNS TILE_COLUMNS
static_assert(COLUMNS == GROUPS * 64, "what the host makes boxes of");

// Where things lie in shared memory, in bytes. A stage has 128 bytes of each row, which are SUM_STEP numbers, and
// behind them PACKED_BYTES of packed weights and of what the packing makes of their scales, or has of them.
#define A_BYTES (ROWS * 128)
#define STAGE ((A_BYTES + PACKED_BYTES + 1023) / 1024 * 1024)
// A staged row: 64 columns, 32 of h and of h8 where there are any, and 16 bytes against bank conflicts.
#define OUT_LD 144
#define ROW_LD (208 + H8_BYTES)
#define STAGED_BYTES (64 * OUT_LD)  // of a group: 64 rows of the result, or 32 with h
#define STAGED (STAGES * STAGE)
#define RAW (STAGED + GROUPS * STAGED_BYTES)  // factors on their way, RAW_BYTES a group
#define TABLES (RAW + GROUPS * RAW_BYTES)  // what the packing looks up
#define FULL (TABLES + TABLE_BYTES)
#define EMPTY (FULL + STAGES * 8)
#define TILES (EMPTY + STAGES * 8)  // which tile begins in a stage, one of a stage
#define WALK (TILES + STAGES * 16)
static_assert(THREADS == 128 * (1 + GROUPS), "one warpgroup that loads");
static_assert(ROWS % ROW_BOX == 0 && ROW_BOX % 8 == 0, "whole boxes, in whole swizzles");

struct Places {
    const u8* scales;
    const float* tables;
    const bf16* bias;
    const bf16* v;
    bf16* out;
    bf16* h;
    int n_experts, n_out, n_in;
    float limit;
    // Of rows in 8 bits.
    u8* h8;
    float fixed_factor, h8_scale;
};

// This thread's number, asked for again: what follows from it is not kept in registers from before.
__device__ __forceinline__ int thread_again() {
    int t;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(t));
    return t;
}

using Tiles = BalancedWalk<ROWS, COLUMNS>;

__device__ __forceinline__ int steps_of(const Places& g) { return (g.n_in + SUM_STEP - 1) / SUM_STEP; }
