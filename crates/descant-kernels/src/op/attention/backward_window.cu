// Backward of attention with a window in one pass, for every card since Ampere: every score is computed once.
//
// A block goes along a strip of one key head's positions, STEP_ROWS stacked rows a step, past the few blocks of 32 keys
// that they see. A block of keys has a pair of warps: one computes P and adds to dV, the other makes dS of P and adds
// to dK; both keep their sums, and their keys or values, in registers until the window has passed, and then take the
// block that is PAIRS further on. P and dS go through shared memory, in the same place. Two more warps multiply dS by
// K, which gives dQ whole. So nothing is added across blocks, and a strip costs no more than what is seen beyond its
// ends: scores of keys before it for dQ, of queries behind it for dK and dV.
//
// The order of each sum depends on positions alone, so no bit depends on how strips are cut. dS is made of P as dV
// takes it, rounded to bf16.
#include "attention.cuh"
#include "barrier.cuh"

constexpr int KEYS = STRIP_KEYS;
constexpr int PAIRS = 5;  // blocks of keys that the positions of one see
constexpr int STEP_POSITIONS = STEP_ROWS / GROUP, BLOCK_STEPS = KEYS / STEP_POSITIONS;
constexpr int Q_STAGES = 5, S_STAGES = 3;
constexpr int AHEAD = S_STAGES;  // steps, by which rows are brought before
constexpr u32 Q_BYTES = STEP_ROWS * ROW_BYTES, K_BYTES = KEYS * ROW_BYTES, S_BYTES = KEYS * STEP_ROWS * 2;
constexpr int PAIR_THREADS = 64 * PAIRS, ROW_THREADS = STEP_ROWS * CHUNKS;
static_assert(HEAD_DIM == 64 && KEYS == 32 && STEP_ROWS == 32 && STEP_ROWS % GROUP == 0, "whole positions a step");
// Keys have one place: the next ones are brought AHEAD steps before, when dQ is at most its stages behind.
static_assert(BLOCK_STEPS > AHEAD + S_STAGES, "the last ones have been taken by then");
static_assert(THREADS == PAIR_THREADS + 64, "two warps a block of keys, and two for the queries");
static_assert(ROW_THREADS == PAIR_THREADS - 64, "of the pairs, all but the last two warps bring rows");
static_assert(MAX_WINDOW <= (PAIRS - 1) * KEYS, "what a block of positions sees");
static_assert(PAIRS * S_STAGES * S_BYTES >= (PAIRS - 1) * K_BYTES, "the first blocks of keys");
static_assert(SHARED == PAIRS * S_STAGES * S_BYTES + (Q_STAGES * 2 + AHEAD) * Q_BYTES + K_BYTES,
              "scores; q, dout and out of the rows; keys");

// Of a step's two halves, as many are one text as there are registers for.
#if __CUDA_ARCH__ == 900
constexpr int P_HALVES = 2, DS_HALVES = 2;
#elif __CUDA_ARCH__ / 100 == 10
constexpr int P_HALVES = 1, DS_HALVES = 1;
#else
constexpr int P_HALVES = 2, DS_HALVES = 1;
#endif

// A strip's blocks of keys, and the steps of positions that see them. Each kind of warp reads it for itself, so that
// nothing of it has a register in the others.
struct Strip {
    Tile tile;
    int first, end, steps;
};
__device__ __forceinline__ Strip read_strip(const int* strips) {
    Strip of;
    of.tile = read_tile((const volatile int*)strips, blockIdx.y);
    const Tile& tile = of.tile;
    of.first = tile.first / KEYS;
    of.end = min(tile.first + tile.split, tile.key_len + KEYS - 1) / KEYS;
    const int seen = min((of.end + PAIRS - 1) * KEYS, tile.key_len) - tile.first;
    of.steps = (seen + STEP_POSITIONS - 1) / STEP_POSITIONS;
    return of;
}

struct Place {  // in a ring
    int stage = 0;
    u32 parity = 0;
    template <int N> __device__ __forceinline__ void next() {
        if (++stage == N) stage = 0, parity ^= 1;
    }
};

