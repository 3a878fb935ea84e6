// Rows times the few rows of a factor: u = x w^T, which is what a low-rank path has in its middle.
//
// A block owns TILE_TOKENS M tokens and TILE_COLUMNS columns of u; its warps take the columns of x in turns of 32, and
// their sums are added in order. Both operands are read in the order of memory, which a dot product does not see.
#include "mma.cuh"
#include "step.cuh"

// Columns of x in which some rows of w are not zero: rows `first` to before `end`, columns `from` to before `to`.
struct Part {
    int first, end, from, to;
};
struct Parts {
    Part all[PARTS];
};
static_assert(sizeof(Part) == PART_BYTES && sizeof(Parts) == PARTS_BYTES, "as the host writes them");

constexpr int WARPS = THREADS / 32;
static_assert(THREADS % 32 == 0, "whole warps");
static_assert(TILE_TOKENS == 16 && TILE_COLUMNS == 32, "a product of tensor cores high, and four wide");

template <int M>
__device__ __forceinline__ void rows_of_block(const bf16* __restrict__ x, const bf16* __restrict__ w,
                                              bf16* __restrict__ u, int T, int K, int C, const Parts& parts) {
    constexpr int AHEAD = M == 1 ? 3 : 2;  // turns of a warp that are loaded together, without spills
    __shared__ float partial[WARPS][TILE_TOKENS][TILE_COLUMNS];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    const int token0 = blockIdx.x * TILE_TOKENS * M, c0 = blockIdx.y * TILE_COLUMNS;
    int from[4], to[4];
#pragma unroll
    for (int n = 0; n < 4; n++) {
        from[n] = K, to[n] = 0;
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            const Part& part = parts.all[p];
            if (part.first < c0 + n * 8 + 8 && part.end > c0 + n * 8)
                from[n] = min(from[n], part.from), to[n] = max(to[n], part.to);
        }
    }
    float sums[M][4][4] = {};
    // What is not there is zero: loads without branches are under way together.
    for (int first = warp; first < (K + 31) / 32; first += WARPS * AHEAD) {
        uint4 a[AHEAD][M][2], b[AHEAD][4];
#pragma unroll
        for (int turn = 0; turn < AHEAD; turn++) {
            const int start = (first + turn * WARPS) * 32, column = start + t * 8;
#pragma unroll
            for (int i = 0; i < 2 * M; i++) {
                const int token = token0 + i * 8 + g;
                const bool here = token < T && column < K;
                a[turn][i >> 1][i & 1] = here ? load16(x + (u64)token * K + column) : make_uint4(0, 0, 0, 0);
            }
#pragma unroll
            for (int n = 0; n < 4; n++) {
                const int c = c0 + n * 8 + g;
                const bool here = c < C && column < K && start + 32 > from[n] && start < to[n];
                b[turn][n] = here ? load16(w + (u64)c * K + column) : make_uint4(0, 0, 0, 0);
            }
        }
#pragma unroll
        for (int turn = 0; turn < AHEAD; turn++)
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int m = 0; m < M; m++) multiply32_free(sums[m][n], a[turn][m][0], a[turn][m][1], b[turn][n]);
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
        if (m > 0) __syncthreads();
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) partial[warp][(i >> 1) * 8 + g][n * 8 + t * 2 + (i & 1)] = sums[m][n][i];
        __syncthreads();
        for (int i = threadIdx.x; i < TILE_TOKENS * TILE_COLUMNS; i += THREADS) {
            const int token = token0 + m * TILE_TOKENS + i / TILE_COLUMNS, c = c0 + i % TILE_COLUMNS;
            if (token >= T || c >= C) continue;
            float sum = 0.0f;
#pragma unroll
            for (int p = 0; p < WARPS; p++) sum += partial[p][i / TILE_COLUMNS][i % TILE_COLUMNS];
            u[(u64)token * C + c] = to_bf16(sum);
        }
    }
}

// x bf16 [T, K]; w bf16 [C, K]; u bf16 [T, C]; K a multiple of 8. Rows of w that are in none of the parts are zero.
// Grid (ceil(T / TILE_TOKENS), ceil(C / TILE_COLUMNS)), or half as high for many tokens: the sums are the same. Block:
// THREADS.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    thin_rows(const bf16* x, const bf16* w, bf16* u, int T, int K, int C, const __grid_constant__ Parts parts) {
    follow_closely();
    rows_of_block<1>(x, w, u, T, K, C, parts);
}
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    thin_rows_many(const bf16* x, const bf16* w, bf16* u, int T, int K, int C, const __grid_constant__ Parts parts) {
    follow_closely();
    rows_of_block<2>(x, w, u, T, K, C, parts);
}
