// Products of rows, sorted by expert, with frozen packed MXFP4 experts, for Hopper (sm_90a).
//
//   forward:  out[place, n] = sum_k A[row(place), k] · W[e][n, k]      W packed along k
//   backward: out[place, n] = sum_k A[row(place), k] · W[e][k, n]      the same bytes, packed along n
//
// for the places offsets[e]..offsets[e + 1] of expert e; row(place) is the place, or pairs[place] / top_k. Then, each
// where its pointer is not null: + bias[e, n]; + sum_r u[place, r] · v[e, n, r] over 64 columns (the low-rank path, one
// more step of the loop); store of the result; store of gpt-oss' clamped SwiGLU of it (columns 2j gate, 2j + 1 up).
//
// How: one CTA a multiprocessor walks tiles in an order that depends on `offsets` alone, so nothing is read back to the
// host. Eight producer warps bring A by asynchronous copies (they may gather rows, which tensor copies cannot) and
// decode W into shared memory in the swizzled form that wgmma reads; two consumer warpgroups multiply. Weights never
// exist in bf16 outside shared memory. Sums have one order: two runs give the same bytes.
//
// Launch: grid = multiprocessors, block = 384, dynamic shared memory = 219136 bytes.
// Shapes: a bf16 [rows, a_ld]; pairs i32 [P] or null; blocks u8 [E, rows of W, columns of W / 32, 16] and scales u8
// without the 16, or with UNPACKED defined bf16 [E, rows of W, columns of W] in place of the blocks; bias bf16 [E, n_out] or null; u bf16 [P, 64] and v bf16 [E, n_out, 64] or both null; offsets i32
// [E + 1]; out bf16 [P, n_out] or null; h bf16 [P, n_out / 2] or null. n_in, n_out, a_ld: multiples of 32, 32, 8.
#include "grouped.cuh"
#include "hopper.cuh"

#ifndef PRODUCERS
#define PRODUCERS 128
#endif
#define PRODUCER_WARPS (PRODUCERS / 32)
#define CONSUMER_WARPS 8
#define STAGES 4

template <int M_BLOCKS, int N_TILE> struct Layout {
    static constexpr int ROWS = M_BLOCKS * 128;
    static constexpr u32 A_BYTES = ROWS * 128, B_BYTES = N_TILE * 128, STAGE = A_BYTES + B_BYTES;
    static constexpr u32 STAGED = STAGES * STAGE, BIAS = STAGED + CONSUMER_WARPS * 16 * STAGED_LD;
    static constexpr u32 BARRIERS = BIAS + 2 * N_TILE * 2, OFFSETS = BARRIERS + STAGES * 16;
    static constexpr u32 BYTES = OFFSETS + (MAX_EXPERTS + 1) * 4;
};