// Where a pair of rows lies in a key's line of P and dS, which has 64 bytes.
__device__ __forceinline__ u32 line(int key, int chunk) { return key * 64 + ((chunk ^ ((key >> 1) & 3)) << 4); }

// A block of keys or values as the left operand; zeros where there is none.
__device__ __forceinline__ void load_block(u32 (&x)[2][STEPS][4], const bf16* from, int ld, int first, int end,
                                           int lane) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int key = first + m * 16 + h * 8 + lane / 4;
            const bool valid = key >= 0 && key < end;
            const u32* row = reinterpret_cast<const u32*>(from + (valid ? (u64)key * ld : 0)) + (lane & 3);
#pragma unroll
            for (int i = 0; i < 2 * STEPS; i++) x[m][i / 2][i % 2 * 2 + h] = valid ? row[i * 4] : 0;
        }
}
// Its gradient.
__device__ __forceinline__ void store_block(bf16* to, int ld, int first, int end, const float (&x)[2][CHUNKS][4],
                                            float scale, int lane) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int key = first + m * 16 + h * 8 + lane / 4;
            if (key >= end) continue;
            u32* row = reinterpret_cast<u32*>(to + (u64)key * ld) + (lane & 3);
#pragma unroll
            for (int n = 0; n < CHUNKS; n++) row[n * 4] = to_bf16x2(x[m][n][2 * h] * scale, x[m][n][2 * h + 1] * scale);
        }
}
// Keys by 16 rows: left times the rows of a tile, from `onto`.
__device__ __forceinline__ void scores(float (&s)[2][2][4], const u32 (&left)[2][STEPS][4], u32 rows,
                                       const float (&onto)[2][4], int lane) {
    u32 b[STEPS][4];
#pragma unroll
    for (int d = 0; d < STEPS; d++) load_b(b[d], rows, 0, d, lane);
#pragma unroll
    for (int d = 0; d < STEPS; d++)
#pragma unroll
        for (int m = 0; m < 2; m++) {
            multiply16_onto(s[m][0], left[m][d], b[d][0], b[d][1], d == 0 ? onto[0] : s[m][0]);
            multiply16_onto(s[m][1], left[m][d], b[d][2], b[d][3], d == 0 ? onto[1] : s[m][1]);
        }
}
// Adds P or dS, keys by 16 rows, times the rows of a tile.
__device__ __forceinline__ void add_rows(float (&acc)[2][CHUNKS][4], const u32 (&words)[2][4], u32 rows, int lane) {
    u32 b[CHUNKS / 2][4];
#pragma unroll
    for (int c = 0; c < CHUNKS / 2; c++) load_b_transposed(b[c], rows, 0, c, lane);
#pragma unroll
    for (int c = 0; c < CHUNKS / 2; c++)
#pragma unroll
        for (int m = 0; m < 2; m++) {
            multiply16(acc[m][2 * c], words[m], b[c][0], b[c][1]);
            multiply16(acc[m][2 * c + 1], words[m], b[c][2], b[c][3]);
        }
}

