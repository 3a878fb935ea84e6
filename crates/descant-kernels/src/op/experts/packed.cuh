// What packed.cu and the packings that it decodes have in common: a tile, what lies where in shared memory, and copies.
#pragma once
#include "barrier.cuh"
#include "grouped.cuh"
#include "mma.cuh"

#define BLOCKS 8  // of 16 rows in a tile
#define ROWS (BLOCKS * 16)
#define WARPS 8
#define COLUMNS (WARPS * 32)
#define STAGES 3

// Where things are in shared memory, in bytes. A stage has rows, packed weights, and SCALES_BYTES where those come with
// them; BESIDE_BYTES are the packing's.
#define A_BYTES (ROWS * 128)
#define STAGE (A_BYTES + COLUMNS * 32 + SCALES_BYTES)
#define W_COPIES (COLUMNS * 2 / THREADS)  // of 16 bytes by a thread
#define BESIDE (STAGES * STAGE)
#define TABLES (BESIDE + BESIDE_BYTES)
#define WALK (TABLES + TABLE_BYTES)
#define WALK_BYTES 24
#define ARRIVED (WALK + WALK_BYTES)
static_assert(THREADS == WARPS * 32, "eight warps");

using Tiles = Walk<ROWS, COLUMNS>;
static_assert(sizeof(Tiles) <= WALK_BYTES, "room for it");

__device__ __forceinline__ int steps_of(const Problem& g) { return (g.n_in + STEP - 1) / STEP; }

__device__ __forceinline__ void copy_rows(u32 to, const void* from, bool inside, bool wanted) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.u32 p, %3, 0;\n@p cp.async.cg.shared.global [%0], [%1], 16, %2;\n}" ::"r"(to),
        "l"(from), "r"(inside ? 16 : 0), "r"((u32)wanted)
        : "memory");
}
__device__ __forceinline__ void copy_weights(u32 to, const void* from, bool wanted) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.u32 p, %2, 0;\n@p cp.async.cg.shared.global.L2::128B [%0], [%1], 16;\n}" ::"r"(to),
        "l"(from), "r"((u32)wanted)
        : "memory");
}
__device__ __forceinline__ void copy_word(u32 to, const void* from, bool wanted) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.u32 p, %2, 0;\n@p cp.async.ca.shared.global [%0], [%1], 4;\n}" ::"r"(to),
                 "l"(from), "r"((u32)wanted)
                 : "memory");
}
// A load that stays where it is: the compiler would keep many of them in registers that the sums need.
__device__ __forceinline__ uint4 load16_here(const void* from) {
    uint4 x;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "l"(from)
                 : "memory");
    return x;
}
