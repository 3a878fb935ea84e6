// What both forms of a step's products with packed MXFP4 experts on Hopper share: the order of tiles, rows in shared
// memory, and numbers of a tile as left operands of mma.sync. A file defines ROWS and COLUMNS of a tile after it
// has included grouped.cuh; N_IN of a line, ROW_BYTES of a row in shared memory and CHAINS are the host's.
//
// The order of sums is the same in both: CHAINS pieces of a line, each of PER chunks of 64 numbers, are summed by
// themselves, two products of 16 in turn; the two sums of a piece are added, and then the pieces in their order.
#pragma once
#include "grouped.cuh"
#include "mma.cuh"
#include "sm90.cuh"
#include "step.cuh"

#define WIDE (N_IN / 32)  // blocks of a line
#define CHUNKS ((WIDE + 1) / 2)  // of two blocks
#define PER ((CHUNKS + CHAINS - 1) / CHAINS)  // chunks of a piece
static_assert(ROW_BYTES == CHUNKS * 128, "whole chunks");
static_assert(N_IN % 32 == 0, "numbers come in blocks");

// Rows of one expert, and the first of their columns.
struct Tile {
    int expert, row, n_rows, column;
};

// The tiles of all experts in one order: an expert's rows in groups of ROWS, and the columns of a group after each
// other.
struct TileOrder {
    const int* offsets;
    int n_out;
    Tile tile;
    int group;  // of rows, counted from the first

    __device__ __forceinline__ int groups(int expert) const {
        return (offsets[expert + 1] - offsets[expert] + ROWS - 1) / ROWS;
    }
    // A warp: goes to tile `first`, which there is.
    __device__ __forceinline__ void go(int first, int n_experts) {
        const int lane = threadIdx.x & 31, across = n_out / COLUMNS;
        int group = first / across, expert = 0;
        for (int base = 0; base < n_experts; base += 32) {
            const int here = base + lane < n_experts ? groups(base + lane) : 0;
            const int sum = warp_running_sum(here);
            const u32 found = __ballot_sync(FULL_WARP, group < sum);
            if (found) {
                const int at = __ffs(found) - 1;
                expert = base + at;
                group -= __shfl_sync(FULL_WARP, sum - here, at);
                break;
            }
            group -= __shfl_sync(FULL_WARP, sum, 31);
        }
        const int row = offsets[expert] + group * ROWS;
        tile = {expert, row, min(ROWS, offsets[expert + 1] - row), first % across * COLUMNS};
        this->group = 0;
    }
    // `by` columns further, at most to the first ones of the next group, which there is.
    __device__ __forceinline__ void skip(int by) {
        tile.column += by;
        if (tile.column < n_out) return;
        tile.column = 0, tile.row += tile.n_rows, group++;
        while (tile.row >= offsets[tile.expert + 1]) tile.expert++;
        tile.n_rows = min(ROWS, offsets[tile.expert + 1] - tile.row);
    }
    __device__ __forceinline__ void next() { skip(COLUMNS); }
};

// All tiles of the experts. A warp.
__device__ __forceinline__ int count_tiles(const int* offsets, int n_experts, int n_out) {
    const int lane = threadIdx.x & 31;
    int all = 0;
    for (int base = 0; base < n_experts; base += 32) {
        const int e = base + lane;
        all += __reduce_add_sync(FULL_WARP, e < n_experts ? (offsets[e + 1] - offsets[e] + ROWS - 1) / ROWS : 0);
    }
    return all * (n_out / COLUMNS);
}

// Where 16-byte piece p of a staged row is: eight rows' pieces of one number are in different banks.
__device__ __forceinline__ int piece(int row, int p) { return row * ROW_BYTES + (p ^ (row & 7)) * 16; }
// Where this lane's row of group r begins for the right operands of a block; those of the next block are at ^ 64. A row
// that is not there makes a column of sums that nobody reads.
__device__ __forceinline__ u32 right_at(u32 rows, int r, int n_rows) {
    const int lane = threadIdx.x & 31, row = min(r * 8 + (lane & 7), n_rows - 1);
    return rows + piece(row, lane >> 3);
}

// Two tiles of a block of 32 numbers as left operands: their words, and the scales of the block's 16 lines.
__device__ __forceinline__ void left_of(const u32* words, u32 scales, u32 (&left)[2][4]) {
    const u32 select = 0x4040 + (threadIdx.x >> 2 & 1) * 0x0101;
    const u32 upper = factors(scales, select), lower = factors(scales, select + 0x0202);
#pragma unroll
    for (int j = 0; j < 2; j++) {
        spread(words[j], left[j]);
#pragma unroll
        for (int k = 0; k < 4; k++) left[j][k] = multiply_bf16x2(left[j][k], k % 2 ? lower : upper);
    }
}
// Where a lane finds those scales among the 16 bytes of a block.
__device__ __forceinline__ u32 scale_of_lane() { return (threadIdx.x & 31) >> 3 << 2; }
