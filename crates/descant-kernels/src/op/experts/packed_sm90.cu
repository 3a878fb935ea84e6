// Products of rows, sorted by expert, with frozen packed experts, for Hopper (sm_90a): MXFP4, with NF4 defined that,
// and with FP8 defined MXFP4 times rows in 8 bits. What differs between them is in packed_mxfp4.cuh, packed_nf4.cuh and
// packed_fp8.cuh, under the same names; the way out of a tile is in packed_out.cuh.
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
// 192 columns in an order that depends on `offsets` alone (balanced.cuh), so nothing is read back to the host. The
// warps have roles:
//
//   1 copies         rows of A, packed weights: tensor copies into a ring of stages. It walks, and says in the first
//                    stage of a tile which one it is
//   3 scale          of NF4: load the blocks' scales and write them as factors, each for one of
//   3 x 4 multiply   warpgroups with 64 columns each: while one half of a step is multiplied, a warp decodes the other
//
// Sums have one order: two runs give the same bytes.
//
// Launch: grid = multiprocessors.
// Shapes: `a` a map of bf16 [rows, n_in] in boxes of 64 x ROW_BOX with 128-byte swizzle; `u` as `a`, of bf16 [P, 64].
// MXFP4 in tiles: `w` a map of u64 [E · rows of W / 16, columns of W] in boxes of what a step takes, `s` of u64 [E ·
// rows of W / 16, columns of W / 16] likewise, scales and tables null. NF4: `w` of u8 [E · rows of W, columns of W / 2]
// in boxes of 32 x WEIGHT_BOX with 32-byte swizzle, `s` unused, scales u8 [E, rows of W, columns of W / 64], tables as
// nf4.cuh says. bias bf16 [E, n_out] or null; v bf16 [E, n_out, 64] or null, then without `u`; offsets i32 [E + 1]; out
// bf16 [P, n_out] or null; h bf16 [P, n_out / 2] or null. n_in and n_out are multiples of 32, E at most 256.
#include "step.cuh"
#if defined(NF4)
#include "packed_nf4.cuh"
#elif defined(FP8)
#include "packed_fp8.cuh"
static_assert(FP8 == 1, "it is defined or not");
#else
#include "packed_mxfp4.cuh"
#endif
#include "packed_out.cuh"

static_assert(SHARED == WALK + WALK_BYTES + 1024, "what lies there, 1024-aligned");

// To those that multiply, which tile begins in a stage; without rows, there is none left. One thread, before the
// barrier of the stage.
__device__ __forceinline__ void announce(u32 shared, int stage, const Tile& tile) {
    const u32 all[4] = {(u32)tile.expert, (u32)tile.row, (u32)tile.n_rows, (u32)tile.column};
    shared_store(shared + TILES + stage * 16, all);
}
// A warp: rows of A and packed weights.
template <bool TRANSPOSED>
__device__ __forceinline__ void copy(const Places& g, const TensorMap& a, const TensorMap& w, const TensorMap& s,
                                     const TensorMap& u, u32 shared) {
    const int steps = steps_of(g);
    Ring<STAGES> ring(1);
    Tiles tiles;
    while (tiles.next(shared + WALK, g.n_experts, g.n_out)) {
        const int boxes = (tiles.n_rows + ROW_BOX - 1) / ROW_BOX;
        for (int step = 0; step < steps + (g.v != nullptr); step++) {
            barrier_wait(shared + EMPTY + ring.stage * 8, ring.parity);
            const u32 base = shared + ring.stage * STAGE, full = shared + FULL + ring.stage * 8;
            const bool low_rank = step == steps;
            if (is_elected()) {
                if (step == 0) announce(shared, ring.stage, tiles);
                barrier_expect(full, boxes * ROW_BOX * 128 + (low_rank ? 0 : COPIED_BYTES));
                for (int i = 0; i < boxes; i++)
                    tensor_copy(base + i * ROW_BOX * 128, low_rank ? u : a, low_rank ? 0 : step * SUM_STEP,
                                tiles.row + i * ROW_BOX, full);
                if (!low_rank) copy_packed<TRANSPOSED>(g, w, s, tiles, step, base + A_BYTES, full);
            }
            __syncwarp();
            ring.next();
        }
    }
    barrier_wait(shared + EMPTY + ring.stage * 8, ring.parity);
    if (is_elected()) {
        announce(shared, ring.stage, {});
        barrier_expect(shared + FULL + ring.stage * 8, 0);
    }
}
// A tile of at most N rows: all steps, and the way out. The ring continues there.
template <int N, bool TRANSPOSED>
__device__ __forceinline__ void multiply(const Places& g, const Tile& tile, u32 shared, int group, Ring<STAGES>& ring) {
    const int lane = threadIdx.x & 31, steps = steps_of(g);
    const u64 matrix = (u64)tile.expert * g.n_out;
    const u32 bias = bias_of<TRANSPOSED>(g, tile, group);
    float acc[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) acc[i] = 0.0f;

    // Fragments of the halves of a step: while one is multiplied, the other is decoded.
    u32 x[2][2][4];
    Words words;
    begin_tile<TRANSPOSED>(g, tile, shared, group, words);
    auto issue = [&](int half, auto is_low_rank) {
        products_begin();
        const u64 rows =
            operand(shared + ring.stage * STAGE) + half * 4;  // counts in 16 bytes, of which a product has 2
#pragma unroll
        for (int i = 0; i < 2; i++)
            if constexpr (decltype(is_low_rank)::value)
                product<N>(acc, x[half][i], rows + i * 2);
            else
                product_of_weights<N>(acc, x[half][i], rows + i * 2);
        products_commit();
    };
    auto multiply = [&](int half) { issue(half, Bool<false>()); };
    auto fill = [&](int half) {
        const u32 packed = shared + ring.stage * STAGE + A_BYTES;
        decode<TRANSPOSED>(shared + TABLES, packed, group, half, words, x[half]);
    };
    auto enter = [&]() { barrier_wait(shared + FULL + ring.stage * 8, ring.parity); };
    auto leave = [&](int stage) {
        if (lane == 0) barrier_arrive(shared + EMPTY + stage * 8);
    };
    fill(0);  // of the stage that said which tile
#pragma unroll 1
    for (int s = 1; s < steps; s++) {
        multiply(0);
        fill(1);
        products_wait<0>();
        multiply(1);
        ring.next();
        enter();
        fill(0);
        products_wait<0>();
        leave(ring.stage ? ring.stage - 1 : STAGES - 1);
    }
    multiply(0);
    begin_last_step(g, words);
    fill(1);
    products_wait<0>();
    multiply(1);
    u32 v[16];  // on their way while the last products are at work
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int from = tile.column + group * 64 + column_of_fragment<TRANSPOSED>(i % 2);
        const bf16* at = g.v + (matrix + from) * 64 + i / 4 * 16 + i / 2 % 2 * 8 + (lane & 3) * 2;
        v[i] = g.v && from < g.n_out ? *(const u32*)at : 0;
    }
    products_wait<0>();
    leave(ring.stage);
    ring.next();
    scale_sums<N>(acc, shared, group);
    if (g.v) {
#pragma unroll
        for (int i = 0; i < 16; i++) x[i / 8][i / 4 % 2][i % 4] = pair_of_v(v[i], i % 2, words);
        enter();
        issue(0, Bool<true>());
        issue(1, Bool<true>());
        products_wait<0>();
        leave(ring.stage);
        ring.next();
    }

    const ColumnFactors of_columns(words);
    if (!TRANSPOSED && (g.h || g.h8))
        way_out<N, TRANSPOSED, true>(g, tile, acc, bias, of_columns, shared, group);
    else
        way_out<N, TRANSPOSED, false>(g, tile, acc, bias, of_columns, shared, group);
}

