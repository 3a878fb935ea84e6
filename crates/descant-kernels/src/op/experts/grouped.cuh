// What the forms of the grouped products share: the problem, the order of its tiles, loads of packed blocks, and the
// way out of the accumulators. THREADS and SHARED of a block and MAX_EXPERTS are the host's (geometry.rs).
#pragma once
#include "common.cuh"
#ifdef NF4
#include "nf4.cuh"
static_assert(NF4 == 1, "it is defined or not");
#else
#include "mxfp4.cuh"
#endif

#define STEP 64          // of the inner dimension: 128 bytes, one row in shared memory
#define OFFSETS_BYTES ((MAX_EXPERTS + 1) * 4)
#define STAGED_LD 144    // bytes of a staged row: 64 columns and 16 bytes against bank conflicts

static_assert(RANK_WIDTH == STEP, "a low-rank path is one more step");

// Where 16-byte piece `chunk` of a 128-byte row lies: rows of eight use all banks, whichever way they are read.
__device__ __forceinline__ u32 swizzled(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }

struct Problem {
    const bf16* a;
    const int* pairs;
    const u8* blocks;
    const u8* scales;
    const float* tables;  // of NF4
    const bf16* bias;
    const bf16* u;
    const bf16* v;
    const int* offsets;
    bf16* out;
    bf16* h;
    int a_ld, top_k, n_experts, n_out, n_in;
    float limit;
};

// The tiles of all experts in one order. An expert's tiles follow each other, in bands of rows that stay in L2 while
// the columns go by.
template <int ROWS, int COLUMNS> struct Walk {
    int expert = 0, before = 0, row, n_rows, column;

    // Goes to tile t, which is not before the last one; false when there is none.
    __device__ __forceinline__ bool go(int t, const int* offsets, int n_experts, int n_out) {
        const int across = (n_out + COLUMNS - 1) / COLUMNS, band = 2048 / ROWS;
        for (; expert < n_experts; expert++) {
            int first = offsets[expert], count = offsets[expert + 1] - first;
            int down = (count + ROWS - 1) / ROWS;
            int local = t - before;
            if (local < down * across) {
                int band_start = local / (band * across) * band;
                local -= band_start * across;
                int in_band = min(band, down - band_start);
                int r = band_start + local % in_band;
                column = local / in_band * COLUMNS;
                row = first + r * ROWS;
                n_rows = min(ROWS, count - r * ROWS);
                return true;
            }
            before += down * across;
        }
        return false;
    }
};

// gpt-oss' activation: (up + 1) · gate · sigmoid(1.702 · gate), clamped.
__device__ __forceinline__ float swiglu(float gate, float up, float limit) {
    gate = fminf(gate, limit);
    up = fminf(fmaxf(up, -limit), limit);
    return (up + 1.0f) * __fdividef(gate, 1.0f + __expf(-1.702f * gate));
}

// 16 rows and COLUMNS columns of a warp, by way of its own staging area (16 rows of STAGED_LD bytes at most), in whole
// 16-byte pieces. The accumulators are in the layout that mma.sync and wgmma share: x[4i], x[4i + 1] are columns
// 8i + 2 (lane % 4) and the next of row lane / 4, x[4i + 2], x[4i + 3] the same of 8 rows below. `bias` is in shared
// memory, bf16.
template <int COLUMNS>
__device__ __forceinline__ void store_block(float (&acc)[COLUMNS / 2], const Problem& g, u32 staged, u32 bias, int row,
                                            int n_rows, int column) {
    constexpr int PART = COLUMNS < 64 ? COLUMNS : 64, LD = PART * 2 + 16, H_LD = PART + 16;
    constexpr int PIECES = PART / 8, H_PIECES = PART / 16;   // of 16 bytes in a row
    const int lane = threadIdx.x & 31, r = lane >> 2, q = lane & 3;
#pragma unroll
    for (int c = 0; c < COLUMNS / PART; c++) {
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            float* x = &acc[(c * PIECES + i) * 4];
            u32 pair = shared_load(bias + (c * PART + i * 8 + q * 2) * 2);
            x[0] += low_float(pair), x[1] += high_float(pair), x[2] += low_float(pair), x[3] += high_float(pair);
        }
        if (g.out) {
            __syncwarp();
#pragma unroll
            for (int i = 0; i < PIECES; i++) {
                float* x = &acc[(c * PIECES + i) * 4];
                u32 to = staged + r * LD + (i * 8 + q * 2) * 2;
                shared_store(to, to_bf16x2(x[0], x[1]));
                shared_store(to + 8 * LD, to_bf16x2(x[2], x[3]));
            }
            __syncwarp();
            const int piece = lane % PIECES, n = column + c * PART + piece * 8;
#pragma unroll
            for (int i = 0; i < PIECES / 2; i++) {
                const int s = i * (32 / PIECES) + lane / PIECES;
                if (s < n_rows && n < g.n_out)
                    *(uint4*)(g.out + (u64)(row + s) * g.n_out + n) = shared_load16(staged + s * LD + piece * 16);
            }
        }
        if (g.h) {
            __syncwarp();
#pragma unroll
            for (int i = 0; i < PIECES; i++) {
                float* x = &acc[(c * PIECES + i) * 4];
                u32 to = staged + r * H_LD + (i * 4 + q) * 2;
                shared_store(to, to_bf16(swiglu(x[0], x[1], g.limit)));
                shared_store(to + 8 * H_LD, to_bf16(swiglu(x[2], x[3], g.limit)));
            }
            __syncwarp();
            const int piece = lane % H_PIECES, n = (column + c * PART) / 2 + piece * 8;
#pragma unroll
            for (int i = 0; i < H_PIECES / 2; i++) {
                const int s = i * (32 / H_PIECES) + lane / H_PIECES;
                if (s < n_rows && n < g.n_out / 2)
                    *(uint4*)(g.h + (u64)(row + s) * (g.n_out / 2) + n) = shared_load16(staged + s * H_LD + piece * 16);
            }
        }
    }
}

// Both kernels of a file whose `grouped<TRANSPOSED>` does the work; behind the names are the bounds of a launch.
#define GROUPED_KERNEL(name, transposed, ...)                                                                  \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__)                                                  \
        name(const bf16* a, const int* pairs, const u8* blocks, const u8* scales, const float* tables,         \
             const bf16* bias, const bf16* u, const bf16* v, const int* offsets, bf16* out, bf16* h, int a_ld, \
             int top_k, int n_experts, int n_out, int n_in, float limit) {                                     \
        Problem g = {a,   pairs, blocks, scales, tables,    bias,  u,    v,    offsets,                        \
                     out, h,     a_ld,   top_k,  n_experts, n_out, n_in, limit};                               \
        grouped<transposed>(g);                                                                                \
    }
#define GROUPED_KERNELS(...)                            \
    GROUPED_KERNEL(experts_forward, false, __VA_ARGS__) \
    GROUPED_KERNEL(experts_backward, true, __VA_ARGS__)
