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

// LEFT_LAST: columns that do not fill a tile come behind all others, where such a tile is less work.
template <int ROWS, int COLUMNS, bool LEFT_LAST = false> struct BalancedWalk : Tile {
    int turn = 0, walked = 0, before = 0;  // `before`: tiles of the experts before `walked`, and of earlier parts
    int part = 0;  // full tiles or the rows that are left; then the same of the columns that are left

    // Goes to the block's next tile; false when there is none. `walk` is the address of what prepare_walk has filled.
    __device__ __forceinline__ bool next(u32 walk, int n_experts, int n_out) {
        const int whole = LEFT_LAST ? n_out / COLUMNS : (n_out + COLUMNS - 1) / COLUMNS, blocks = gridDim.x;
        const int tile = turn * blocks + (turn & 1 ? blocks - 1 - blockIdx.x : blockIdx.x);
        turn++;
        for (; part < (LEFT_LAST ? 4 : 2); part++, walked = 0) {
            const int across = part < 2 ? whole : n_out % COLUMNS != 0, left = part < 2 ? 0 : whole * COLUMNS;
            if (across == 0) continue;
            if (part % 2 == 0) {
                for (; walked < n_experts; walked++) {
                    const int first = shared_load(walk + walked * 4),
                              down = (int)(shared_load(walk + walked * 4 + 4) - first) / ROWS;
                    int local = tile - before;
                    if (local < down * across) {
                        const int band = 2048 / ROWS, band_start = local / (band * across) * band;
                        local -= band_start * across;
                        const int in_band = min(band, down - band_start);
                        expert = walked;
                        column = left + local / in_band * COLUMNS;
                        row = first + (band_start + local % in_band) * ROWS;
                        n_rows = ROWS;
                        return true;
                    }
                    before += down * across;
                }
            } else {
                // Those without such rows are the last ones.
                int place = (tile - before) / across;
                if (place < n_experts && rows_left(walk, place) > 0) {
                    n_rows = rows_left(walk, place);
                    row = (int)shared_load(walk + expert * 4 + 4) - n_rows;
                    column = left + (tile - before) % across * COLUMNS;
                    return true;
                }
                place = min(place, n_experts);
                while (place > 0 && rows_left(walk, place - 1) == 0) place--;
                before += place * across;
            }
        }
        return false;
    }

private:
    // Goes to an expert of the order: its rows beyond full tiles.
    __device__ __forceinline__ int rows_left(u32 walk, int place) {
        expert = shared_load(walk + ORDER_OFFSET + place * 4);
        return (int)(shared_load(walk + expert * 4 + 4) - shared_load(walk + expert * 4)) % ROWS;
    }
};
