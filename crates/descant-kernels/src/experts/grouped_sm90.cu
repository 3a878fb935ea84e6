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
// Launch: grid = multiprocessors, block = 512, dynamic shared memory = 218112 bytes.
// Shapes: a bf16 [rows, a_ld]; pairs i32 [P] or null; blocks u8 [E, rows of W, columns of W / 32, 16] and scales u8
// without the 16, or with UNPACKED defined bf16 [E, rows of W, columns of W] in place of the blocks; bias bf16 [E, n_out] or null; u bf16 [P, 64] and v bf16 [E, n_out, 64] or both null; offsets i32
// [E + 1]; out bf16 [P, n_out] or null; h bf16 [P, n_out / 2] or null. n_in, n_out, a_ld: multiples of 32, 32, 8.
#include "grouped.cuh"
#include "hopper.cuh"

#define STAGES 4

template <int GROUPS, int M_BLOCKS, int N_TILE> struct Layout {
    static constexpr int ROWS = GROUPS * M_BLOCKS * 64, CONSUMER_WARPS = GROUPS * 4;
    static constexpr u32 A_BYTES = ROWS * 128, B_BYTES = N_TILE * 128, STAGE = A_BYTES + B_BYTES;
    static constexpr u32 STAGED = STAGES * STAGE, BIAS = STAGED + CONSUMER_WARPS * 16 * STAGED_LD;
    static constexpr u32 BARRIERS = BIAS + GROUPS * N_TILE * 2, OFFSETS = BARRIERS + STAGES * 16;
    static constexpr u32 BYTES = OFFSETS + (MAX_EXPERTS + 1) * 4;
};

