// The thin products of adapters on experts (and, as one expert, on dense matrices): rank at most 64.
//
//   low_rank_rows:     out[place, r] = sum_k A[row(place), k] · m[e][k, r]
//   low_rank_gradient: grad[e][n, r] += alpha · sum over the places of e of Y[row(place), n] · u[place, r]
//
// Both read each row of the wide operand once and are bound by its bytes. A factor of an adapter is packed as
// [E, features, 64] bf16, zero beyond its rank, in both of its uses: as `m` here and as `v` of the grouped products.
// Only the pieces of a rank are copied, into rows of an odd number of 16-byte pieces: eight of them use all banks.
// Sums run over places in their order within one CTA: no atomics, two runs give the same bytes.
#include "grouped.cuh"
#include "mma.cuh"

#define WIDE_BYTES (TILE_ROWS * 128)
static_assert(ROWS_THREADS == 2 * TILE_ROWS && GRADIENT_THREADS == 2 * TILE_ROWS, "four warps with 16 rows each");
static_assert(GRADIENT_COLUMNS == TILE_ROWS && RANK_WIDTH == TILE_ROWS, "tiles are square");
static_assert(SUM_THREADS % 32 == 0, "whole warps");
static_assert(STAGES * (WIDE_BYTES + TILE_ROWS * 16) >= OFFSETS_BYTES, "an order of experts fits into the stages");

// Pieces of 16 bytes in a row of the rank, bytes of such a row in shared memory, and of a stage (`low_rank_stages` of
// geometry.rs): a tile of the wide operand and the rows beside it.
__device__ __forceinline__ int pieces_of(int rank) { return (rank + 7) / 8; }
__device__ __forceinline__ int pitch_of(int pieces) { return (pieces | 1) * 16; }
__device__ __forceinline__ int stage_of(int pieces) { return WIDE_BYTES + TILE_ROWS * pitch_of(pieces); }

// The rows k to k + 15 of the rank's pieces 2j and 2j + 1, as the right operand.
__device__ __forceinline__ void load_pieces(u32 (&y)[4], u32 rows, int pieces, int k, int j) {
    const int lane = threadIdx.x & 31, piece = min(j * 2 + (lane >> 4), pieces - 1);
    load_matrices_transposed(y, rows + (k + (lane & 15)) * pitch_of(pieces) + piece * 16);
}

// Adds 16 rows, a fragment at k, times those columns.
__device__ __forceinline__ void add_pieces(float (&acc)[8][4], const u32 (&x)[4], u32 rows, int pieces, int k) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (j * 2 >= pieces) break;
        u32 y[4];
        load_pieces(y, rows, pieces, k, j);
        multiply16(acc[j * 2], x, y[0], y[1]);
        if (j * 2 + 1 < pieces) multiply16(acc[j * 2 + 1], x, y[2], y[3]);
    }
}

