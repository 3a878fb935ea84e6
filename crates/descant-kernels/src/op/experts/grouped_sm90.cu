// Products of rows, sorted by expert, with frozen experts in bf16, for Hopper (sm_90a); packed_sm90.cu is for MXFP4.
//
//   forward:  out[place, n] = sum_k A[row(place), k] · W[e][n, k]
//   backward: out[place, n] = sum_k A[row(place), k] · W[e][k, n]
//
// for the places offsets[e]..offsets[e + 1] of expert e; row(place) is the place, or pairs[place] / top_k. Then, each
// where its pointer is not null: + bias[e, n]; + sum_r u[place, r] · v[e, n, r] over 64 columns (the low-rank path, one
// more step of the loop); store of the result; store of gpt-oss' clamped SwiGLU of it (columns 2j gate, 2j + 1 up).
//
// How: one CTA a multiprocessor walks tiles of 256 rows and 128 columns in an order that depends on `offsets` alone, so
// nothing is read back to the host. The warps have roles:
//
//   8 produce   rows of A and weights by asynchronous copies, which can gather where tensor copies cannot
//   8 multiply  two warpgroups with 128 rows each, and the way out
//
// The fence between the copies and the tensor cores' reads is the multipliers': it waits for all memory accesses of its
// thread, and in a producer would wait for what is on its way for later stages.
// Sums have one order: two runs give the same bytes.
//
// Launch: grid = multiprocessors.
// Shapes: a bf16 [rows, a_ld]; pairs i32 [P] or null; blocks bf16 [E, rows of W, columns of W]; scales and tables
// unused; bias bf16 [E, n_out] or null; u bf16 [P, 64] and v bf16 [E, n_out, 64] or both null; offsets i32 [E + 1]; out
// bf16 [P, n_out] or null; h bf16 [P, n_out / 2] or null. n_in and n_out are multiples of 32, a_ld of 8, E at most 256.
#include "grouped.cuh"
#include "sm90.cuh"

#define STAGES 4
#define ROWS 256
#define COLUMNS 128
#define PRODUCERS 256  // threads
#define MULTIPLIERS 256
#define SUBTILE 8192  // bytes of 64 rows, or of 64 columns, in a stage

// Where things lie in shared memory, in bytes.
#define A_BYTES (ROWS * 128)
#define STAGE (A_BYTES + COLUMNS * 128)
#define STAGED (STAGES * STAGE)
#define BIAS (STAGED + MULTIPLIERS / 32 * 16 * STAGED_LD)
#define FULL (BIAS + 2 * COLUMNS * 2)
#define EMPTY (FULL + STAGES * 8)
#define OFFSETS (EMPTY + STAGES * 8)
static_assert(THREADS == PRODUCERS + MULTIPLIERS, "eight warps each");
static_assert(SHARED == OFFSETS + OFFSETS_BYTES + 1024, "what lies there, 1024-aligned");

using Tiles = Walk<ROWS, COLUMNS>;

__device__ __forceinline__ int steps_of(const Problem& g) { return (g.n_in + STEP - 1) / STEP; }

