// Products of rows, sorted by expert, with frozen packed MXFP4 experts, for Hopper (sm_90a).
//
//   forward:  out[place, n] = sum_k A[place, k] · W[e][n, k]      W packed along k
//   backward: out[place, n] = sum_k A[place, k] · W[e][k, n]      the same bytes, packed along n
//
// for the places offsets[e]..offsets[e + 1] of expert e. Then, each where its pointer is not null: + bias[e, n];
// + sum_r u[place, r] · v[e, n, r] over 64 columns (the low-rank path, one more step of the loop); store of the result;
// store of gpt-oss' clamped SwiGLU of it (columns 2j gate, 2j + 1 up).
//
// How: the product is turned around, out^T = W · A^T. Then the weights are wgmma's left operand, which may come from
// registers: a warp decodes the very fragments it multiplies, bf16 weights are never written anywhere, and nothing has
// to be made visible to the tensor cores. The right operand are rows of A as tensor copies bring them, and its width
// is the number of rows, so that a tile of few rows costs little. One CTA a multiprocessor walks tiles of 192 rows and
// 192 columns in an order that depends on `offsets` alone, so nothing is read back to the host. The warps have roles:
//
//   1 copies         rows of A, packed weights: tensor copies into a ring of stages
//   3 scale          load the blocks' scales and write them as factors, each for one of
//   3 x 4 multiply   warpgroups with 64 columns each: while one decodes, the others keep the tensor cores busy
//
// Sums have one order: two runs give the same bytes.
//
// Launch: grid = multiprocessors.
// Shapes: `a` a map of bf16 [rows, n_in] in boxes of 64 x ROW_BOX with 128-byte swizzle; `w` of u8 [E · rows of W,
// columns of W / 2] in boxes of 32 x WEIGHT_BOX with 32-byte swizzle; `u` as `a`, of bf16 [P, 64]; scales u8 [E, rows
// of W, columns of W / 32]; bias bf16 [E, n_out] or null; v bf16 [E, n_out, 64] or null, then without `u`; offsets i32
// [E + 1]; out bf16 [P, n_out] or null; h bf16 [P, n_out / 2] or null. n_in and n_out are multiples of 32, E at most
// 256.
#include "grouped.cuh"
#include "sm90.cuh"
#include "mma.cuh"

#define ROWS 192
#define STAGES 6
#define GROUPS 3  // warpgroups that multiply
#define COLUMNS (GROUPS * 64)
#define AHEAD 8  // steps that scales are loaded ahead

// Where things lie in shared memory, in bytes. A group's packed weights in a stage are 64 lines of 32 bytes: columns by
// k forward, k by columns backward. Its factors are [2 halves of 32 bytes' elements][64 lines], twice; see mxfp4.cuh.
#define A_BYTES (ROWS * 128)
#define W_BYTES 2048
#define FACTORS 256
#define GROUP_FACTORS (2 * FACTORS + 16)
#define STAGE ((A_BYTES + GROUPS * (W_BYTES + GROUP_FACTORS) + 1023) / 1024 * 1024)
#define ROW_LD 208  // a staged row: 64 columns, 32 of h, 16 bytes against bank conflicts
#define STAGED (STAGES * STAGE)
#define RAW (STAGED + GROUPS * 32 * ROW_LD)  // scales on their way, a word for each of 64 lines
#define FULL (RAW + GROUPS * AHEAD * 256)
#define EMPTY (FULL + STAGES * 8)
#define OFFSETS (EMPTY + STAGES * 8)
static_assert(THREADS == 128 * (1 + GROUPS), "one warpgroup that loads");
static_assert(SHARED == OFFSETS + OFFSETS_BYTES + 1024, "what lies there, 1024-aligned");
static_assert(ROWS % ROW_BOX == 0 && ROW_BOX % 8 == 0 && WEIGHT_BOX == 64, "whole boxes, in whole swizzles");

struct Places {
    const u8* scales;
    const bf16* bias;
    const bf16* v;
    bf16* out;
    bf16* h;
    int n_experts, n_out, n_in;
    float limit;
};