// Shapes: a bf16 [rows, a_ld], pairs i32 [P] or null, m bf16 [E, n_in, 64], offsets i32 [E + 1], out bf16 [P, 64],
// zeros beyond the rank.
// Launch: grid = any multiple of multiprocessors.
extern "C" __global__ void __launch_bounds__(ROWS_THREADS)
    low_rank_rows(const bf16* a, const int* pairs, const bf16* m, const int* expert_offsets, bf16* out, int a_ld,
                  int top_k, int n_experts, int n_in, int rank) {
    extern __shared__ __align__(128) u8 dynamic[];
    const u32 shared = shared_address(dynamic);
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, chunk = t & 7, line = t >> 3;
    const int steps = (n_in + STEP - 1) / STEP, pieces = pieces_of(rank), stage = stage_of(pieces);
    int* offsets = (int*)(dynamic + STAGES * stage);
    for (int i = t; i <= n_experts; i += ROWS_THREADS) offsets[i] = expert_offsets[i];
    __syncthreads();

    Walk<TILE_ROWS, 64> walk;
    for (int tile = blockIdx.x; walk.go(tile, offsets, n_experts, 64); tile += gridDim.x) {
        // What is not there is zero, and its address one that can be read.
        const bf16* rows[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int place = walk.row + min(line + 16 * i, walk.n_rows - 1);
            rows[i] = a + (u64)(pairs ? pairs[place] / top_k : place) * a_ld;
        }
        const bf16* factor = m + (u64)walk.expert * n_in * RANK_WIDTH;
        auto fetch = [&](int step) {
            const u32 to = shared + step % STAGES * stage;
            if (step < steps) {
                const int k = step * STEP + chunk * 8;
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const bool valid = k < n_in && line + 16 * i < walk.n_rows;
                    copy_async16(to + swizzled(line + 16 * i, chunk), rows[i] + (valid ? k : 0), valid);
                    const int inner = step * STEP + line + 16 * i;
                    const bool valid_m = inner < n_in;
                    if (chunk < pieces)
                        copy_async16(to + WIDE_BYTES + (line + 16 * i) * pitch_of(pieces) + chunk * 16,
                                     factor + (valid_m ? inner * RANK_WIDTH + chunk * 8 : 0), valid_m);
                }
            }
            copy_commit();
        };
        float acc[8][4] = {};
        for (int s = 0; s < STAGES - 1; s++) fetch(s);
        for (int step = 0; step < steps; step++) {
            copy_wait<STAGES - 2>();
            __syncthreads();
            fetch(step + STAGES - 1);
            const u32 left = shared + step % STAGES * stage, right = left + WIDE_BYTES;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                u32 x[4];
                load_matrices(x, left + swizzled(warp * 16 + (lane & 15), k * 2 + (lane >> 4)));
                add_pieces(acc, x, right, pieces, k * 16);
            }
        }
        copy_wait<0>();
        __syncthreads();
        const int r = warp * 16 + (lane >> 2);
        bf16* to = out + (u64)(walk.row + r) * RANK_WIDTH + (lane & 3) * 2;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            if (r < walk.n_rows) *(u32*)(to + j * 8) = to_bf16x2(acc[j][0], acc[j][1]);
            if (r + 8 < walk.n_rows) *(u32*)(to + 8 * RANK_WIDTH + j * 8) = to_bf16x2(acc[j][2], acc[j][3]);
        }
    }
}

// The expert that has the n-th most rows, for all threads of a block. `scratch` is shared memory for an integer an
// expert and one more, free again on return.
__device__ __forceinline__ int nth_largest(int n, const int* offsets, int n_experts, int* scratch) {
    for (int e = threadIdx.x; e < n_experts; e += GRADIENT_THREADS) scratch[e] = offsets[e + 1] - offsets[e];
    __syncthreads();
    for (int e = threadIdx.x; e < n_experts; e += GRADIENT_THREADS) {
        const int rows = scratch[e];
        int before = 0;
        for (int other = 0; other < n_experts; other++)
            before += scratch[other] > rows || (scratch[other] == rows && other < e);
        if (before == n) scratch[n_experts] = e;
    }
    __syncthreads();
    const int expert = scratch[n_experts];
    __syncthreads();
    return expert;
}