// q [*, q_ld], k, v [*, kv_ld], out [*, out_ld], dout [*, dout_ld], lse f32 [heads, n_rows] as the forward's; dq
// [*, dq_ld], dk, dv [*, dkv_ld], every row of the segments is written. strips: struct Tile each, `first` a multiple of
// KEYS, `split` the strip's positions, another one. Grid (key heads, strips).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_backward_window(const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
                              const bf16* __restrict__ out, const bf16* __restrict__ dout,
                              const float* __restrict__ lse, bf16* __restrict__ dq, bf16* __restrict__ dk,
                              bf16* __restrict__ dv, const int* __restrict__ strips, int q_ld, int kv_ld, int out_ld,
                              int dout_ld, int dq_ld, int dkv_ld, int n_rows, int window, float scale) {
    extern __shared__ __align__(1024) u8 shared[];
    __shared__ __align__(8) u64 barriers[3 * Q_STAGES + 2 * S_STAGES + PAIRS * S_STAGES];
    __shared__ __align__(16) float lses[Q_STAGES][STEP_ROWS], less[Q_STAGES][STEP_ROWS];  // less: minus delta
    const u32 q_tiles = shared_address(shared), out_tiles = q_tiles + Q_STAGES * 2 * Q_BYTES,
              k_tile = out_tiles + AHEAD * Q_BYTES, s_tiles = k_tile + K_BYTES;
    const u32 full = shared_address(barriers), has_delta = full + 8 * Q_STAGES, empty = has_delta + 8 * Q_STAGES,
              has_ds = empty + 8 * Q_STAGES, is_free = has_ds + 8 * S_STAGES, has_p = is_free + 8 * S_STAGES;
    if (threadIdx.x == 0) {
        for (int i = 0; i < Q_STAGES; i++) {
            barrier_init(full + 8 * i, PAIR_THREADS);
            barrier_init(has_delta + 8 * i, ROW_THREADS / 32);
            barrier_init(empty + 8 * i, 2 * PAIRS);
        }
        for (int i = 0; i < S_STAGES; i++) {
            barrier_init(has_ds + 8 * i, PAIRS);
            barrier_init(is_free + 8 * i, 2);
            for (int pair = 0; pair < PAIRS; pair++) barrier_init(has_p + 8 * (i * PAIRS + pair), 1);
        }
    }
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, kv = blockIdx.x;

    auto bring_keys = [&](const Strip& strip, int block, u32 to, int thread, int threads) {
        const Tile& tile = strip.tile;
        for (int at = thread; at < KEYS * CHUNKS; at += threads) {
            const int key = block * KEYS + at / CHUNKS, chunk = at % CHUNKS;
            const bool valid = key >= 0 && key < tile.key_len;
            copy_async16(to + swizzled(at / CHUNKS, chunk),
                         k + (u64)(tile.key_start + (valid ? key : 0)) * kv_ld + kv * HEAD_DIM + chunk * 8, valid);
        }
    };
    auto pair_of = [&](auto side) {
        constexpr bool of_values = decltype(side)::value;
        const int pair = of_values ? warp : warp - PAIRS;
        const u32 words_at = s_tiles + pair * S_BYTES + line(lane / 4, 0) + (lane & 3) * 4;
        const u32 passed = has_p + 8 * pair;
        const float factor = scale * LOG2E;
        Place row, score;
        // This thread's part of what passes, a step's positions apart: a chunk of a row of q, dout and out, or its lse,
        // or of keys.
        const bool of_rows = of_values || warp < ROW_THREADS / 32;
        const int part = of_rows ? threadIdx.x / CHUNKS : lane, chunk = threadIdx.x % CHUNKS;
        const u32 part_at = swizzled(part, chunk);
        int brought, to_bring;  // the next step's row of all, or key; steps that are left
        int begin, end;
        {
            const Strip strip = read_strip(strips);
            const Tile& tile = strip.tile;
            begin = tile.query_start, end = begin + tile.query_len;
            brought = begin + tile.first - (tile.key_len - tile.query_len) + part / GROUP;
            to_bring = strip.steps;
        }
        auto bring = [&](int stage, u32 parity, int out_stage) {
            if (to_bring-- <= 0) return;
            barrier_poll(empty + 8 * stage, parity);
            const bool valid = brought >= begin && brought < end;
            const u32 row = valid ? brought : 0;
            if (of_rows) {
                const u32 column = kv * (GROUP * HEAD_DIM) + part % GROUP * HEAD_DIM + chunk * 8;
                const u32 to = q_tiles + stage * (2 * Q_BYTES) + part_at;
                copy_async16(to, q + ((u64)row * (u32)q_ld + column), valid);
                copy_async16(to + Q_BYTES, dout + ((u64)row * (u32)dout_ld + column), valid);
                copy_async16(out_tiles + out_stage * Q_BYTES + part_at, out + ((u64)row * (u32)out_ld + column), valid);
            } else if (warp == ROW_THREADS / 32) {
                copy_async4(shared_address(&lses[stage][part]), lse + (u64)(kv * GROUP + part % GROUP) * n_rows + row,
                            valid);
            } else {
                const Strip strip = read_strip(strips);
                const int step = strip.steps - 1 - to_bring;
                if (step % BLOCK_STEPS == 0) bring_keys(strip, strip.first + step / BLOCK_STEPS, k_tile, lane, 32);
            }
            barrier_arrive_copies(full + 8 * stage);
            brought += STEP_POSITIONS;
        };
        // Of a step whose rows are here.
        auto compute_delta = [&](int stage, u32 parity, int out_stage) {
            if (!of_rows) return;
            barrier_poll(full + 8 * stage, parity);
            float x[8];
            unpack8(shared_load16(q_tiles + stage * (2 * Q_BYTES) + Q_BYTES + part_at), x);
            float sum = dot8(x, shared_load16(out_tiles + out_stage * Q_BYTES + part_at));
#pragma unroll
            for (int mask = 1; mask < CHUNKS; mask <<= 1) sum += __shfl_xor_sync(FULL_WARP, sum, mask);
            if (chunk == 0) less[stage][part] = -sum;
            barrier_arrive_warp(has_delta + 8 * stage);
        };
        for (int i = 0; i < AHEAD; i++) bring(i, 1, i);
        compute_delta(0, 0, 0);
        u32 left[2][STEPS][4];
        float acc[2][CHUNKS][4];
        // The first of the blocks from `first` + 1 - PAIRS on that is this pair's.
        int block, from = 0;
        {
            const Strip strip = read_strip(strips);
            const int low = strip.first + 1 - PAIRS;
            block = low + (pair + (strip.first / PAIRS + 1) * PAIRS - low) % PAIRS;
        }
        // A block's steps are those until it is out of the window.
        for (;; block += PAIRS) {
            int relative, n, n_works;
            bool gives;
            {
                const Strip strip = read_strip(strips);
                const Tile& tile = strip.tile;
                if (from >= strip.steps) break;
                load_block(left, (of_values ? k : v) + (u64)tile.key_start * kv_ld + kv * HEAD_DIM, kv_ld, block * KEYS,
                           tile.key_len, lane);
                const int until = min((block + PAIRS - strip.first) * BLOCK_STEPS, strip.steps);
                gives = block >= strip.first && block < strip.end;
                n = until - from;
                n_works = gives ? n : min((strip.end - strip.first) * BLOCK_STEPS, until) - from;
                relative =
                    (strip.first - block) * KEYS + from * STEP_POSITIONS;  // the first position less the first key
                from = until;
            }
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int c = 0; c < CHUNKS; c++)
#pragma unroll
                    for (int i = 0; i < 4; i++) acc[m][c][i] = 0.0f;
#pragma unroll 1
            for (int step = 0; step < n; step++, relative += STEP_POSITIONS) {
                const bool works = step < n_works;
                {
                    const bool wraps = row.stage >= Q_STAGES - AHEAD;
                    bring(row.stage + (wraps ? AHEAD - Q_STAGES : AHEAD), row.parity ^ !wraps, score.stage);
                }
                const u32 q_tile = q_tiles + row.stage * 2 * Q_BYTES;  // dout is the rows behind it
                const u32 at = words_at + score.stage * (PAIRS * S_BYTES);
                // Who has delta has the rows: each warp that makes it has waited for them.
                barrier_poll((of_values ? is_free + 8 * score.stage : has_delta + 8 * row.stage),
                             of_values ? score.parity ^ 1 : row.parity);
                if constexpr (!of_values) barrier_poll(passed + score.stage * (8 * PAIRS), score.parity);
#pragma unroll(of_values ? P_HALVES : DS_HALVES)
                for (int half = 0; half < 2; half++) {
                    if (!works) break;
                    const u32 rows = q_tile + half * (16 * ROW_BYTES);
                    auto word = [&](int m, int i) {
                        return (at ^ (half * 32 + (i & 2) * 8)) + (m * 16 + i % 2 * 8) * 64;
                    };
                    float s[2][2][4];
                    u32 words[2][4];  // of 16 keys, as a left operand
                    if constexpr (of_values) {
                        const float zero[2][4] = {};
                        scores(s, left, rows, zero, lane);
#pragma unroll
                        for (int n = 0; n < 2; n++) {
                            const float2 x =
                                *reinterpret_cast<const float2*>(&lses[row.stage][half * 16 + n * 8 + 2 * (lane & 3)]);
#pragma unroll
                            for (int m = 0; m < 2; m++)
#pragma unroll
                                for (int i = 0; i < 4; i++)
                                    s[m][n][i] = exp2_fast(s[m][n][i] * factor - (i & 1 ? x.y : x.x));
                        }
                        // Only the diagonal and the window's edge hide keys from some rows.
                        if (relative < KEYS - 1 || relative + STEP_POSITIONS - 1 >= window || block < 0) {
#pragma unroll
                            for (int n = 0; n < 2; n++)
#pragma unroll
                                for (int m = 0; m < 2; m++)
#pragma unroll
                                    for (int i = 0; i < 4; i++) {
                                        const int key = m * 16 + i / 2 * 8 + lane / 4,
                                                  position =
                                                      relative + (half * 16 + n * 8 + 2 * (lane & 3) + i % 2) / GROUP;
                                        if ((u32)(position - key) >= (u32)window || block < 0) s[m][n][i] = 0.0f;
                                    }
                        }
#pragma unroll
                        for (int m = 0; m < 2; m++)
#pragma unroll
                            for (int i = 0; i < 4; i++) {
                                words[m][i] = to_bf16x2(s[m][i / 2][2 * (i & 1)], s[m][i / 2][2 * (i & 1) + 1]);
                                shared_store(word(m, i), words[m][i]);
                            }
                        if (half == 1) barrier_arrive_warp(passed + score.stage * (8 * PAIRS));
                        if (gives) add_rows(acc, words, rows + Q_BYTES, lane);
                    } else {
                        float onto[2][4];
                        u32 p[2][4];
#pragma unroll
                        for (int m = 0; m < 2; m++)
#pragma unroll
                            for (int i = 0; i < 4; i++) p[m][i] = shared_load(word(m, i));
#pragma unroll
                        for (int n = 0; n < 2; n++) {
                            const float2 x =
                                *reinterpret_cast<const float2*>(&less[row.stage][half * 16 + n * 8 + 2 * (lane & 3)]);
                            onto[n][0] = onto[n][2] = x.x, onto[n][1] = onto[n][3] = x.y;
                        }
                        scores(s, left, rows + Q_BYTES, onto, lane);
#pragma unroll
                        for (int m = 0; m < 2; m++)
#pragma unroll
                            for (int i = 0; i < 4; i++) {
                                const float* x = s[m][i / 2] + 2 * (i & 1);
                                words[m][i] = to_bf16x2(low_float(p[m][i]) * x[0], high_float(p[m][i]) * x[1]);
                                shared_store(word(m, i), words[m][i]);
                            }
                        if (half == 1) barrier_arrive_warp(has_ds + 8 * score.stage);
                        if (gives) add_rows(acc, words, rows, lane);
                    }
                }
                if (!works)
                    barrier_arrive_warp(of_values ? passed + score.stage * (8 * PAIRS) : has_ds + 8 * score.stage);
                if (to_bring + AHEAD > 0) {
                    const bool wraps = row.stage == Q_STAGES - 1;
                    compute_delta(wraps ? 0 : row.stage + 1, row.parity ^ wraps,
                                  score.stage == S_STAGES - 1 ? 0 : score.stage + 1);
                }
                barrier_arrive_warp(empty + 8 * row.stage);
                row.next<Q_STAGES>();
                score.next<S_STAGES>();
            }
            if (!gives) continue;
            const Tile tile = read_tile((const volatile int*)strips, blockIdx.y);
            store_block((of_values ? dv : dk) + (u64)tile.key_start * dkv_ld + kv * HEAD_DIM, dkv_ld, block * KEYS,
                        tile.key_len, acc, of_values ? 1.0f : scale, lane);
        }
    };
    if (warp < 2 * PAIRS) {
        __syncthreads();
        if (warp < PAIRS)
            pair_of(Bool<true>{});
        else
            pair_of(Bool<false>{});
        return;
    }
    const Strip strip = read_strip(strips);
    const Tile& tile = strip.tile;
    const int half = warp - 2 * PAIRS, thread = threadIdx.x - PAIR_THREADS;
    // Keys as a right operand, 32 features of each pair's block.
    u32 keys[PAIRS][2][2][4] = {};
    auto take_keys = [&](int block, u32 from) {
#pragma unroll
        for (int t = 0; t < 2; t++)
#pragma unroll
            for (int c = 0; c < 2; c++) {
                u32 x[4];
                load_b_transposed(x, from, t * 16, half * 2 + c, lane);
#pragma unroll
                for (int pair = 0; pair < PAIRS; pair++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        keys[pair][t][c][i] = (block + PAIRS) % PAIRS == pair ? x[i] : keys[pair][t][c][i];
            }
    };
    for (int i = 1; i < PAIRS; i++) bring_keys(strip, strip.first - i, s_tiles + (i - 1) * K_BYTES, thread, 64);
    copy_commit();
    copy_wait<0>();
    threads_sync(1, 64);
    for (int i = 1; i < PAIRS; i++) take_keys(strip.first - i, s_tiles + (i - 1) * K_BYTES);
    __syncthreads();
    const int n = min((strip.end - strip.first) * BLOCK_STEPS, strip.steps);
    const u32 ds_at = s_tiles + line((lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
    bf16* const to = dq + kv * (GROUP * HEAD_DIM) + half * 32 + (lane & 3) * 8;
    const int end = tile.query_start + tile.query_len;
    int query0 = tile.query_start + tile.first - (tile.key_len - tile.query_len);
    Place score;
    for (int step = 0; step < strip.steps; step++, query0 += STEP_POSITIONS) {
        barrier_poll(has_ds + 8 * score.stage, score.parity);
        // Who gave dS has waited for what the step brought.
        if (step < n && step % BLOCK_STEPS == 0) take_keys(strip.first + step / BLOCK_STEPS, k_tile);
        if (step >= n) {
            barrier_arrive_warp(is_free + 8 * score.stage);
            score.next<S_STAGES>();
            continue;
        }
        float acc[2][4][4] = {};
        const u32 ds = ds_at + score.stage * (PAIRS * S_BYTES);
#pragma unroll
        for (int pair = 0; pair < PAIRS; pair++)
#pragma unroll
            for (int t = 0; t < 2; t++) {
                u32 a[2][4];
#pragma unroll
                for (int m = 0; m < 2; m++)
                    load_matrices_transposed(a[m], (ds ^ (m << 5)) + pair * S_BYTES + t * 16 * 64);
#pragma unroll
                for (int c = 0; c < 2; c++)
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        multiply16(acc[m][2 * c], a[m], keys[pair][t][c][0], keys[pair][t][c][1]);
                        multiply16(acc[m][2 * c + 1], a[m], keys[pair][t][c][2], keys[pair][t][c][3]);
                    }
            }
        barrier_arrive_warp(is_free + 8 * score.stage);
        score.next<S_STAGES>();
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                // The four lanes of a row exchange pairs of numbers for 16 bytes each.
                u32 x[4];
#pragma unroll
                for (int n = 0; n < 4; n++) x[n] = to_bf16x2(acc[m][n][2 * h] * scale, acc[m][n][2 * h + 1] * scale);
#pragma unroll
                for (int bit = 1; bit < 4; bit <<= 1)
#pragma unroll
                    for (int n = 0; n < 4; n++) {
                        if (n & bit) continue;
                        const bool high = lane & bit;
                        const u32 y = __shfl_xor_sync(FULL_WARP, high ? x[n] : x[n | bit], bit);
                        if (high)
                            x[n] = y;
                        else
                            x[n | bit] = y;
                    }
                const int r = m * 16 + h * 8 + lane / 4, query = query0 + r / GROUP;
                if (query >= tile.query_start && query < end)
                    store16(to + (u64)query * dq_ld + r % GROUP * HEAD_DIM, make_uint4(x[0], x[1], x[2], x[3]));
            }
    }
}
