// Products of rows, sorted by expert, with frozen packed experts, for every card from sm_80 on, with mma.sync: MXFP4,
// or NF4 where that is defined. The same arguments and, within rounding, the same results as packed_sm90.cu.
//
// A CTA of eight warps computes tiles of 128 rows and 256 columns, each warp all rows of 32 columns, so that a weight
// is decoded once a tile, into the very registers that are multiplied. A and the packed weights come by asynchronous
// copies into a ring of three steps of 64. Weights of the next 16 of the inner dimension are decoded between the
// products of this one. The warps meet once a step at an mbarrier, at which each arrives 32 products before it waits.
//
// Sums have one order: two runs give the same bytes. Launch: grid = multiprocessors.
#ifdef NF4
#include "portable_nf4.cuh"
#else
#include "portable_mxfp4.cuh"
#endif

static_assert(SHARED == ARRIVED + 8, "what lies there");

// Sums of a tile of at most M blocks of 16 rows.
template <bool TRANSPOSED, int M>
__device__ __forceinline__ void multiply(const Problem& g, const Tiles& tile, u32 shared, u32& parity,
                                         float (&acc)[M][4][4]) {
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, r = lane >> 2, q = lane & 3;
    const int steps = steps_of(g);
    const Weights<TRANSPOSED> weights(g, tile, shared);

    // Copies of A: 16 bytes, `chunk`, of some rows. Behind the last row it comes again, as do lines and columns behind
    // the last: those sums are not stored. Behind the inner dimension A is zero, and weights are any finite number.
    constexpr int A_COPIES = (M * 16 * 8 + THREADS - 1) / THREADS;
    const int chunk = t & 7, a_row = t >> 3;
    u32 rows[A_COPIES];  // offsets in 16 bytes
#pragma unroll
    for (int i = 0; i < A_COPIES; i++) {
        const int place = tile.row + min(a_row + i * (THREADS / 8), tile.n_rows - 1);
        rows[i] = (u32)(g.pairs ? g.pairs[place] / g.top_k : place) * (u32)(g.a_ld / 8) + chunk;
    }
    const u32 a_to = shared + swizzled(a_row, chunk);
    auto fetch_rows = [&](int step, u32 stage, int i, bool wanted) {
        const bool inside = step * STEP + chunk * 8 < g.n_in;
        copy_rows(a_to + stage + i * (THREADS / 8 * 128), g.a + (inside ? step * STEP : 0) + (u64)rows[i] * 8, inside,
                  wanted);
    };
    const u32 a_mine = shared + swizzled(lane & 15, lane >> 4);
    auto load_rows = [&](u32(&a)[4], u32 stage, int c, int m) {
        load_matrices(a, ((a_mine + stage) ^ (c << 5)) + m * 2048);
    };

#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) acc[m][j][i] = 0.0f;
#pragma unroll
    for (int s = 0; s < 2; s++) {
#pragma unroll
        for (int i = 0; i < A_COPIES; i++) fetch_rows(s, s * STAGE, i, s < steps);
#pragma unroll
        for (int i = 0; i < W_COPIES; i++) weights.fetch(s, s * STAGE, i, s < steps);
        if (s == 1) weights.begin();
        copy_commit();
    }
    copy_wait<1>();
    __syncthreads();

    // The steps. A warp whose columns are all behind the last one only copies.
    auto walk = [&](auto has_columns) {
        constexpr bool WORKS = decltype(has_columns)::value;
        constexpr int DEEP = 2;  // rows are loaded so many blocks ahead, less one
        u32 x[2][4][2], a[DEEP][4];
        Unit unit = {};
        if (WORKS) {
            weights.load(unit, 0, 0, 0);
#pragma unroll
            for (int j = 0; j < 4; j++) weights.decode(unit, 0, 0, j, x[0][j]);
#pragma unroll
            for (int m = 0; m < DEEP - 1; m++) load_rows(a[m], 0, m / M, m % M);
        }
        u32 now = 0, next = STAGE, last = 2 * STAGE;
#pragma unroll 1
        for (int step = 0; step < steps; step++) {
#pragma unroll
            for (int c = 0; c < 4; c++) {
                if (c == 2) {
                    // This thread's part of the next step has arrived, and its warp is done with the last one.
                    copy_wait<0>();
                    barrier_arrive_warp(shared + ARRIVED);
                }
                if (c == 3) {
                    barrier_poll(shared + ARRIVED, parity);
                    parity ^= 1;
                }
                if (WORKS && c == 1) weights.load(unit, step, now, 1);
                if (WORKS && c == 3) weights.load(unit, step + 1, next, 0);
#pragma unroll
                for (int m = 0; m < M; m++) {
                    if (WORKS) {
                        const int ahead = c * M + m + DEEP - 1;
                        load_rows(a[ahead % DEEP], ahead / M < 4 ? now : next, ahead / M % 4, ahead % M);
#pragma unroll
                        for (int j = m * 4 / M; j < (m + 1) * 4 / M; j++)
                            weights.decode(unit, c < 3 ? now : next, (c + 1) % 4, j, x[(c + 1) & 1][j]);
                    }
                    if (c == 3) {
                        const bool wanted = step + 2 < steps;
#pragma unroll
                        for (int i = m * A_COPIES / M; i < (m + 1) * A_COPIES / M; i++)
                            fetch_rows(step + 2, last, i, wanted);
#pragma unroll
                        for (int i = m * W_COPIES / M; i < (m + 1) * W_COPIES / M; i++)
                            weights.fetch(step + 2, last, i, wanted);
                        if (m == M / 2) weights.go_on(step);
                    }
                    if (WORKS)
#pragma unroll
                        for (int j = 0; j < 4; j++)
                            multiply16(acc[m][j], a[(c * M + m) % DEEP], x[c & 1][j][0], x[c & 1][j][1]);
                }
            }
            copy_commit();
            const u32 spare = now;
            now = next, next = last, last = spare;
        }
    };
    const bool works = tile.column + warp * 32 < g.n_out;
    if (works)
        walk(Bool<true>{});
    else
        walk(Bool<false>{});

    // One more step: both factors of the low-rank path, straight from device memory, eight neighbors of k in a thread.
    if (g.u && works) {
#pragma unroll 1
        for (int h = 0; h < 2; h++) {
            uint4 right[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const u64 column = (u64)tile.expert * g.n_out + tile.column + warp * 32 + weights.column(j, r);
                right[j] = load16_here(g.v + column * RANK_WIDTH + h * 32 + q * 8);
            }
#pragma unroll
            for (int m = 0; m < M; m++) {
                const bf16* from = g.u + (u64)tile.row * RANK_WIDTH + h * 32 + q * 8;
                const uint4 y = load16_here(from + min(m * 16 + r, tile.n_rows - 1) * RANK_WIDTH),
                            z = load16_here(from + min(m * 16 + r + 8, tile.n_rows - 1) * RANK_WIDTH);
                const u32 left[2][4] = {{y.x, z.x, y.y, z.y}, {y.z, z.z, y.w, z.w}};
#pragma unroll
                for (int j = 0; j < 4; j++) multiply16(acc[m][j], left[0], right[j].x, right[j].y);
#pragma unroll
                for (int j = 0; j < 4; j++) multiply16(acc[m][j], left[1], right[j].z, right[j].w);
            }
        }
    }
    // Nobody reads the ring any more.
    __syncthreads();
}