template <int PRODUCERS, int GROUPS, int M_BLOCKS, int N_TILE, bool TRANSPOSED>
__device__ __forceinline__ void produce(const Problem& g, u32 shared, const int* offsets) {
    using L = Layout<GROUPS, M_BLOCKS, N_TILE>;
    constexpr int A_ROWS = PRODUCERS / 8, A_COPIES = L::ROWS / A_ROWS, PIECES = PRODUCERS / 128, B_BLOCKS = N_TILE / (64 * PIECES);
    // Steps that packed blocks are loaded ahead, in registers.
    constexpr int AHEAD = B_BLOCKS <= 2 ? 4 : 2;
    const int p = threadIdx.x, lane = p & 31;
    const int steps = (g.n_in + STEP - 1) / STEP;
    const u32 full = shared + L::BARRIERS, empty = full + STAGES * 8;

    // A: this thread copies 16 bytes, `chunk`, of rows p / 8 + A_ROWS · i.
    const int chunk = p & 7, a_row = p >> 3;
    const u32 a_to = a_row * 128 + ((chunk ^ (a_row & 7)) << 4);
    // B: this thread decodes blocks of 32, `half` of a 64-element row each: packed row b_line + 64 j of the tile, or,
    // transposed, packed row b_line and 64 j columns further, where j is `piece`, and PIECES more with each i.
    const int half = p & 1, b_line = (p >> 1) & 63, piece = p >> 7;
    const u32 b_to = b_line * 128 + piece * (64 * 128), swizzle = (half * 4) ^ (b_line & 7);

    u32 stage = 0, parity = 1;
    // The stage is full when every thread's copies have landed and every warp has said that its stores are done. The
    // fence between these writes and the tensor cores is the consumers': here it would wait for all loads and copies
    // that are on their way for later stages.
    auto publish = [&]() {
        copy_arrive(full + stage * 8);
        __syncwarp();
        if (lane == 0) barrier_arrive(full + stage * 8);
        if (++stage == STAGES) stage = 0, parity ^= 1;
    };

    Walk<L::ROWS, N_TILE> walk;
    for (int t = blockIdx.x; walk.go(t, offsets, g.n_experts, g.n_out); t += gridDim.x) {
        // The weights first: they come from furthest.
        const int wide = TRANSPOSED ? g.n_out / 32 : g.n_in / 32;   // blocks of a packed row
        const int lines = TRANSPOSED ? g.n_in : g.n_out;
        const int line = b_line + (TRANSPOSED ? 0 : walk.column + piece * 64);
        const int block = half + (TRANSPOSED ? walk.column / 32 + piece * 2 : 0);
        const u64 at = ((u64)walk.expert * lines + line) * wide + block;
        const u64 stride = TRANSPOSED ? 2 * PIECES : (u64)64 * PIECES * wide, advance = TRANSPOSED ? (u64)STEP * wide : 2;
        // A short tile's blocks of 64 columns that do not exist are not decoded, nor multiplied.
        const int used = (g.n_out - walk.column + 63) / 64;
        auto has = [&](int i, int step) {
            return TRANSPOSED ? step * STEP + line < lines && block + i * 2 * PIECES < wide
                              : line + i * 64 * PIECES < lines && step * 2 + block < wide;
        };
        auto where = [&](int i, int step) { return at + i * stride + step * advance; };
#ifndef UNPACKED
        auto load = [&](Packed (&b)[B_BLOCKS], int step) {
#pragma unroll
            for (int i = 0; i < B_BLOCKS; i++)
                b[i] = load_packed(g.blocks + where(i, step) * 16, g.scales + where(i, step), has(i, step));
        };
        Packed ahead[AHEAD][B_BLOCKS];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) load(ahead[i], i);
#endif
        // Rows of A as offsets in 16 bytes. Beyond the last one it comes again: those sums are never stored. Blocks of
        // 64 rows that no consumer takes are not copied.
        const int copied = (walk.n_rows + 63) / 64 * 64;
        u32 rows[A_COPIES];
#pragma unroll
        for (int i = 0; i < A_COPIES; i++) {
            int place = walk.row + min(a_row + A_ROWS * i, walk.n_rows - 1);
            rows[i] = (u32)(g.pairs ? g.pairs[place] / g.top_k : place) * (u32)(g.a_ld / 8) + chunk;
        }

        for (int first = 0; first < steps; first += AHEAD) {
#pragma unroll
            for (int d = 0; d < AHEAD; d++) {
                const int step = first + d;
                if (step >= steps) break;
                const u32 base = shared + stage * L::STAGE;
                barrier_wait(empty + stage * 8, parity);
                const bool inside = step * STEP + chunk * 8 < g.n_in;
                const bf16* a = g.a + step * STEP;
#pragma unroll
                for (int i = 0; i < A_COPIES; i++) {
                    if (A_ROWS * i >= copied) break;
                    copy_async16(base + a_to + i * (A_ROWS * 128), a + (u64)rows[i] * 8, inside);
                }
#pragma unroll
                for (int i = 0; i < B_BLOCKS; i++) {
                    if (i * PIECES + piece >= used) break;
                    const u32 to = base + L::A_BYTES + b_to + i * (PIECES * 64 * 128);
#ifdef UNPACKED
                    const bf16* from = (const bf16*)g.blocks + (has(i, step) ? where(i, step) * 32 : 0);
#pragma unroll
                    for (int j = 0; j < 4; j++)
                        copy_async16(to + ((swizzle ^ j) << 4), from + j * 8, has(i, step));
#else
                    u32 values[4][4];
                    decode_block(ahead[d][i].words, ahead[d][i].scale, values);
#pragma unroll
                    for (int j = 0; j < 4; j++) shared_store(to + ((swizzle ^ j) << 4), values[j]);
#endif
                }
#ifndef UNPACKED
                load(ahead[d], step + AHEAD);
#endif
                publish();
            }
        }

        if (g.u) {
            const u32 base = shared + stage * L::STAGE;
            barrier_wait(empty + stage * 8, parity);
#pragma unroll
            for (int i = 0; i < A_COPIES; i++) {
                int place = walk.row + min(a_row + A_ROWS * i, walk.n_rows - 1);
                copy_async16(base + a_to + i * (A_ROWS * 128), g.u + (u64)place * 64 + chunk * 8);
            }
#pragma unroll
            for (int i = 0; i < N_TILE / A_ROWS; i++) {
                int n = min(walk.column + a_row + A_ROWS * i, g.n_out - 1);
                copy_async16(base + L::A_BYTES + a_to + i * (A_ROWS * 128),
                             g.v + ((u64)walk.expert * g.n_out + n) * 64 + chunk * 8);
            }
            publish();
        }
    }
}

