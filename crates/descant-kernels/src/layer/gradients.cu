// The gradients of all low-rank pairs of a layer's dense products in one launch: thin sums over the tokens.
//
// Every one is S^T X: X has the wide rows (what a product read, or the gradient of what it gave), S the rows of the
// rank beside them. A block owns 64 columns of X and up to 32 of S for all tokens, so that each sum has one order.
#include "mma.cuh"
#include "step.cuh"

constexpr int TOKENS = 64, STAGES = 3, X_BYTES = TOKENS * COLUMNS * 2, S_BYTES = TOKENS * RANKS * 2;
static_assert(THREADS == 128 && COLUMNS == 64 && RANKS == 32, "four warps of 16 columns");

// Where columns of S, `first` to before `first + rank`, go: [rank, width] (A), or transposed (B), times `factor`.
struct Part {
    float* to;
    int first, rank;
    float factor;
    int is_b;
};
// x bf16 [T, width] with rows of `x_ld`; s bf16 [T, ranks] with rows of `s_ld`. Both begin at 16 bytes.
struct Job {
    const bf16 *x, *s;
    int width, x_ld, ranks, s_ld;
    int first_block, n_parts;
    Part parts[PARTS];
};
struct Jobs {
    int count, tokens;
    Job all[JOBS];
};
static_assert(sizeof(Part) == PART_BYTES && sizeof(Job) == JOB_BYTES, "as the host writes them");
static_assert(sizeof(Jobs) == JOBS_BYTES, "behind their number and that of the tokens");

// Chunk of 16 bytes of a row in a tile without bank conflicts for ldmatrix.
__device__ __forceinline__ u32 x_place(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }
__device__ __forceinline__ u32 s_place(int row, int chunk) { return row * 64 + ((chunk ^ ((row >> 1) & 3)) << 4); }

// Grid: for each job ceil(width / 64) * ceil(ranks / 32) blocks, from `first_block` on. Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS) pair_gradients(const __grid_constant__ Jobs jobs) {
    follow_closely();
    __shared__ __align__(128) u8 tiles[STAGES * (X_BYTES + S_BYTES)];
    int n = 0;
    while (n + 1 < jobs.count && (int)blockIdx.x >= jobs.all[n + 1].first_block) n++;
    const Job& job = jobs.all[n];
    const int at = blockIdx.x - job.first_block, across = (job.width + COLUMNS - 1) / COLUMNS;
    const int column = at % across * COLUMNS, rank0 = at / across * RANKS, tokens = jobs.tokens;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const u32 x_tiles = shared_address(tiles), s_tiles = x_tiles + STAGES * X_BYTES;
    const bf16 *x = job.x + column, *s = job.s + rank0;
    const int steps = (tokens + TOKENS - 1) / TOKENS;
    auto load = [&](int step) {
        const u32 x_to = x_tiles + step % STAGES * X_BYTES, s_to = s_tiles + step % STAGES * S_BYTES;
#pragma unroll
        for (int i = 0; i < TOKENS * 8 / THREADS; i++) {
            const int row = (threadIdx.x + i * THREADS) / 8, chunk = threadIdx.x & 7, token = step * TOKENS + row;
            const bool valid = token < tokens && column + chunk * 8 < job.width;
            copy_async16(x_to + x_place(row, chunk), x + (valid ? (u64)token * job.x_ld + chunk * 8 : 0), valid);
        }
#pragma unroll
        for (int i = 0; i < TOKENS * 4 / THREADS; i++) {
            const int row = (threadIdx.x + i * THREADS) / 4, chunk = threadIdx.x & 3, token = step * TOKENS + row;
            const bool valid = token < tokens && rank0 + chunk * 8 < job.ranks;
            copy_async16(s_to + s_place(row, chunk), s + (valid ? (u64)token * job.s_ld + chunk * 8 : 0), valid);
        }
    };
    float sums[2][2][4] = {};
#pragma unroll
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) load(step);
        copy_commit();
    }
    for (int step = 0; step < steps; step++) {
        copy_wait<STAGES - 2>();
        __syncthreads();
        if (step + STAGES - 1 < steps) load(step + STAGES - 1);
        copy_commit();
        const u32 x_tile = x_tiles + step % STAGES * X_BYTES, s_tile = s_tiles + step % STAGES * S_BYTES;
#pragma unroll
        for (int k = 0; k < TOKENS; k += 16) {
            u32 b[4], a[2][4];
            // Tokens k to k + 15 of 16 columns: two results' columns of eight.
            load_matrices_transposed(b, x_tile + x_place(k + (lane & 15), warp * 2 + (lane >> 4)));
            // The stored rows are summed over here too: the matrices come in the order (tokens, ranks).
#pragma unroll
            for (int m = 0; m < 2; m++)
                load_matrices_transposed(
                    a[m], s_tile + s_place(k + (lane & 7) + ((lane >> 4) << 3), m * 2 + ((lane >> 3) & 1)));
#pragma unroll
            for (int m = 0; m < 2; m++) {
                multiply16(sums[m][0], a[m], b[0], b[1]);
                multiply16(sums[m][1], a[m], b[2], b[3]);
            }
        }
    }
    for (int p = 0; p < job.n_parts; p++) {
        const Part& part = job.parts[p];
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const int rank = rank0 + m * 16 + lane / 4 + 8 * ((i >> 1) & 1) - part.first;
                const int c = column + warp * 16 + (i >> 2) * 8 + 2 * (lane & 3) + (i & 1);
                if (rank < 0 || rank >= part.rank || c >= job.width) continue;
                part.to[part.is_b ? (u64)c * part.rank + rank : (u64)rank * job.width + c] =
                    sums[m][i >> 2][i & 3] * part.factor;
            }
    }
}