// Each thread stores eight neighbors of its rows.
template <bool TRANSPOSED, int M>
__device__ __forceinline__ void store(const Problem& g, const Tiles& tile, const float (&acc)[M][4][4]) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, r = lane >> 2, q = lane & 3;
    const int column = tile.column + warp * 32 + q * 8;
    if (tile.column + warp * 32 >= g.n_out) return;
    float bias[8] = {};
    if (g.bias) unpack8(load16(g.bias + (u64)tile.expert * g.n_out + column), bias);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float x[8];
#pragma unroll
            for (int j = 0; j < 4; j++) x[j * 2] = acc[m][j][e * 2], x[j * 2 + 1] = acc[m][j][e * 2 + 1];
            Weights<TRANSPOSED>::neighbours(x);
            const int row = m * 16 + r + e * 8;
            if (row >= tile.n_rows) continue;
            const u64 place = tile.row + row;
#pragma unroll
            for (int i = 0; i < 8; i++) x[i] += bias[i];
            if (g.out) store16(g.out + place * g.n_out + column, pack8(x));
            if (g.h) {
                u32 h[2];
#pragma unroll
                for (int i = 0; i < 2; i++)
                    h[i] =
                        to_bf16x2(swiglu(x[i * 4], x[i * 4 + 1], g.limit), swiglu(x[i * 4 + 2], x[i * 4 + 3], g.limit));
                *(uint2*)(g.h + place * (g.n_out / 2) + column / 2) = make_uint2(h[0], h[1]);
            }
        }
}

template <bool TRANSPOSED, int M>
__device__ __forceinline__ void make(const Problem& g, const Tiles& tile, u32 shared, u32& parity) {
    float acc[M][4][4];
    multiply<TRANSPOSED, M>(g, tile, shared, parity, acc);
    store<TRANSPOSED, M>(g, tile, acc);
}

template <bool TRANSPOSED> __device__ __forceinline__ void grouped(const Problem& g) {
    extern __shared__ __align__(128) u8 dynamic[];
    const u32 shared = shared_address(dynamic);
    // The walk is in shared memory, because the sums leave no registers for it.
    Tiles& tile = *(Tiles*)(dynamic + WALK);
    fill_tables(g.tables, shared + TABLES);
    if (threadIdx.x == 0) {
        tile.expert = tile.before = 0;
        barrier_init(shared + ARRIVED, WARPS);
    }
    u32 parity = 0;
#pragma unroll 1
    for (int index = blockIdx.x;; index += gridDim.x) {
        __syncthreads();
        if (threadIdx.x == 0 && !tile.go(index, g.offsets, g.n_experts, g.n_out)) tile.n_rows = 0;
        __syncthreads();
        if (tile.n_rows == 0) break;
        const int blocks = (tile.n_rows + 15) / 16;
        if (blocks <= 2)
            make<TRANSPOSED, 2>(g, tile, shared, parity);
        else if (blocks <= 4)
            make<TRANSPOSED, 4>(g, tile, shared, parity);
        else
            make<TRANSPOSED, BLOCKS>(g, tile, shared, parity);
    }
}

#define KERNEL(name, transposed)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                   \
        name(const bf16* a, const int* pairs, const u8* blocks, const u8* scales, const float* tables,         \
             const bf16* bias, const bf16* u, const bf16* v, const int* offsets, bf16* out, bf16* h, int a_ld, \
             int top_k, int n_experts, int n_out, int n_in, float limit) {                                     \
        Problem g = {a,   pairs, blocks, scales, tables,    bias,  u,    v,    offsets,                        \
                     out, h,     a_ld,   top_k,  n_experts, n_out, n_in, limit};                               \
        grouped<transposed>(g);                                                                                \
    }

KERNEL(experts_forward, false)
KERNEL(experts_backward, true)