template <bool TRANSPOSED> __device__ __forceinline__ void consume(const Places& g, u32 shared, int group) {
    Ring<STAGES> ring;
    while (true) {
        barrier_wait(shared + FULL + ring.stage * 8, ring.parity);
        const uint4 all = shared_load16(shared + TILES + ring.stage * 16);
        const Tile tile = {(int)all.x, (int)all.y, (int)all.z, (int)all.w};
        if (tile.n_rows == 0) return;
        // A tile costs what its width does, down to that at which decoding is all the work.
        if (tile.n_rows <= 64)
            multiply<64, TRANSPOSED>(g, tile, shared, group, ring);
        else if (FINE_WIDTHS && tile.n_rows <= 80)
            multiply<80, TRANSPOSED>(g, tile, shared, group, ring);
        else if (tile.n_rows <= 96)
            multiply<96, TRANSPOSED>(g, tile, shared, group, ring);
        else if (FINE_WIDTHS && tile.n_rows <= 112)
            multiply<112, TRANSPOSED>(g, tile, shared, group, ring);
        else if (tile.n_rows <= 128)
            multiply<128, TRANSPOSED>(g, tile, shared, group, ring);
        else if (FINE_WIDTHS && tile.n_rows <= 144)
            multiply<144, TRANSPOSED>(g, tile, shared, group, ring);
        else if (tile.n_rows <= 160)
            multiply<160, TRANSPOSED>(g, tile, shared, group, ring);
        else
            multiply<192, TRANSPOSED>(g, tile, shared, group, ring);
    }
}

template <bool TRANSPOSED>
__device__ __forceinline__ void grouped(const Places& g, const TensorMap& a, const TensorMap& w, const TensorMap& s,
                                        const TensorMap& u, const int* expert_offsets) {
    extern __shared__ u8 dynamic[];
    const u32 start = shared_address(dynamic), shared = tile_aligned(start);
    const int t = threadIdx.x, group = warpgroup();
    fill_tables(g.tables, shared + TABLES);
    if (t == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(shared + FULL + i * 8, 1 + SCALE_WARPS);  // the copies, and each warp that scales
            barrier_init(shared + EMPTY + i * 8, GROUPS * 4);  // each warp that multiplies
        }
        barriers_made();
    }
    follow_closely();
    prepare_walk<ROWS>((int*)(dynamic + (shared - start) + WALK), expert_offsets, g.n_experts);
    __syncthreads();
    if (group == 0) {
        registers_lower<COPY_REGISTERS>();
        const int warp = warp_of_group();
        if (warp == 0) copy<TRANSPOSED>(g, a, w, s, u, shared);
        if (SCALE_WARPS && warp > 0) scale<TRANSPOSED>(g, shared, warp - 1);
    } else {
        registers_raise<REGISTERS>();
        consume<TRANSPOSED>(g, shared, group - 1);
    }
}

#define KERNEL(name, transposed)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) name(                                                     \
        const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap w, const __grid_constant__ TensorMap s, \
        const __grid_constant__ TensorMap u, const u8* scales, const float* tables, const bf16* bias, const bf16* v,   \
        const int* offsets, bf16* out, bf16* h, int n_experts, int n_out, int n_in, float limit MORE_PARAMETERS) {     \
        Places g = {scales, tables, bias, v, out, h, n_experts, n_out, n_in, limit, MORE_ARGUMENTS};                   \
        grouped<transposed>(g, a, w, s, u, offsets);                                                                   \
    }

// One at a time, so that two threads share the time that the compiler takes.
#if BACKWARD
KERNEL(experts_backward, true)
#else
KERNEL(experts_forward, false)
#endif