// One step: 64 of the inner dimension, ACTIVE blocks of 64 rows, WIDTH columns.
template <int GROUPS, int ACTIVE, int WIDTH, bool TRANSPOSED, int M_BLOCKS, int HALF>
__device__ __forceinline__ void multiply_step(float (&acc)[M_BLOCKS][HALF], u32 a, u32 b) {
    fence_async();   // what the producers wrote, by stores and by copies, is seen by the tensor cores
    product_fence();
    constexpr u32 LEADING = TRANSPOSED ? STEP * 128 : 16, B_STEP = TRANSPOSED ? 16 * 128 : 32;
#pragma unroll
    for (int k = 0; k < STEP / 16; k++) {
        u64 right = tile_descriptor(b + k * B_STEP, LEADING, 1024);
#pragma unroll
        for (int m = 0; m < ACTIVE; m++) {
            u64 left = tile_descriptor(a + m * GROUPS * 8192 + k * 32, 16, 1024);
            product<WIDTH, TRANSPOSED>(acc[m], left, right);
        }
    }
    product_commit();
}

// All steps of a tile; the ring goes on where the last tile left it.
template <int GROUPS, int ACTIVE, int WIDTH, bool TRANSPOSED, int M_BLOCKS, int HALF>
__device__ __forceinline__ void multiply(float (&acc)[M_BLOCKS][HALF], const Problem& g, u32 shared, int group,
                                         u32& stage, u32& parity) {
    using L = Layout<GROUPS, M_BLOCKS, HALF * 2>;
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
            multiply_step<GROUPS, ACTIVE, WIDTH, TRANSPOSED>(acc, a, b);
            product_wait<1>();
        }
        release(step > 0);
    }
    if (ACTIVE > 0) product_wait<0>();
    if (g.u) {
        wait(a, b);
        if (ACTIVE > 0) {
            multiply_step<GROUPS, ACTIVE, WIDTH, false>(acc, a, b);
            product_wait<0>();
        }
        release(true);
    }
    if (lane == 0) barrier_arrive(empty + previous * 8);
}