// Shapes: y bf16 [rows, y_ld], pairs i32 [P] or null, u bf16 [P, 64], offsets i32 [E + 1], grad f32 [E, n, rank], or
// [E, rank, n] if `rank_first`; y_ld a multiple of 8. With several blocks in z (few experts, many rows), each
// takes a run of the places and writes its sums to parts f32 [blocks in z][shape of grad] instead; low_rank_sum adds
// them up. Experts with most rows come first: the last blocks that begin have little to do.
// Launch: grid = (ceil(n / GRADIENT_COLUMNS), E, parts).
extern "C" __global__ void __launch_bounds__(GRADIENT_THREADS)
    low_rank_gradient(const bf16* y, const int* pairs, const bf16* u, const int* offsets, float* grad, float* parts,
                      int y_ld, int top_k, int n, int rank, int rank_first, float alpha) {
    extern __shared__ __align__(128) u8 dynamic[];
    const u32 shared = shared_address(dynamic);
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, chunk = t & 7, line = t >> 3;
    const int expert = nth_largest(blockIdx.y, offsets, gridDim.y, (int*)dynamic), column = blockIdx.x * TILE_ROWS,
              pieces = pieces_of(rank), stage = stage_of(pieces);
    int first = offsets[expert], count = offsets[expert + 1] - first;
    if (gridDim.z > 1) {
        const int blocks = gridDim.z, tiles = (count + TILE_ROWS - 1) / TILE_ROWS,
                  run = (tiles + blocks - 1) / blocks * TILE_ROWS, skipped = run * blockIdx.z;
        first += min(skipped, count), count = max(0, min(run, count - skipped));
    } else if (count == 0)
        return;
    const int steps = (count + TILE_ROWS - 1) / TILE_ROWS;

    // A lane looks up one of the sixteen rows that its warp copies in a step, one step before.
    int pair;
    auto look_up = [&](int step) {
        const int line = warp * 4 + (lane & 3) + (lane >> 2 & 3) * 16;
        const int place = first + min(step * TILE_ROWS + line, count - 1);
        pair = pairs && step < steps ? pairs[place] : place;
    };
    auto fetch = [&](int step) {
        const u32 to = shared + step % STAGES * stage;
        if (step < steps) {
            const int looked_up = pairs ? pair / top_k : pair;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int place = step * TILE_ROWS + line + 16 * i;
                const bool here = place < count, valid = here && column + chunk * 8 < n;
                const u64 row = __shfl_sync(FULL_WARP, looked_up, i * 4 + (lane >> 3));
                copy_async16(to + swizzled(line + 16 * i, chunk), y + (valid ? row * y_ld + column + chunk * 8 : 0),
                             valid);
                if (chunk < pieces)
                    copy_async16(to + WIDE_BYTES + (line + 16 * i) * pitch_of(pieces) + chunk * 16,
                                 u + (here ? (u64)(first + place) * RANK_WIDTH + chunk * 8 : 0), here);
            }
        }
        copy_commit();
        look_up(step + 1);
    };
    float acc[8][4] = {};
    look_up(0);
    for (int s = 0; s < STAGES - 1; s++) fetch(s);
    for (int step = 0; step < steps; step++) {
        copy_wait<STAGES - 2>();
        __syncthreads();
        fetch(step + STAGES - 1);
        const u32 left = shared + step % STAGES * stage, right = left + WIDE_BYTES;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            u32 x[4];
            int p = k * 16 + (lane & 7) + (lane >> 4) * 8;
            load_matrices_transposed(x, left + swizzled(p, warp * 2 + ((lane >> 3) & 1)));
            add_pieces(acc, x, right, pieces, k * 16);
        }
    }
    const u64 at_n = rank_first ? 1 : rank, at_r = rank_first ? n : 1, size = (u64)n * rank;
    float* to = gridDim.z > 1 ? parts + ((u64)blockIdx.z * gridDim.y + expert) * size : grad + expert * size;
#pragma unroll
    for (int j = 0; j < 8; j++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = column + warp * 16 + (lane >> 2) + (i >> 1) * 8, r = j * 8 + (lane & 3) * 2 + (i & 1);
            if (row < n && r < rank) {
                float* x = to + row * at_n + r * at_r;
                *x = gridDim.z > 1 ? acc[j][i] : *x + alpha * acc[j][i];
            }
        }
    }
}

// grad[i] += alpha · sum over the parts of parts[part][i], in their order.
// Launch: grid = ceil(size / SUM_THREADS), no shared memory.
extern "C" __global__ void __launch_bounds__(SUM_THREADS)
    low_rank_sum(const float* parts, float* grad, int size, int n_parts, float alpha) {
    int i = blockIdx.x * SUM_THREADS + threadIdx.x;
    if (i >= size) return;
    float sum = 0.0f;
    for (int part = 0; part < n_parts; part++) sum += parts[(u64)part * size + i];
    grad[i] += alpha * sum;
}