using Tiles = Walk<ROWS, COLUMNS>;

__device__ __forceinline__ int steps_of(const Places& g) { return (g.n_in + STEP - 1) / STEP; }

// One thread: rows of A and packed weights.
template <bool TRANSPOSED>
__device__ __forceinline__ void copy(const Places& g, const TensorMap& a, const TensorMap& w, const TensorMap& u,
                                     u32 shared, const int* offsets) {
    const int steps = steps_of(g);
    Ring<STAGES> ring(1);
    Tiles tiles;
    for (int tile = blockIdx.x; tiles.go(tile, offsets, g.n_experts, g.n_out); tile += gridDim.x) {
        const int boxes = (tiles.n_rows + ROW_BOX - 1) / ROW_BOX;
        for (int step = 0; step < steps + (g.v != nullptr); step++) {
            barrier_wait(shared + EMPTY + ring.stage * 8, ring.parity);
            const u32 base = shared + ring.stage * STAGE, full = shared + FULL + ring.stage * 8;
            const bool low_rank = step == steps;
            barrier_expect(full, boxes * ROW_BOX * 128 + (low_rank ? 0 : GROUPS * W_BYTES));
            for (int i = 0; i < boxes; i++)
                tensor_copy(base + i * ROW_BOX * 128, low_rank ? u : a, low_rank ? 0 : step * STEP,
                            tiles.row + i * ROW_BOX, full);
            if (!low_rank)
#pragma unroll
                for (int i = 0; i < GROUPS; i++)
                    tensor_copy(base + A_BYTES + i * W_BYTES, w,
                                TRANSPOSED ? tiles.column / 2 + i * 32 : step * STEP / 2,
                                TRANSPOSED ? tiles.expert * g.n_in + step * STEP
                                           : tiles.expert * g.n_out + tiles.column + i * 64,
                                full);
            ring.next();
        }
    }
}

// A warp: the scales of a group's 64 lines, lines `lane` and `lane + 32` in a lane.
template <bool TRANSPOSED>
__device__ __forceinline__ void scale(const Places& g, u32 shared, const int* offsets, int group) {
    const int lane = threadIdx.x & 31, steps = steps_of(g);
    const int wide = TRANSPOSED ? g.n_out / 32 : g.n_in / 32, lines = TRANSPOSED ? g.n_in : g.n_out;
    const u32 raw = shared + RAW + group * AHEAD * 256 + lane * 4;
    Ring<STAGES> ring(1);
    auto publish = [&]() {
        barrier_arrive_warp(shared + FULL + ring.stage * 8);
        ring.next();
    };
    Tiles tiles;
    for (int tile = blockIdx.x; tiles.go(tile, offsets, g.n_experts, g.n_out); tile += gridDim.x) {
        const int first_line = lane + (TRANSPOSED ? 0 : tiles.column + group * 64);
        const int first_block = TRANSPOSED ? tiles.column / 32 + group * 2 : 0;
        const u32 matrix = (u32)tiles.expert * lines * wide;
        // Where a line's scales begin, in both halves; they are in one word where rows have an even number of them.
        auto at = [&](int step, int i) {
            const int line = first_line + i * 32 + (TRANSPOSED ? step * STEP : 0),
                      block = first_block + (TRANSPOSED ? 0 : step * 2);
            return line < lines && block < wide ? matrix + (u32)line * wide + block : ~0u;
        };
        auto load = [&](int step) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const u32 from = step < steps ? at(step, i) : ~0u, to = raw + (step % AHEAD * 64 + i * 32) * 4;
                if (wide % 2 == 0)
                    copy_async4(to, g.scales + (from == ~0u ? 0 : from & ~3u), from != ~0u);
                else if (from != ~0u)
                    shared_store(to, g.scales[from] | (u32)g.scales[from + (from % wide + 1 < wide)] << 8);
            }
            copy_commit();
        };
        for (int d = 0; d < AHEAD - 1; d++) load(d);
        for (int step = 0; step < steps; step++) {
            load(step + AHEAD - 1);
            copy_wait<AHEAD - 1>();
            u32 four = 0;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const u32 from = at(step, i), word = shared_load(raw + (step % AHEAD * 64 + i * 32) * 4);
                const u32 both = wide % 2 == 0 && from % 4 == 2 ? word >> 16 : word & 0xffff;
                four |= (from == ~0u ? 0 : both) << i * 16;
            }
            barrier_wait(shared + EMPTY + ring.stage * 8, ring.parity);
            const u32 to = shared + ring.stage * STAGE + A_BYTES + GROUPS * W_BYTES + group * GROUP_FACTORS + lane * 2;
            bool more = false;