template <bool TRANSPOSED> __device__ __forceinline__ void produce(const Problem& g, u32 shared, const int* offsets) {
    constexpr int COPIES = ROWS / 32;
    const int t = threadIdx.x, lane = t & 31, steps = steps_of(g);
    // A: this thread copies 16 bytes, `chunk`, of rows `row` + 32 i.
    const int chunk = t & 7, row = t >> 3;
    const u32 a_to = row * 128 + ((chunk ^ (row & 7)) << 4);
    // Weights: it copies 32 elements, `half` of a 64-element row: row `line` of a piece of 64 rows, or, transposed, row
    // `line` and a piece of 64 columns.
    const int half = t & 1, line = (t >> 1) & 63, piece = t >> 7;
    const u32 b_to = A_BYTES + piece * SUBTILE + line * 128, swizzle = (half * 4) ^ (line & 7);
    const int wide = TRANSPOSED ? g.n_out / 32 : g.n_in / 32, lines = TRANSPOSED ? g.n_in : g.n_out;

    Ring<STAGES> ring(1);
    // A stage is full when every thread's copies have landed and every warp has said that its stores are done.
    auto publish = [&]() {
        barrier_arrive_copies(shared + FULL + ring.stage * 8);
        barrier_arrive_warp(shared + FULL + ring.stage * 8);
        ring.next();
    };

    Tiles tiles;
    for (int tile = blockIdx.x; tiles.go(tile, offsets, g.n_experts, g.n_out); tile += gridDim.x) {
        const int first_line = line + (TRANSPOSED ? 0 : tiles.column + piece * 64);
        const int first_block = half + (TRANSPOSED ? tiles.column / 32 + piece * 2 : 0);
        const u64 at = ((u64)tiles.expert * lines + first_line) * wide + first_block;
        const u64 advance = TRANSPOSED ? (u64)STEP * wide : 2;
        auto has = [&](int step) {
            return TRANSPOSED ? step * STEP + first_line < lines && first_block < wide
                              : first_line < lines && step * 2 + first_block < wide;
        };
        // Beyond the last row it comes again: those sums are never stored. Blocks of 64 rows that nobody multiplies are
        // not copied.
        const int copied = (tiles.n_rows + 63) / 64 * 64;
        u32 rows[COPIES];  // offsets in 16 bytes
#pragma unroll
        for (int i = 0; i < COPIES; i++) {
            const int place = tiles.row + min(row + 32 * i, tiles.n_rows - 1);
            rows[i] = (u32)(g.pairs ? g.pairs[place] / g.top_k : place) * (u32)(g.a_ld / 8) + chunk;
        }

        for (int step = 0; step < steps; step++) {
            barrier_wait(shared + EMPTY + ring.stage * 8, ring.parity);
            const u32 base = shared + ring.stage * STAGE;
            const bool inside = step * STEP + chunk * 8 < g.n_in;
            const bf16* a = g.a + step * STEP;
#pragma unroll
            for (int i = 0; i < COPIES; i++) {
                if (32 * i >= copied) break;
                copy_async16(base + a_to + i * 4096, a + (u64)rows[i] * 8, inside);
            }
            const bf16* from = (const bf16*)g.blocks + (has(step) ? (at + step * advance) * 32 : 0);
#pragma unroll
            for (int j = 0; j < 4; j++) copy_async16(base + b_to + ((swizzle ^ j) << 4), from + j * 8, has(step));
            publish();
        }
        if (g.u) {
            barrier_wait(shared + EMPTY + ring.stage * 8, ring.parity);
            const u32 base = shared + ring.stage * STAGE;
#pragma unroll
            for (int i = 0; i < COPIES; i++) {
                const int place = tiles.row + min(row + 32 * i, tiles.n_rows - 1);
                copy_async16(base + a_to + i * 4096, g.u + (u64)place * 64 + chunk * 8);
            }
#pragma unroll
            for (int i = 0; i < COLUMNS / 32; i++) {
                const int n = min(tiles.column + row + 32 * i, g.n_out - 1);
                copy_async16(base + A_BYTES + a_to + i * 4096,
                             g.v + ((u64)tiles.expert * g.n_out + n) * 64 + chunk * 8);
            }
            publish();
        }
    }
}

// One step: 64 of the inner dimension, ACTIVE blocks of 64 rows, WIDTH columns.
template <int ACTIVE, int WIDTH, bool TRANSPOSED>
__device__ __forceinline__ void multiply_step(float (&acc)[2][COLUMNS / 2], u32 a, u32 b) {
    constexpr u32 LEADING = TRANSPOSED ? SUBTILE : 16, INNER = TRANSPOSED ? 16 * 128 : 32;
    fence_async();
    products_begin();
#pragma unroll
    for (int k = 0; k < STEP / 16; k++) {
        u64 right = operand(b + k * INNER, LEADING);
#pragma unroll
        for (int m = 0; m < ACTIVE; m++) {
            u64 left = operand(a + m * 2 * SUBTILE + k * 32);
            product<WIDTH, TRANSPOSED>(acc[m], left, right);
        }
    }
    products_commit();
}

