// Forward of attention with sinks, causal and windowed, for every card since Ampere.
//
// A block owns 128 stacked rows (128 / GROUP positions of the heads of one key head) and walks over the keys they
// see in steps of 64 with an online softmax; scores stay in registers. Dao 2023, "FlashAttention-2". The sink enters
// at the end, as one more score without a value, and into the stored log-sum-exp, so that the backward needs not
// know of it. Work is O(window) a query where there is a window.
#include "attention.cuh"

constexpr int ROWS = QUERY_ROWS, KEYS = 64;
constexpr int POSITIONS = ROWS / GROUP;
static_assert(THREADS == ROWS, "a warp has 32 rows");
static_assert(SHARED_OF_FEATURE == (ROWS + 4 * KEYS) * 2, "queries, and two stages of keys and values");

// out[t, h] = softmax([q . k * scale, sink_h])[keys] v; lse[h, t] = log2 of the denominator, the sink's share in it.
//
// q [*, q_ld], head h at column h * HEAD_DIM; k, v [*, kv_ld], head at column kv * HEAD_DIM; sinks f32 [heads];
// out [*, out_ld]; lse f32 [heads, n_rows]; tiles: struct Tile each, `first` a multiple of POSITIONS.
// window: keys a query sees with its own, 0 for all.
// Grid (key heads, tiles).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_forward(const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
                      const float* __restrict__ sinks, bf16* __restrict__ out, float* __restrict__ lse,
                      const int* __restrict__ tiles, int q_ld, int kv_ld, int out_ld, int n_rows, int window,
                      float scale) {
    extern __shared__ __align__(1024) u8 shared[];
    const u32 q_tile = shared_address(shared), kv_tiles = q_tile + ROWS * ROW_BYTES;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row0 = warp * 32;
    const int kv = blockIdx.x;
    const Tile tile = read_tile(tiles, blockIdx.y);
    const int offset = tile.key_len - tile.query_len;
    const int last = min(tile.first + POSITIONS, tile.query_len) - 1 + offset;  // position of the last query
    const int low = window > 0 ? max(0, tile.first + offset - window + 1) : 0;
    const int steps = (last + 1 - low + KEYS - 1) / KEYS;
    q += (u64)tile.query_start * q_ld + kv * GROUP * HEAD_DIM;
    k += (u64)tile.key_start * kv_ld + kv * HEAD_DIM;
    v += (u64)tile.key_start * kv_ld + kv * HEAD_DIM;
    out += (u64)tile.query_start * out_ld + kv * GROUP * HEAD_DIM;
    const float factor = scale * LOG2E;

    load_queries<ROWS, THREADS>(q_tile, q, q_ld, tile.first, tile.query_len, threadIdx.x);
    load_keys<KEYS, THREADS>(kv_tiles, k, kv_ld, low, last + 1, threadIdx.x);
    load_keys<KEYS, THREADS>(kv_tiles + KEYS * ROW_BYTES, v, kv_ld, low, last + 1, threadIdx.x);
    copy_commit();
    copy_wait<0>();
    __syncthreads();

    u32 qf[2][STEPS][4];
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int s = 0; s < STEPS; s++) load_a(qf[m][s], q_tile, row0 + m * 16, s, lane);
    float o[2][CHUNKS][4] = {}, top[2][2], sum[2][2] = {};
    int position[2][2];
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            top[m][h] = -INFINITY_F;
            position[m][h] = tile.first + offset + (row0 + m * 16 + h * 8 + lane / 4) / GROUP;
        }
    // A warp without a query (decoding) only helps to load.
    const bool idle = tile.first + row0 / GROUP >= tile.query_len;

    for (int step = 0; step < steps; step++) {
        const int key0 = low + step * KEYS;
        const u32 k_tile = kv_tiles + (step & 1) * 2 * KEYS * ROW_BYTES, v_tile = k_tile + KEYS * ROW_BYTES;
        if (step > 0) {
            copy_wait<0>();
            __syncthreads();
        }
        if (step + 1 < steps) {
            const u32 next = kv_tiles + ((step + 1) & 1) * 2 * KEYS * ROW_BYTES;
            load_keys<KEYS, THREADS>(next, k, kv_ld, key0 + KEYS, last + 1, threadIdx.x);
            load_keys<KEYS, THREADS>(next + KEYS * ROW_BYTES, v, kv_ld, key0 + KEYS, last + 1, threadIdx.x);
        }
        copy_commit();
        if (idle) continue;

        float s[2][KEYS / 8][4] = {};
#pragma unroll
        for (int step_d = 0; step_d < STEPS; step_d++)
#pragma unroll
            for (int n = 0; n < KEYS / 16; n++) {
                u32 b[4];
                load_b(b, k_tile, n * 16, step_d, lane);
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    multiply16(s[m][2 * n], qf[m][step_d], b[0], b[1]);
                    multiply16(s[m][2 * n + 1], qf[m][step_d], b[2], b[3]);
                }
            }
        // Only the diagonal and the window's edge hide keys from some rows.
        const bool mask = key0 + KEYS - 1 > tile.first + offset || (window > 0 && key0 <= last - window);
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                if (mask) {
                    const int high = position[m][h] - key0, low = window > 0 ? high - window : -1;
#pragma unroll
                    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            const int key = n * 8 + 2 * (lane & 3) + e;
                            if (key > high || key <= low) s[m][n][2 * h + e] = -INFINITY_F;
                        }
                }
                float best = top[m][h];
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++) best = fmaxf(best, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
                best = quad_max(best);
                // A row that saw nothing yet keeps zeros: minus infinity less itself is not a number.
                const float shift = best == -INFINITY_F ? 0.0f : best * factor;
                const float shrink = exp2_fast(top[m][h] * factor - shift);
                top[m][h] = best;
                float part = 0.0f;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        const float p = exp2_fast(s[m][n][2 * h + e] * factor - shift);
                        s[m][n][2 * h + e] = p;
                        part += p;
                    }
                sum[m][h] = sum[m][h] * shrink + part;
#pragma unroll
                for (int n = 0; n < CHUNKS; n++) {
                    o[m][n][2 * h] *= shrink;
                    o[m][n][2 * h + 1] *= shrink;
                }
            }
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
            u32 p[2][4];
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    p[m][i] = to_bf16x2(s[m][2 * n + i / 2][2 * (i & 1)], s[m][2 * n + i / 2][2 * (i & 1) + 1]);
            add_product(o, p, v_tile, n * 16, lane);
        }
    }
    if (idle) return;

#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = row0 + m * 16 + h * 8 + lane / 4, head = kv * GROUP + row % GROUP;
            const float all = quad_sum(sum[m][h]);
            const float sink = sinks[head] * LOG2E, best = top[m][h] * factor, shift = fmaxf(best, sink);
            const float kept = exp2_fast(best - shift), total = all * kept + exp2_fast(sink - shift);
#pragma unroll
            for (int n = 0; n < CHUNKS; n++) {
                o[m][n][2 * h] *= kept / total;
                o[m][n][2 * h + 1] *= kept / total;
            }
            const int query = tile.first + row / GROUP;
            if ((lane & 3) == 0 && row / GROUP < POSITIONS && query < tile.query_len)
                lse[(u64)head * n_rows + tile.query_start + query] = shift + log2f(total);
        }
    // The rows of Q are this warp's own, and it has read them.
    stage(q_tile, row0, o, lane);
    __syncwarp();
    store_queries<32>(out, out_ld, q_tile, row0, POSITIONS, tile.first, tile.query_len, lane);
}