#pragma unroll
            for (int i = 0; i < 4; i++) more |= (four >> i * 8 & 0xff) > 128;
            more = __any_sync(FULL_WARP, more);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const BlockScale by = block_scale(four >> i * 8 & 0xff);
                const u32 place = to + i % 2 * 128 + i / 2 * 64;
                shared_store(place, (bf16)by.first);
                if (more) shared_store(place + FACTORS, (bf16)by.second);
            }
            if (lane == 0) shared_store(to + 2 * FACTORS, (u32)more);
            publish();
        }
        if (g.v) {
            barrier_wait(shared + EMPTY + ring.stage * 8, ring.parity);
            publish();
        }
    }
}

// Which of its group's 64 columns a thread has: this one and the next. They are rows lane / 4 and 8 below of its
// warp's fragments; the order is ours to choose, and with this one gate and up meet in a thread, forward, and a thread
// finds its columns in what a transposed load gives it, backward.
template <bool TRANSPOSED> __device__ __forceinline__ int column_of_thread() {
    const int r = (threadIdx.x & 31) >> 2, warp = (threadIdx.x >> 5) & 3;
    return TRANSPOSED ? warp / 2 * 32 + r * 4 + warp % 2 * 2 : warp * 16 + r * 2;
}

// The fragments of 64 elements of the inner dimension, four times 16, still to be multiplied; and their factors.
// Forward: byte q of each word of two lines is what this thread (q = lane % 4) multiplies: two elements.
__device__ __forceinline__ void read_lines(u32 weights, u32 factors, u32 (&x)[4][4], u32 (&by)[4][4]) {
    const int lane = threadIdx.x & 31, line = column_of_thread<false>();
    const u32 from = weights + line * 32, swap = (line & 4) << 2, select = 0x4440 | (lane & 3);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint4 first = shared_load16(from + ((half * 16) ^ swap)),
                    second = shared_load16(from + 32 + ((half * 16) ^ swap));
        const u32 pair = shared_load(factors + half * 128 + line * 2);
        const u32 words[2][4] = {{first.x, first.y, first.z, first.w}, {second.x, second.y, second.z, second.w}};
        const u32 factor[2] = {__byte_perm(pair, 0, 0x1010), __byte_perm(pair, 0, 0x3232)};
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int l = 0; l < 2; l++) {
                const u32 byte = __byte_perm(words[l][i], 0, select);
                const int chunk = half * 2 + i / 2, place = i % 2 * 2 + l;
                x[chunk][place] = ((byte * 0x40040u) & 0x01c001c0u) | ((byte * 0x1001000u) & 0x80008000u);
                by[chunk][place] = factor[l];
            }
        }
    }
}
// Backward: a transposed load gives each thread four columns of two lines; it and the thread of the next warp share
// them.
__device__ __forceinline__ void read_columns(u32 weights, u32 factors, u32 (&x)[4][4], u32 (&by)[4][4]) {
    const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3, half = warp / 2, shift = warp % 2 * 8;
    const u32 swap = ((half * 16) ^ ((lane & 4) << 2));
    factors += half * 128 + (lane & 3) * 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        u32 units[4];
        load_matrices_transposed(units, weights + (i * 32 + lane) * 32 + swap);
#pragma unroll
        for (int m = 0; m < 4; m++) {
            const int chunk = i * 2 + m / 2, place = m % 2 * 2;
            const u32 t = units[m] >> shift, factor = shared_load(factors + (i * 4 + m) * 16);
            x[chunk][place] = ((t * 64) & 0x01c001c0u) | ((t * 4096) & 0x80008000u);
            x[chunk][place + 1] = ((t * 4) & 0x01c001c0u) | ((t * 256) & 0x80008000u);
            by[chunk][place] = by[chunk][place + 1] = factor;
        }
    }
}
template <bool TRANSPOSED>
__device__ __forceinline__ void decode(u32 weights, u32 factors, u32 (&x)[4][4]) {
    u32 by[4][4];
    auto read = [&](u32 factors, u32(&x)[4][4]) {
        if (TRANSPOSED)
            read_columns(weights, factors, x, by);
        else
            read_lines(weights, factors, x, by);
    };
    read(factors, x);
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) x[j][i] = multiply_bf16x2(x[j][i], by[j][i]);
    if (shared_load(factors + 2 * FACTORS)) {
        u32 unused[4][4];
        read(factors + FACTORS, unused);
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) x[j][i] = multiply_bf16x2(x[j][i], by[j][i]);
    }
}