// All steps of a tile; the ring continues where the last tile left it.
template <int ACTIVE, int WIDTH, bool TRANSPOSED>
__device__ __forceinline__ void multiply(float (&acc)[2][COLUMNS / 2], const Problem& g, u32 shared, int group,
                                         Ring<STAGES>& ring) {
    const int steps = steps_of(g), lane = threadIdx.x & 31;
    u32 previous = 0, base;
    auto wait = [&]() {
        barrier_wait(shared + FULL + ring.stage * 8, ring.parity);
        base = shared + ring.stage * STAGE;
    };
    // Gives back the stage of the step before, whose products are done.
    auto release = [&](bool any) {
        if (any && lane == 0) barrier_arrive(shared + EMPTY + previous * 8);
        previous = ring.stage;
        ring.next();
    };
    for (int step = 0; step < steps; step++) {
        wait();
        if (ACTIVE > 0) {
            multiply_step<ACTIVE, WIDTH, TRANSPOSED>(acc, base + group * SUBTILE, base + A_BYTES);
            products_wait<1>();
        }
        release(step > 0);
    }
    if (ACTIVE > 0) products_wait<0>();
    if (g.u) {
        wait();
        if (ACTIVE > 0) {
            multiply_step<ACTIVE, WIDTH, false>(acc, base + group * SUBTILE, base + A_BYTES);
            products_wait<0>();
        }
        release(true);
    }
    if (lane == 0) barrier_arrive(shared + EMPTY + previous * 8);
}

template <bool TRANSPOSED> __device__ __forceinline__ void consume(const Problem& g, u32 shared, const int* offsets) {
    const int t = threadIdx.x - PRODUCERS, group = t >> 7, warp = t >> 5;
    const u32 bias = shared + BIAS + group * COLUMNS * 2, staged = shared + STAGED + warp * 16 * STAGED_LD;
    Ring<STAGES> ring;
    Tiles tiles;
    for (int tile = blockIdx.x; tiles.go(tile, offsets, g.n_experts, g.n_out); tile += gridDim.x) {
        // Two columns of the bias for each of 64 threads, on their way while the products run.
        const int pair_at = (t & 127) * 2, n = tiles.column + pair_at;
        u32 pair = 0;
        if (g.bias && pair_at < COLUMNS && n < g.n_out) pair = *(const u32*)(g.bias + (u64)tiles.expert * g.n_out + n);
        float acc[2][COLUMNS / 2];
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int i = 0; i < COLUMNS / 2; i++) acc[m][i] = 0.0f;

        // Blocks of 64 rows alternate between the warpgroups, so that both have work in a short tile.
        const int active = ((tiles.n_rows + 63) / 64 - group + 1) / 2;
        const bool narrow = g.n_out - tiles.column <= 64;
        if (active == 2 && !narrow)
            multiply<2, COLUMNS, TRANSPOSED>(acc, g, shared, group, ring);
        else if (active == 2)
            multiply<2, 64, TRANSPOSED>(acc, g, shared, group, ring);
        else if (active == 1)
            multiply<1, COLUMNS, TRANSPOSED>(acc, g, shared, group, ring);
        else
            multiply<0, COLUMNS, TRANSPOSED>(acc, g, shared, group, ring);

        threads_sync(1 + group, 128);
        if (pair_at < COLUMNS) shared_store(bias + pair_at * 2, pair);
        threads_sync(1 + group, 128);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            const int first = (m * 2 + group) * 64 + (warp & 3) * 16;
            if (m < active)
                store_block<COLUMNS>(acc[m], g, staged, bias, tiles.row + first, tiles.n_rows - first, tiles.column);
        }
    }
}

template <bool TRANSPOSED> __device__ __forceinline__ void grouped(const Problem& g) {
    extern __shared__ u8 dynamic[];
    const u32 start = shared_address(dynamic), shared = tile_aligned(start);
    int* offsets = (int*)(dynamic + (shared - start) + OFFSETS);
    const int t = threadIdx.x;
    for (int i = t; i <= g.n_experts; i += THREADS) offsets[i] = g.offsets[i];
    if (t == 0) {
        for (int s = 0; s < STAGES; s++) {
            // Every producer's copies, and every producing warp's stores.
            barrier_init(shared + FULL + s * 8, PRODUCERS + PRODUCERS / 32);
            barrier_init(shared + EMPTY + s * 8, MULTIPLIERS / 32);
        }
        barriers_made();
    }
    __syncthreads();
    if (t < PRODUCERS) {
        registers_lower<88>();
        produce<TRANSPOSED>(g, shared, offsets);
    } else {
        registers_raise<168>();
        consume<TRANSPOSED>(g, shared, offsets);
    }
}

GROUPED_KERNELS(THREADS, 1)
