// The thin products of adapters on experts (and, as one expert, on dense matrices): rank at most 64.
//
//   low_rank_rows:     out[place, r] = sum_k A[row(place), k] · m[e][k, r]
//   low_rank_gradient: grad[e][n, r] += alpha · sum over the places of e of Y[row(place), n] · u[place, r]
//
// Both read each row of the wide operand once and are bound by its bytes. A factor of an adapter is packed as
// [E, features, 64] bf16, zero beyond its rank, in both of its uses: as `m` here and as `v` of the grouped products.
// Sums run over places in their order within one CTA: no atomics, two runs give the same bytes.
#include "grouped.cuh"
#include "mma.cuh"

#define STAGES 4
#define TILE 64
#define TILE_BYTES (TILE * 128)
#define ROW_OFFSETS (STAGES * 2 * TILE_BYTES)
static_assert(ROWS_THREADS == 2 * TILE && GRADIENT_THREADS == 2 * TILE, "four warps with 16 rows each");
static_assert(GRADIENT_COLUMNS == TILE && RANK_WIDTH == TILE, "tiles are square");
static_assert(ROWS_SHARED == ROW_OFFSETS + OFFSETS_BYTES && GRADIENT_SHARED == ROW_OFFSETS, "what lies there");
static_assert(SUM_THREADS % 32 == 0, "whole warps");

// Shapes: a bf16 [rows, a_ld], pairs i32 [P] or null, m bf16 [E, n_in, 64], offsets i32 [E + 1], out bf16 [P, 64],
// zeros beyond the rank.
// Launch: grid = any multiple of multiprocessors.
extern "C" __global__ void __launch_bounds__(ROWS_THREADS)
    low_rank_rows(const bf16* a, const int* pairs, const bf16* m, const int* expert_offsets, bf16* out, int a_ld,
                  int top_k, int n_experts, int n_in, int rank) {
    extern __shared__ __align__(128) u8 dynamic[];
    const u32 shared = shared_address(dynamic);
    int* offsets = (int*)(dynamic + ROW_OFFSETS);
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, chunk = t & 7, line = t >> 3;
    for (int i = t; i <= n_experts; i += ROWS_THREADS) offsets[i] = expert_offsets[i];
    __syncthreads();
    const int steps = (n_in + STEP - 1) / STEP, blocks = (rank + 7) / 8;

    Walk<TILE, 64> walk;
    for (int tile = blockIdx.x; walk.go(tile, offsets, n_experts, 64); tile += gridDim.x) {
        u32 rows[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int r = line + 16 * i;
            rows[i] = ~0u;
            if (r < walk.n_rows) rows[i] = pairs ? pairs[walk.row + r] / top_k : walk.row + r;
        }
        auto fetch = [&](int step) {
            const u32 to = shared + (step % STAGES) * 2 * TILE_BYTES;
            if (step < steps) {
                const int k = step * STEP + chunk * 8;
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    bool valid = k < n_in && rows[i] != ~0u;
                    copy_async16(to + swizzled(line + 16 * i, chunk), a + (valid ? (u64)rows[i] * a_ld + k : 0), valid);
                    int inner = step * STEP + line + 16 * i;
                    bool valid_m = inner < n_in;
                    const bf16* from = m + (valid_m ? ((u64)walk.expert * n_in + inner) * 64 + chunk * 8 : 0);
                    if (chunk < blocks) copy_async16(to + TILE_BYTES + swizzled(line + 16 * i, chunk), from, valid_m);
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
            const u32 left = shared + (step % STAGES) * 2 * TILE_BYTES, right = left + TILE_BYTES;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                u32 x[4];
                load_matrices(x, left + swizzled(warp * 16 + (lane & 15), k * 2 + (lane >> 4)));
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    if (j * 2 >= blocks) break;
                    u32 y[4];
                    load_matrices_transposed(y, right + swizzled(k * 16 + (lane & 15), j * 2 + (lane >> 4)));
                    multiply16(acc[j * 2], x, y[0], y[1]);
                    if (j * 2 + 1 < blocks) multiply16(acc[j * 2 + 1], x, y[2], y[3]);
                }
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

// Shapes: y bf16 [rows, y_ld], pairs i32 [P] or null, u bf16 [P, 64], offsets i32 [E + 1], grad f32 [E, n, rank], or
// [E, rank, n] if `rank_first`; y_ld a multiple of 8. With several blocks in z (few experts, many rows), each
// takes a run of the places and writes its sums to parts f32 [blocks in z][shape of grad] instead; low_rank_sum adds
// them up.
// Launch: grid = (ceil(n / GRADIENT_COLUMNS), E, parts).
extern "C" __global__ void __launch_bounds__(GRADIENT_THREADS)
    low_rank_gradient(const bf16* y, const int* pairs, const bf16* u, const int* offsets, float* grad, float* parts,
                      int y_ld, int top_k, int n, int rank, int rank_first, float alpha) {
    extern __shared__ __align__(128) u8 dynamic[];
    const u32 shared = shared_address(dynamic);
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, chunk = t & 7, line = t >> 3;
    const int expert = blockIdx.y, column = blockIdx.x * TILE, blocks = (rank + 7) / 8;
    int first = offsets[expert], count = offsets[expert + 1] - first;
    if (gridDim.z > 1) {
        int run = ((count + (int)gridDim.z - 1) / (int)gridDim.z + TILE - 1) / TILE * TILE, skipped = run * blockIdx.z;
        first += min(skipped, count), count = max(0, min(run, count - skipped));
    } else if (count == 0)
        return;
    const int steps = (count + TILE - 1) / TILE;

    // Rows of y are looked up one step before they are copied.
    int rows[4];
    auto look_up = [&](int step) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int p = first + min(step * TILE + line + 16 * i, count - 1);
            rows[i] = pairs && step < steps ? pairs[p] : p;
        }
    };
    auto fetch = [&](int step) {
        const u32 to = shared + (step % STAGES) * 2 * TILE_BYTES;
        if (step < steps) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int p = step * TILE + line + 16 * i;
                bool here = p < count, valid = here && column + chunk * 8 < n;
                u64 row = valid ? (pairs ? rows[i] / top_k : rows[i]) : 0;
                copy_async16(to + swizzled(line + 16 * i, chunk), y + (valid ? row * y_ld + column + chunk * 8 : 0),
                             valid);
                const bf16* from = u + (here ? (u64)(first + p) * RANK_WIDTH + chunk * 8 : 0);
                if (chunk < blocks) copy_async16(to + TILE_BYTES + swizzled(line + 16 * i, chunk), from, here);
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
        const u32 left = shared + (step % STAGES) * 2 * TILE_BYTES, right = left + TILE_BYTES;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            u32 x[4];
            int p = k * 16 + (lane & 7) + (lane >> 4) * 8;
            load_matrices_transposed(x, left + swizzled(p, warp * 2 + ((lane >> 3) & 1)));
#pragma unroll
            for (int j = 0; j < 4; j++) {
                if (j * 2 >= blocks) break;
                u32 z[4];
                load_matrices_transposed(z, right + swizzled(k * 16 + (lane & 15), j * 2 + (lane >> 4)));
                multiply16(acc[j * 2], x, z[0], z[1]);
                if (j * 2 + 1 < blocks) multiply16(acc[j * 2 + 1], x, z[2], z[3]);
            }
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
