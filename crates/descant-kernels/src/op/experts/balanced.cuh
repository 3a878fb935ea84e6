// The tiles of all experts, dealt to blocks so that they finish together.
//
// Tiles of full height come first, an expert's after each other, in bands of rows that stay in L2 while the columns go
// by. Then come the rows that are left of each expert, the most rows first. Blocks take tiles in turns, there and back:
// the block that has the last tile of a turn has the first of the next. Experts get very different numbers of rows (11
// to 402 of 1,024 tokens, say), and in the order of experts some blocks had one tile more, or larger ones.
#pragma once
#include "common.cuh"

// What a walk reads, in shared memory: where the rows of each expert begin, and behind it an order of experts.
#define WALK_BYTES ((2 * MAX_EXPERTS + 1) * 4)
#define ORDER_OFFSET ((MAX_EXPERTS + 1) * 4)

// Fills it: the order has those with most rows beyond full tiles first. All threads of a block call it, and can read it
// after the block has met again.
template <int ROWS> __device__ __forceinline__ void prepare_walk(int* walk, const int* expert_offsets, int n_experts) {
    int *offsets = walk, *order = walk + MAX_EXPERTS + 1;
    for (int i = threadIdx.x; i <= n_experts; i += THREADS) offsets[i] = expert_offsets[i];
    __syncthreads();
    for (int expert = threadIdx.x; expert < n_experts; expert += THREADS) {
        const int rows = (offsets[expert + 1] - offsets[expert]) % ROWS;
        int before = 0;
        for (int other = 0; other < n_experts; other++) {
            const int more = (offsets[other + 1] - offsets[other]) % ROWS;
            before += more > rows || (more == rows && other < expert);
        }
        order[before] = expert;
    }
}

struct Tile {
    int expert, row, n_rows, column;
};

template <int ROWS, int COLUMNS> struct BalancedWalk : Tile {
    int turn = 0, walked = 0, before = 0;  // `before`: full tiles of the experts before `walked`

    // Goes to the block's next tile; false when there is none. `walk` is the address of what prepare_walk has filled.
    __device__ __forceinline__ bool next(u32 walk, int n_experts, int n_out) {
        const int across = (n_out + COLUMNS - 1) / COLUMNS, band = 2048 / ROWS, blocks = gridDim.x, block = blockIdx.x;
        int tile = turn * blocks + (turn & 1 ? blocks - 1 - block : block);
        turn++;
        for (; walked < n_experts; walked++) {
            const int first = shared_load(walk + walked * 4),
                      down = (int)(shared_load(walk + walked * 4 + 4) - first) / ROWS;
            int local = tile - before;
            if (local < down * across) {
                const int band_start = local / (band * across) * band;
                local -= band_start * across;
                const int in_band = min(band, down - band_start);
                expert = walked;
                column = local / in_band * COLUMNS;
                row = first + (band_start + local % in_band) * ROWS;
                n_rows = ROWS;
                return true;
            }
            before += down * across;
        }
        tile -= before;
        if (tile >= n_experts * across) return false;
        expert = shared_load(walk + ORDER_OFFSET + tile / across * 4);
        column = tile % across * COLUMNS;
        const int end = shared_load(walk + expert * 4 + 4);
        n_rows = (end - (int)shared_load(walk + expert * 4)) % ROWS;
        row = end - n_rows;
        return n_rows > 0;
    }
};