template <int PRODUCERS, int GROUPS, int M_BLOCKS, int N_TILE, bool TRANSPOSED>
__device__ __forceinline__ void consume(const Problem& g, u32 shared, const int* offsets) {
    using L = Layout<GROUPS, M_BLOCKS, N_TILE>;
    const int consumer = threadIdx.x - PRODUCERS, group = consumer >> 7, warp = consumer >> 5;
    const u32 bias = shared + L::BIAS + group * N_TILE * 2, staged = shared + L::STAGED + warp * 16 * STAGED_LD;
    // Where columns do not fill the last tile, it may be much narrower.
    constexpr bool TAIL = N_TILE != 192;
    u32 stage = 0, parity = 0;
    Walk<L::ROWS, N_TILE> walk;
    for (int t = blockIdx.x; walk.go(t, offsets, g.n_experts, g.n_out); t += gridDim.x) {
        // Two columns of the bias each, on their way while the products run.
        const int pair_at = (consumer & 127) * 2, n = walk.column + pair_at;
        u32 pair = 0;
        if (g.bias && pair_at < N_TILE && n < g.n_out) pair = *(const u32*)(g.bias + (u64)walk.expert * g.n_out + n);
        float acc[M_BLOCKS][N_TILE / 2];
#pragma unroll
        for (int m = 0; m < M_BLOCKS; m++)
#pragma unroll
            for (int i = 0; i < N_TILE / 2; i++) acc[m][i] = 0.0f;
        // Blocks of 64 rows alternate between the warpgroups, so that all have work in a short tile.
        const int blocks = (walk.n_rows + 63) / 64, active = (blocks - group + GROUPS - 1) / GROUPS;
        const bool narrow = TAIL && g.n_out - walk.column <= 64;
        if (active == M_BLOCKS && !narrow)
            multiply<GROUPS, M_BLOCKS, N_TILE, TRANSPOSED>(acc, g, shared, group, stage, parity);
        else if (active == M_BLOCKS && TAIL)
            multiply<GROUPS, M_BLOCKS, TAIL ? 64 : N_TILE, TRANSPOSED>(acc, g, shared, group, stage, parity);
        else if (M_BLOCKS == 2 && active == 1)
            multiply<GROUPS, 1, N_TILE, TRANSPOSED>(acc, g, shared, group, stage, parity);
        else
            multiply<GROUPS, 0, N_TILE, TRANSPOSED>(acc, g, shared, group, stage, parity);
        threads_sync(1 + group, 128);
        if (pair_at < N_TILE) shared_store(bias + pair_at * 2, pair);
        threads_sync(1 + group, 128);
#pragma unroll
        for (int m = 0; m < M_BLOCKS; m++) {
            const int first = (m * GROUPS + group) * 64 + (warp & 3) * 16;
            if (m < active)
                store_block<N_TILE>(acc[m], g, staged, bias, walk.row + first, walk.n_rows - first, walk.column);
        }
    }
}

template <int PRODUCERS, int GROUPS, int M_BLOCKS, int N_TILE, bool TRANSPOSED> __device__ __forceinline__ void grouped(const Problem& g) {
    using L = Layout<GROUPS, M_BLOCKS, N_TILE>;
    extern __shared__ u8 dynamic[];
    const u32 start = shared_address(dynamic), shared = (start + 1023) & ~1023u;
    int* offsets = (int*)(dynamic + (shared - start) + L::OFFSETS);
    for (int i = threadIdx.x; i <= g.n_experts; i += blockDim.x) offsets[i] = g.offsets[i];
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(shared + L::BARRIERS + s * 8, PRODUCERS + PRODUCERS / 32);
            barrier_init(shared + L::BARRIERS + (STAGES + s) * 8, L::CONSUMER_WARPS);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x < PRODUCERS) {
        registers_lower<PRODUCERS == 256 ? 88 : GROUPS == 2 ? 104 : 80>();
        produce<PRODUCERS, GROUPS, M_BLOCKS, N_TILE, TRANSPOSED>(g, shared, offsets);
    } else {
        registers_raise<PRODUCERS == 256 ? 168 : GROUPS == 2 ? 200 : 144>();
        consume<PRODUCERS, GROUPS, M_BLOCKS, N_TILE, TRANSPOSED>(g, shared, offsets);
    }
}

#define KERNEL(name, producers, groups, m_blocks, n_tile, transposed)                                                             \
    extern "C" __global__ void __launch_bounds__(producers + groups * 128, 1)                                          \
        name(const bf16* a, const int* pairs, const u8* blocks, const u8* scales, const bf16* bias, const bf16* u,     \
             const bf16* v, const int* offsets, bf16* out, bf16* h, int a_ld, int top_k, int n_experts, int n_out,     \
             int n_in, float limit) {                                                                                  \
        Problem g = {a, pairs, blocks, scales, bias, u, v, offsets, out, h, a_ld, top_k, n_experts, n_out, n_in, limit};\
        grouped<producers, groups, m_blocks, n_tile, transposed>(g);                                                              \
    }

KERNEL(experts_forward, 256, 2, 2, 128, false)
KERNEL(experts_backward, 256, 2, 2, 128, true)