template <int M_BLOCKS, int N_TILE, bool TRANSPOSED>
__device__ __forceinline__ void produce(const Problem& g, u32 shared, const int* offsets) {
    using L = Layout<M_BLOCKS, N_TILE>;
    constexpr int A_ROWS = PRODUCERS / 8, A_COPIES = L::ROWS / A_ROWS, B_BLOCKS = N_TILE * 2 / PRODUCERS;
    const int p = threadIdx.x, lane = p & 31, warp = p >> 5;
    const int steps = (g.n_in + STEP - 1) / STEP;
    const u32 full = shared + L::BARRIERS, empty = full + STAGES * 8;

    // A: this thread copies 16 bytes, `chunk`, of rows p / 8 + A_ROWS · i.
    const int chunk = p & 7, a_row = p >> 3;
    const u32 a_to = a_row * 128 + ((chunk ^ (a_row & 7)) << 4);
    // B: this thread decodes B_BLOCKS blocks of 32: where they go (before the swizzle of their four chunks), and
    // which they are along the packed row (`b_block`) and across it (`b_line` + i · LINES).
    const int half = lane & 1;
    int b_line, b_block;
    u32 b_to;
    constexpr int LINES = TRANSPOSED ? PRODUCERS * 32 / N_TILE : PRODUCERS / 2;
    if (TRANSPOSED) {
        int column = N_TILE == 256 ? lane >> 3 : (lane >> 3) & 1;
        b_line = N_TILE == 256 ? warp * 4 + ((lane >> 1) & 3) : warp * 8 + (lane >> 4) * 4 + ((lane >> 1) & 3);
        b_block = column * 2 + half;
        b_to = column * (STEP * 128) + b_line * 128;
    } else {
        b_line = p >> 1;
        b_block = half;
        b_to = b_line * 128;
    }
    const u32 swizzle = (half * 4) ^ (b_line & 7);

    u32 stage = 0, parity = 1, previous = 0;
    bool pending = false;
    // Publishes the stage before this one: its copies have landed, and so have this thread's stores.
    auto publish = [&]() {
        fence_async();
        __syncwarp();
        if (lane == 0) barrier_arrive(full + previous * 8);
    };
    auto next_stage = [&]() {
        previous = stage;
        pending = true;
        if (++stage == STAGES) stage = 0, parity ^= 1;
    };

    Walk<L::ROWS, N_TILE> walk;
    for (int t = blockIdx.x; walk.go(t, offsets, g.n_experts, g.n_out); t += gridDim.x) {
        // The weights first: they come from furthest.
        const int wide = TRANSPOSED ? g.n_out / 32 : g.n_in / 32;   // blocks of a packed row
        const int lines = TRANSPOSED ? g.n_in : g.n_out;
        const int line = b_line + (TRANSPOSED ? 0 : walk.column), block = b_block + (TRANSPOSED ? walk.column / 32 : 0);
        const u64 at = ((u64)walk.expert * lines + line) * wide + block;
        const u64 stride = (u64)LINES * wide, advance = TRANSPOSED ? (u64)STEP * wide : STEP / 32;
        auto has = [&](int i, int step) {
            return TRANSPOSED ? step * STEP + line + i * LINES < lines && block < wide
                              : line + i * LINES < lines && step * 2 + block < wide;
        };
        auto where = [&](int i, int step) { return at + i * stride + step * advance; };
#ifndef UNPACKED
        auto load = [&](Packed (&b)[B_BLOCKS], int step) {
#pragma unroll
            for (int i = 0; i < B_BLOCKS; i++)
                b[i] = load_packed(g.blocks + where(i, step) * 16, g.scales + where(i, step), has(i, step));
        };
        Packed now[B_BLOCKS], soon[B_BLOCKS];
        load(now, 0);
        load(soon, 1);
#endif

        // Rows of A as offsets in 16 bytes; all ones where there is none.
        u32 rows[A_COPIES];
#pragma unroll
        for (int i = 0; i < A_COPIES; i++) {
            int r = a_row + A_ROWS * i;
            rows[i] = ~0u;
            if (r < walk.n_rows) {
                int source = g.pairs ? g.pairs[walk.row + r] / g.top_k : walk.row + r;
                rows[i] = (u32)source * (u32)(g.a_ld / 8) + chunk;
            }
        }

        for (int step = 0; step < steps; step++) {
            const u32 base = shared + stage * L::STAGE;
            barrier_wait(empty + stage * 8, parity);
            const bool inside = step * STEP + chunk * 8 < g.n_in;
#pragma unroll
            for (int i = 0; i < A_COPIES; i++) {
                bool valid = inside && rows[i] != ~0u;
                copy_async16(base + a_to + i * (A_ROWS * 128), g.a + (valid ? (u64)(rows[i] + step * 8) * 8 : 0), valid);
            }
#ifdef UNPACKED
#pragma unroll
            for (int i = 0; i < B_BLOCKS; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    copy_async16(base + L::A_BYTES + b_to + i * (LINES * 128) + ((swizzle ^ j) << 4),
                                 (const bf16*)g.blocks + (has(i, step) ? where(i, step) * 32 + j * 8 : 0), has(i, step));
            copy_commit();
#else
            copy_commit();
#pragma unroll
            for (int i = 0; i < B_BLOCKS; i++) {
                u32 values[4][4];
                decode_block(now[i].words, now[i].scale, values);
                u32 to = base + L::A_BYTES + b_to + i * (LINES * 128);
#pragma unroll
                for (int j = 0; j < 4; j++)
                    shared_store(to + ((swizzle ^ j) << 4), values[j]);
            }
#pragma unroll
            for (int i = 0; i < B_BLOCKS; i++) now[i] = soon[i];
            load(soon, step + 2);
#endif
            copy_wait<1>();
            if (pending) publish();
            next_stage();
        }

        if (g.u) {
            const u32 base = shared + stage * L::STAGE;
            barrier_wait(empty + stage * 8, parity);
#pragma unroll
            for (int i = 0; i < A_COPIES; i++) {
                int r = a_row + A_ROWS * i;
                bool valid = r < walk.n_rows;
                copy_async16(base + a_to + i * (A_ROWS * 128), g.u + (valid ? (u64)(walk.row + r) * 64 + chunk * 8 : 0), valid);
            }
#pragma unroll
            for (int i = 0; i < N_TILE / A_ROWS; i++) {
                int n = walk.column + a_row + A_ROWS * i;
                bool valid = n < g.n_out;
                const bf16* from = g.v + (valid ? ((u64)walk.expert * g.n_out + n) * 64 + chunk * 8 : 0);
                copy_async16(base + L::A_BYTES + a_to + i * (A_ROWS * 128), from, valid);
            }
            copy_commit();
            copy_wait<1>();
            if (pending) publish();
            next_stage();
        }
    }
    copy_wait<0>();
    if (pending) publish();
}

// One step: 64 of the inner dimension, ACTIVE blocks of 64 rows.
template <int ACTIVE, int M_BLOCKS, int N_TILE, bool TRANSPOSED>
__device__ __forceinline__ void multiply_step(float (&acc)[M_BLOCKS][N_TILE / 2], u32 a, u32 b) {
    product_fence();
    constexpr u32 LEADING = TRANSPOSED ? STEP * 128 : 16, B_STEP = TRANSPOSED ? 16 * 128 : 32;
#pragma unroll
    for (int k = 0; k < STEP / 16; k++) {
        u64 right = tile_descriptor(b + k * B_STEP, LEADING, 1024);
#pragma unroll
        for (int m = 0; m < ACTIVE; m++) {
            u64 left = tile_descriptor(a + m * 2 * 8192 + k * 32, 16, 1024);
            product<TRANSPOSED>(acc[m], left, right);
        }
    }
    product_commit();
}

// All steps of a tile; the ring goes on where the last tile left it.
template <int ACTIVE, int M_BLOCKS, int N_TILE, bool TRANSPOSED>
__device__ __forceinline__ void multiply(float (&acc)[M_BLOCKS][N_TILE / 2], const Problem& g, u32 shared, int group,
                                         u32& stage, u32& parity) {
    using L = Layout<M_BLOCKS, N_TILE>;
    const u32 full = shared + L::BARRIERS, empty = full + STAGES * 8;
    const int steps = (g.n_in + STEP - 1) / STEP, lane = threadIdx.x & 31;
    u32 previous = 0;
    auto wait = [&](u32& a, u32& b) {
        barrier_wait(full + stage * 8, parity);
        a = shared + stage * L::STAGE + group * 8192, b = shared + stage * L::STAGE + L::A_BYTES;
    };
    // Gives back the stage of the step before, whose products are done.
    auto release = [&](bool any) {
        if (any && lane == 0) barrier_arrive(empty + previous * 8);
        previous = stage;
        if (++stage == STAGES) stage = 0, parity ^= 1;
    };
    u32 a, b;
    for (int step = 0; step < steps; step++) {
        wait(a, b);
        if (ACTIVE > 0) {
            multiply_step<ACTIVE, M_BLOCKS, N_TILE, TRANSPOSED>(acc, a, b);
            product_wait<1>();
        }
        release(step > 0);
    }
    if (ACTIVE > 0) product_wait<0>();
    if (g.u) {
        wait(a, b);
        if (ACTIVE > 0) {
            multiply_step<ACTIVE, M_BLOCKS, N_TILE, false>(acc, a, b);
            product_wait<0>();
        }
        release(true);
    }
    if (lane == 0) barrier_arrive(empty + previous * 8);
}

template <int M_BLOCKS, int N_TILE, bool TRANSPOSED>
__device__ __forceinline__ void consume(const Problem& g, u32 shared, const int* offsets) {
    using L = Layout<M_BLOCKS, N_TILE>;
    const int consumer = threadIdx.x - PRODUCERS, group = consumer >> 7, warp = consumer >> 5;
    const u32 bias = shared + L::BIAS + group * N_TILE * 2, staged = shared + L::STAGED + warp * 16 * STAGED_LD;
    u32 stage = 0, parity = 0;
    Walk<L::ROWS, N_TILE> walk;
    for (int t = blockIdx.x; walk.go(t, offsets, g.n_experts, g.n_out); t += gridDim.x) {
        // The bias waits in shared memory while the products run.
        threads_sync(1 + group, 128);
        for (int i = (consumer & 127) * 2; i < N_TILE; i += 256) {
            int n = walk.column + i;
            u32 pair = g.bias && n < g.n_out ? *(const u32*)(g.bias + (u64)walk.expert * g.n_out + n) : 0;
            shared_store(bias + i * 2, pair);
        }
        threads_sync(1 + group, 128);

        float acc[M_BLOCKS][N_TILE / 2];
#pragma unroll
        for (int m = 0; m < M_BLOCKS; m++)
#pragma unroll
            for (int i = 0; i < N_TILE / 2; i++) acc[m][i] = 0.0f;
        // Blocks of 64 rows alternate between the two warpgroups, so that both have work in a short tile.
        const int blocks = (walk.n_rows + 63) / 64, active = (blocks - group + 1) / 2;
        if (active == M_BLOCKS)
            multiply<M_BLOCKS, M_BLOCKS, N_TILE, TRANSPOSED>(acc, g, shared, group, stage, parity);
        else if (M_BLOCKS == 2 && active == 1)
            multiply<1, M_BLOCKS, N_TILE, TRANSPOSED>(acc, g, shared, group, stage, parity);
        else
            multiply<0, M_BLOCKS, N_TILE, TRANSPOSED>(acc, g, shared, group, stage, parity);
#pragma unroll
        for (int m = 0; m < M_BLOCKS; m++) {
            const int first = (m * 2 + group) * 64 + (warp & 3) * 16;
            if (m < active)
                store_block<N_TILE>(acc[m], g, staged, bias, walk.row + first, walk.n_rows - first, walk.column);
        }
    }
}

template <int M_BLOCKS, int N_TILE, bool TRANSPOSED> __device__ __forceinline__ void grouped(const Problem& g) {
    using L = Layout<M_BLOCKS, N_TILE>;
    extern __shared__ u8 dynamic[];
    const u32 start = shared_address(dynamic), shared = (start + 1023) & ~1023u;
    int* offsets = (int*)(dynamic + (shared - start) + L::OFFSETS);
    for (int i = threadIdx.x; i <= g.n_experts; i += blockDim.x) offsets[i] = g.offsets[i];
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(shared + L::BARRIERS + s * 8, PRODUCER_WARPS);
            barrier_init(shared + L::BARRIERS + (STAGES + s) * 8, CONSUMER_WARPS);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x < PRODUCERS) {
        registers_lower<PRODUCERS == 128 ? 104 : 88>();
        produce<M_BLOCKS, N_TILE, TRANSPOSED>(g, shared, offsets);
    } else {
        registers_raise<PRODUCERS == 128 ? 200 : 168>();
        consume<M_BLOCKS, N_TILE, TRANSPOSED>(g, shared, offsets);
    }
}

#define KERNEL(name, m_blocks, n_tile, transposed)                                                                     \
    extern "C" __global__ void __launch_bounds__(PRODUCERS + 256, 1)                                                               \
        name(const bf16* a, const int* pairs, const u8* blocks, const u8* scales, const bf16* bias, const bf16* u,     \
             const bf16* v, const int* offsets, bf16* out, bf16* h, int a_ld, int top_k, int n_experts, int n_out,     \
             int n_in, float limit) {                                                                                  \
        Problem g = {a, pairs, blocks, scales, bias, u, v, offsets, out, h, a_ld, top_k, n_experts, n_out, n_in, limit};\
        grouped<m_blocks, n_tile, transposed>(g);                                                                      \
    }

KERNEL(experts_forward_128x256, 1, 256, false)
KERNEL(experts_forward_256x128, 2, 128, false)
KERNEL(experts_backward_128x256, 1, 256, true)
KERNEL(experts_backward_256x128, 2, 128, true)
