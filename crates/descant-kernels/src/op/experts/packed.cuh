// What packed.cu and the packings that it decodes have in common: a tile, what lies where in shared memory, and copies.
#pragma once
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
#define WALK (LINES + 2 * LINES_BYTES)  // four tiles
#define WALK_BYTES 24
#define ARRIVED (WALK + 4 * WALK_BYTES)
static_assert(THREADS == WARPS * 32, "eight warps");

constexpr int FORM[] = {FORMS}, N_FORMS = sizeof FORM / sizeof *FORM;
static_assert(FORM[N_FORMS - 1] == BLOCKS, "the last one is a whole tile");

// The tiles of all experts in one order, the largest first, since blocks take every gridDim-th: those of whole widths
// by their form, then those of the columns that are left. An expert's tiles of a form follow each other, in bands of
// rows that stay in L2 while columns go by.
struct Tiles {
    int group, before;  // 32 pairs of a form and an expert, and tiles before them
    int expert, row, n_rows, column;

    // Goes to tile t, which is not before the last one; no rows where there is none. All lanes of a warp do.
    __device__ __forceinline__ void go(int t, const int* offsets, int n_experts, int n_out) {
        const int whole = n_out / COLUMNS, left = n_out % COLUMNS != 0, lane = threadIdx.x & 31;
        for (; group * 32 < (N_FORMS + 1) * n_experts; group++) {
            const int kind = (group * 32 + lane) / n_experts, e = (group * 32 + lane) % n_experts;
            const int first = offsets[e], count = offsets[e + 1] - first, blocks = (count % ROWS + 15) / 16;
            // Of the last rows, which are fewer.
            int form = 0;
#pragma unroll
            for (int i = 0; i < N_FORMS - 1; i++) form += FORM[N_FORMS - 2 - i] >= blocks;
            const int rest = blocks > 0 && kind == form, all = count / ROWS + (blocks > 0);
            const int from = kind == 0 || kind == N_FORMS ? 0 : count / ROWS;
            const int down = kind == N_FORMS ? all : kind == 0 ? count / ROWS + rest : kind < N_FORMS ? rest : 0;
            const int here = down * (kind == N_FORMS ? left : whole);
            int until = here;
#pragma unroll
            for (int d = 1; d < 32; d *= 2) {
                const int other = __shfl_up_sync(FULL_WARP, until, d);
                if (lane >= d) until += other;
            }
            const int total = __shfl_sync(FULL_WARP, until, 31);
            if (t - before >= total) {
                before += total;
                continue;
            }
            int local = t - before - (until - here);
            const int who = __reduce_min_sync(FULL_WARP, local < here ? lane : 31);
            const int band = max(2048 / ROWS, 1), band_start = local / (band * max(whole, 1)) * band;
            if (kind == N_FORMS) {
                row = local, column = whole * COLUMNS;
            } else {
                local -= band_start * whole;
                const int in_band = max(min(band, down - band_start), 1);
                row = from + band_start + local % in_band, column = local / in_band * COLUMNS;
            }
            n_rows = min(ROWS, count - row * ROWS), row = first + row * ROWS, expert = e;
            n_rows = __shfl_sync(FULL_WARP, n_rows, who), row = __shfl_sync(FULL_WARP, row, who);
            column = __shfl_sync(FULL_WARP, column, who), expert = __shfl_sync(FULL_WARP, expert, who);
            return;
        }
        n_rows = 0;
    }
};
static_assert(sizeof(Tiles) <= WALK_BYTES, "room for it");

// What a warp computes of a tile: 32 columns of all rows, or of a part of them where columns are few.
struct Part {
    int group;  // which 32 columns
    int block, n_blocks;  // of 16 rows: the first, and how many
    __device__ __forceinline__ Part(const Tiles& tile, int n_out) {
        const int warp = threadIdx.x >> 5, blocks = (tile.n_rows + 15) / 16, columns = n_out - tile.column;
        const int groups = columns <= 32 ? 1 : columns <= 64 ? 2 : columns <= 128 ? 4 : 8, parts = WARPS / groups;
        group = warp & (groups - 1);
        n_blocks = (blocks + parts - 1) / parts;
        block = warp / groups * n_blocks;
    }
    // Whether there is anything for it to do.
    __device__ __forceinline__ bool works(const Tiles& tile, int n_out) const {
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