// A tile of at most N rows: all steps, and the way out. The ring goes on where the last tile left it.
template <int N, bool TRANSPOSED>
__device__ __forceinline__ void multiply(const Places& g, const Tiles& tiles, u32 shared, int group,
                                         Ring<STAGES>& ring) {
    const int lane = threadIdx.x & 31, steps = steps_of(g);
    const int mine = column_of_thread<TRANSPOSED>(), column = tiles.column + group * 64 + mine;
    const bool here = column < g.n_out;
    const u64 first = (u64)tiles.expert * g.n_out + column;
    const u32 bias = g.bias && here ? *(const u32*)(g.bias + first) : 0;
    float acc[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) acc[i] = 0.0f;

    u32 x[4][4];
    auto step = [&](u32 base) {
        products_begin();
#pragma unroll
        for (int j = 0; j < 4; j++) product<N>(acc, x[j], operand(base + j * 32));
        products_commit();
        products_wait<0>();
        if (lane == 0) barrier_arrive(shared + EMPTY + ring.stage * 8);
        ring.next();
    };
#pragma unroll 1
    for (int s = 0; s < steps; s++) {
        barrier_wait(shared + FULL + ring.stage * 8, ring.parity);
        const u32 base = shared + ring.stage * STAGE;
        decode<TRANSPOSED>(base + A_BYTES + group * W_BYTES, base + A_BYTES + GROUPS * W_BYTES + group * GROUP_FACTORS,
                           x);
        step(base);
    }
    if (g.v) {
#pragma unroll
        for (int i = 0; i < 16; i++) {
            const bf16* from = g.v + (first + i % 2) * 64 + i / 4 * 16 + i / 2 % 2 * 8 + (lane & 3) * 2;
            x[i / 4][i % 4] = here ? *(const u32*)from : 0;
        }
        barrier_wait(shared + FULL + ring.stage * 8, ring.parity);
        step(shared + ring.stage * STAGE);
    }

    // The way out: 32 rows at a time, turned back in shared memory and stored in whole lines.
    const int t = threadIdx.x & 127, q = lane & 3;
    const u32 staged = shared + STAGED + group * 32 * ROW_LD;
#pragma unroll
    for (int part = 0; part < (N + 31) / 32; part++) {
        threads_sync(1 + group, 128);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (part * 4 + i >= N / 8) break;
            float* y = &acc[(part * 4 + i) * 4];
            y[0] += low_float(bias), y[1] += low_float(bias), y[2] += high_float(bias), y[3] += high_float(bias);
            const u32 to = staged + (i * 8 + q * 2) * ROW_LD + mine * 2;
            if (g.out) {
                shared_store(to, to_bf16x2(y[0], y[2]));
                shared_store(to + ROW_LD, to_bf16x2(y[1], y[3]));
            }
            if (g.h) {
                shared_store(to - mine + 128, to_bf16(swiglu(y[0], y[2], g.limit)));
                shared_store(to - mine + 128 + ROW_LD, to_bf16(swiglu(y[1], y[3], g.limit)));
            }
        }
        threads_sync(1 + group, 128);
        const int left = tiles.n_rows - part * 32, start = tiles.column + group * 64;
        const u64 place = tiles.row + part * 32;
        if (g.out)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int row = t / 8 + i * 16, n = start + t % 8 * 8;
                if (row < left && n < g.n_out)
                    *(uint4*)(g.out + (place + row) * g.n_out + n) = shared_load16(staged + row * ROW_LD + t % 8 * 16);
            }
        if (g.h) {
            const int row = t / 4, n = start / 2 + t % 4 * 8;
            if (row < left && n < g.n_out / 2)
                *(uint4*)(g.h + (place + row) * (g.n_out / 2) + n) =
                    shared_load16(staged + row * ROW_LD + 128 + t % 4 * 16);
        }
    }
}

