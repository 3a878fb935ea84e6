// What packed.cu and the packings that it decodes have in common: a tile, what lies where in shared memory, and copies.
#pragma once
#include "balanced.cuh"
#include "barrier.cuh"
#include "grouped.cuh"
#include "mma.cuh"

#ifdef NF4  // which needs more registers and more shared memory
#define BLOCKS 8  // of 16 rows in a tile
#define FORMS 2, 4, 8  // blocks of a warp
#else
#define BLOCKS 10
#define FORMS 2, 3, 5, 8, 10
#endif
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
#define LINES (TABLES + TABLE_BYTES)  // of a tile's rows and of the next one's: where they are
#define LINES_BYTES (ROWS * 4)
#define WALK (LINES + 2 * LINES_BYTES)  // what the walk reads, where it is, and four of its tiles
#define WALKER (WALK + (WALK_BYTES + 7) / 8 * 8)
#define WALKER_BYTES 32
#define SLOTS (WALKER + WALKER_BYTES)
#define TILE_SLOT 16
#define ARRIVED (SLOTS + 4 * TILE_SLOT)
#define LEFT (ARRIVED + 8)  // both are barriers
static_assert(THREADS == WARPS * 32, "eight warps");

using Tiles = BalancedWalk<ROWS, COLUMNS, true>;
static_assert(sizeof(Tiles) <= WALKER_BYTES && sizeof(Tile) == TILE_SLOT, "room for them");

// What a warp computes of a tile: 32 columns of all rows, or of a part of them where columns are few.
struct Part {
    int group;  // which 32 columns
    int block, n_blocks;  // of 16 rows: the first, and how many
    __device__ __forceinline__ Part(const Tile& tile, int n_out) {
        const int warp = threadIdx.x >> 5, blocks = (tile.n_rows + 15) / 16, columns = n_out - tile.column;
        const int groups = columns <= 32 ? 1 : columns <= 64 ? 2 : columns <= 128 ? 4 : 8, parts = WARPS / groups;
        group = warp & (groups - 1);
        n_blocks = (blocks + parts - 1) / parts;
        block = warp / groups * n_blocks;
    }
    // Whether there is anything for it to do.
    __device__ __forceinline__ bool works(const Tile& tile, int n_out) const {
        return tile.column + group * 32 < n_out && block * 16 < tile.n_rows;
    }
};

// At least three, as many as the next tile is known ahead; those behind the inner dimension add zeros.
__device__ __forceinline__ int steps_of(const Problem& g) { return max((g.n_in + STEP - 1) / STEP, 3); }

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