template <bool TRANSPOSED> __device__ __forceinline__ void consume(const Places& g, u32 shared, const int* offsets,
                                                                   int group) {
    Ring<STAGES> ring;
    Tiles tiles;
    for (int tile = blockIdx.x; tiles.go(tile, offsets, g.n_experts, g.n_out); tile += gridDim.x) {
        // Widths that occur: many rows an expert come in full tiles, and a short sequence has some 128.
        if (tiles.n_rows <= 64)
            multiply<64, TRANSPOSED>(g, tiles, shared, group, ring);
        else if (tiles.n_rows <= 96)
            multiply<96, TRANSPOSED>(g, tiles, shared, group, ring);
        else if (tiles.n_rows <= 128)
            multiply<128, TRANSPOSED>(g, tiles, shared, group, ring);
        else if (tiles.n_rows <= 144)
            multiply<144, TRANSPOSED>(g, tiles, shared, group, ring);
        else if (tiles.n_rows <= 160)
            multiply<160, TRANSPOSED>(g, tiles, shared, group, ring);
        else
            multiply<192, TRANSPOSED>(g, tiles, shared, group, ring);
    }
}

template <bool TRANSPOSED>
__device__ __forceinline__ void grouped(const Places& g, const TensorMap& a, const TensorMap& w, const TensorMap& u,
                                        const int* expert_offsets) {
    extern __shared__ u8 dynamic[];
    const u32 start = shared_address(dynamic), shared = tile_aligned(start);
    int* offsets = (int*)(dynamic + (shared - start) + OFFSETS);
    const int t = threadIdx.x, group = warpgroup();
    for (int i = t; i <= g.n_experts; i += THREADS) offsets[i] = expert_offsets[i];
    if (t == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(shared + FULL + s * 8, 1 + GROUPS);  // the copies, and each warp that scales
            barrier_init(shared + EMPTY + s * 8, GROUPS * 4);  // each warp that multiplies
        }
        barriers_made();
    }
    __syncthreads();
    if (group == 0) {
        registers_lower<56>();
        if (t == 0) copy<TRANSPOSED>(g, a, w, u, shared, offsets);
        if (t >= 32) scale<TRANSPOSED>(g, shared, offsets, t / 32 - 1);
    } else {
        registers_raise<152>();
        consume<TRANSPOSED>(g, shared, offsets, group - 1);
    }
}

#define KERNEL(name, transposed)                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                            \
        name(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap w,                  \
             const __grid_constant__ TensorMap u, const u8* scales, const bf16* bias, const bf16* v,    \
             const int* offsets, bf16* out, bf16* h, int n_experts, int n_out, int n_in, float limit) { \
        Places g = {scales, bias, v, out, h, n_experts, n_out, n_in, limit};                            \
        grouped<transposed>(g, a, w, u, offsets);                                                       \
    }

KERNEL(experts_forward, false)
KERNEL(experts_backward, true)
