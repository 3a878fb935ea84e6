// Backward of attention, for every card since Ampere: one pass over queries for dq, one over keys for dk and dv.
//
// Probabilities come back from the log-sum-exp (which holds the sink). Two passes compute the scores twice (7 products
// for 5), and in return nothing is added across blocks: no atomics, no order to enforce, no f32 copy of dq, and P and
// dS never leave registers. Dao 2023, "FlashAttention-2", with the loops split. The dq pass comes first: it writes
// delta = rowsum(dout * out), which the other reads.
#include "attention.cuh"

constexpr int ROWS = QUERY_ROWS;
constexpr int POSITIONS = ROWS / GROUP;
constexpr int KEYS = 64;     // keys a step of the dq pass
constexpr int QUERIES = 64;  // stacked rows a step of the dk, dv pass
constexpr int STEP_POSITIONS = QUERIES / GROUP;
static_assert(THREADS == ROWS && KEY_ROWS == ROWS, "a warp has 32 rows, of queries or of keys");
static_assert(SHARED_OF_FEATURE == (2 * ROWS + 4 * KEYS) * 2 && KEYS == QUERIES, "what stays, and two stages of steps");

// dq = scale * dS K with dS = P * (dout v - delta); also delta[h, t] = rowsum(dout * out).
//
// q [*, q_ld], k, v [*, kv_ld], out [*, out_ld], dout [*, dout_ld], lse f32 [heads, n_rows] as the forward;
// dq [*, dq_ld]; delta f32 [heads, n_rows]. tiles: of queries, as the forward's.
// Grid (key heads, tiles).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_backward_q(const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
                         const bf16* __restrict__ out, const bf16* __restrict__ dout, const float* __restrict__ lse,
                         bf16* __restrict__ dq, float* __restrict__ delta, const int* __restrict__ tiles, int q_ld,
                         int kv_ld, int out_ld, int dout_ld, int dq_ld, int n_rows, int window, float scale) {
    extern __shared__ __align__(1024) u8 shared[];
    __shared__ float deltas[ROWS];
    const u32 q_tile = shared_address(shared), do_tile = q_tile + ROWS * ROW_BYTES,
              kv_tiles = do_tile + ROWS * ROW_BYTES;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row0 = warp * 32;
    const int kv = blockIdx.x;
    const Tile tile = read_tile(tiles, blockIdx.y);
    const int offset = tile.key_len - tile.query_len;
    const int last = min(tile.first + POSITIONS, tile.query_len) - 1 + offset;
    const int low = window > 0 ? max(0, tile.first + offset - window + 1) : 0;
    const int steps = (last + 1 - low + KEYS - 1) / KEYS;
    const int column = kv * GROUP * HEAD_DIM;
    k += (u64)tile.key_start * kv_ld + kv * HEAD_DIM;
    v += (u64)tile.key_start * kv_ld + kv * HEAD_DIM;
    out += (u64)tile.query_start * out_ld + column;
    const float factor = scale * LOG2E;

    load_queries<ROWS, THREADS>(q_tile, q + (u64)tile.query_start * q_ld + column, q_ld, tile.first, tile.query_len,
                                threadIdx.x);
    load_queries<ROWS, THREADS>(do_tile, dout + (u64)tile.query_start * dout_ld + column, dout_ld, tile.first,
                                tile.query_len, threadIdx.x);
    load_keys<KEYS, THREADS>(kv_tiles, k, kv_ld, low, last + 1, threadIdx.x);
    load_keys<KEYS, THREADS>(kv_tiles + KEYS * ROW_BYTES, v, kv_ld, low, last + 1, threadIdx.x);
    copy_commit();
    copy_wait<0>();
    __syncthreads();

    // delta: the lanes of a row have a chunk each.
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const int at = threadIdx.x + i * THREADS, row = at / CHUNKS, chunk = at % CHUNKS;
        const int query = tile.first + row / GROUP, head = row % GROUP;
        const bool valid = row / GROUP < POSITIONS && query < tile.query_len;
        float x = 0.0f;
        if (valid) {
            const uint4 a = shared_load16(do_tile + swizzled(row, chunk));
            const uint4 b = *reinterpret_cast<const uint4*>(out + (u64)query * out_ld + head * HEAD_DIM + chunk * 8);
            x = low_float(a.x) * low_float(b.x) + high_float(a.x) * high_float(b.x) + low_float(a.y) * low_float(b.y) +
                high_float(a.y) * high_float(b.y) + low_float(a.z) * low_float(b.z) +
                high_float(a.z) * high_float(b.z) + low_float(a.w) * low_float(b.w) + high_float(a.w) * high_float(b.w);
        }
#pragma unroll
        for (int mask = 1; mask < CHUNKS; mask <<= 1) x += __shfl_xor_sync(FULL_WARP, x, mask);
        if (chunk == 0) {
            deltas[row] = x;
            if (valid) delta[(u64)(kv * GROUP + head) * n_rows + tile.query_start + query] = x;
        }
    }
    __syncthreads();

    u32 qf[2][STEPS][4], dof[2][STEPS][4];
    float lse2[2][2], del[2][2];
    int position[2][2];
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            load_a(qf[m][s], q_tile, row0 + m * 16, s, lane);
            load_a(dof[m][s], do_tile, row0 + m * 16, s, lane);
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = row0 + m * 16 + h * 8 + lane / 4, query = tile.first + row / GROUP;
            const bool valid = row / GROUP < POSITIONS && query < tile.query_len;
            // A row that is not there has probability zero.
            lse2[m][h] = valid ? lse[(u64)(kv * GROUP + row % GROUP) * n_rows + tile.query_start + query] : INFINITY_F;
            del[m][h] = deltas[row];
            position[m][h] = query + offset;
        }
    }
    float acc[2][CHUNKS][4] = {};

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
        const bool mask = key0 + KEYS - 1 > tile.first + offset || (window > 0 && key0 <= last - window);
        // Halves of 32 keys, so that all fragments stay in registers.
#pragma unroll
        for (int half = 0; half < KEYS; half += 32) {
            float s[2][4][4] = {}, dp[2][4][4] = {};
#pragma unroll
            for (int d = 0; d < STEPS; d++)
#pragma unroll
                for (int n = 0; n < 2; n++) {
                    u32 b[4];
                    load_b(b, k_tile, half + n * 16, d, lane);
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        multiply16(s[m][2 * n], qf[m][d], b[0], b[1]);
                        multiply16(s[m][2 * n + 1], qf[m][d], b[2], b[3]);
                    }
                    load_b(b, v_tile, half + n * 16, d, lane);
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        multiply16(dp[m][2 * n], dof[m][d], b[0], b[1]);
                        multiply16(dp[m][2 * n + 1], dof[m][d], b[2], b[3]);
                    }
                }
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const int high = position[m][h] - key0 - half, low = window > 0 ? high - window : -1 - half - KEYS;
#pragma unroll
                    for (int n = 0; n < 4; n++)
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            float p = exp2_fast(s[m][n][2 * h + e] * factor - lse2[m][h]);
                            const int key = n * 8 + 2 * (lane & 3) + e;
                            if (mask && (key > high || key <= low)) p = 0.0f;
                            s[m][n][2 * h + e] = p * (dp[m][n][2 * h + e] - del[m][h]);
                        }
                }
#pragma unroll
            for (int n = 0; n < 2; n++) {
                u32 ds[2][4];
#pragma unroll
                for (int m = 0; m < 2; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        ds[m][i] = to_bf16x2(s[m][2 * n + i / 2][2 * (i & 1)], s[m][2 * n + i / 2][2 * (i & 1) + 1]);
#pragma unroll
                for (int c = 0; c < CHUNKS / 2; c++) {
                    u32 b[4];
                    load_b_transposed(b, k_tile, half + n * 16, c, lane);
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        multiply16(acc[m][2 * c], ds[m], b[0], b[1]);
                        multiply16(acc[m][2 * c + 1], ds[m], b[2], b[3]);
                    }
                }
            }
        }
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < CHUNKS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) acc[m][n][i] *= scale;
    stage(q_tile, row0, acc, lane);
    __syncwarp();
    store_queries<32>(dq + (u64)tile.query_start * dq_ld + column, dq_ld, q_tile, row0, POSITIONS, tile.first,
                      tile.query_len, lane);
}

// dv = P^T dout and dk = scale * dS^T q, summed over the group's heads and the queries that see the key.
//
// Arguments as above; dk, dv [*, dkv_ld], every key row of the tiles is written. tiles: of keys, `first` a multiple of
// KEY_ROWS. Scores are computed transposed, keys by stacked query rows, so that they are the left operand of the second
// products without leaving registers. Grid (key heads, tiles).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_backward_kv(const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
                          const bf16* __restrict__ dout, const float* __restrict__ lse, const float* __restrict__ delta,
                          bf16* __restrict__ dk, bf16* __restrict__ dv, const int* __restrict__ tiles, int q_ld,
                          int kv_ld, int dout_ld, int dkv_ld, int n_rows, int window, float scale) {
    extern __shared__ __align__(1024) u8 shared[];
    __shared__ float2 rows[2][QUERIES];  // their lse and delta
    const u32 k_tile = shared_address(shared), v_tile = k_tile + ROWS * ROW_BYTES, q_tiles = v_tile + ROWS * ROW_BYTES;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row0 = warp * 32;
    const int kv = blockIdx.x;
    const Tile tile = read_tile(tiles, blockIdx.y);
    const int offset = tile.key_len - tile.query_len;
    const int key_end = min(tile.first + ROWS, tile.key_len);
    // Queries that see a key of the tile: none before the first key, none a window behind the last.
    const int begin = max(tile.first - offset, 0);
    const int end = window > 0 ? min(tile.query_len, key_end - 1 + window - offset) : tile.query_len;
    const int steps = max(0, (end - begin + STEP_POSITIONS - 1) / STEP_POSITIONS);
    const int column = kv * GROUP * HEAD_DIM;
    q += (u64)tile.query_start * q_ld + column;
    dout += (u64)tile.query_start * dout_ld + column;
    const u64 kv_at = (u64)tile.key_start * kv_ld + kv * HEAD_DIM;
    const float factor = scale * LOG2E;

    // The first 64 threads fetch what belongs to a row.
    const int own = threadIdx.x;
    const u64 own_row = (u64)(kv * GROUP + own % GROUP) * n_rows + tile.query_start;
    auto fetch = [&](int first) {
        const int query = first + own / GROUP;
        // A row that is not there has probability zero.
        return own / GROUP < STEP_POSITIONS && query < end ? make_float2(lse[own_row + query], delta[own_row + query])
                                                           : make_float2(INFINITY_F, 0.0f);
    };

    load_keys<ROWS, THREADS>(k_tile, k + kv_at, kv_ld, tile.first, tile.key_len, threadIdx.x);
    load_keys<ROWS, THREADS>(v_tile, v + kv_at, kv_ld, tile.first, tile.key_len, threadIdx.x);
    load_queries<QUERIES, THREADS>(q_tiles, q, q_ld, begin, end, threadIdx.x);
    load_queries<QUERIES, THREADS>(q_tiles + QUERIES * ROW_BYTES, dout, dout_ld, begin, end, threadIdx.x);
    copy_commit();
    if (own < QUERIES) rows[0][own] = fetch(begin);
    copy_wait<0>();
    __syncthreads();

    u32 kf[2][STEPS][4], vf[2][STEPS][4];
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            load_a(kf[m][s], k_tile, row0 + m * 16, s, lane);
            load_a(vf[m][s], v_tile, row0 + m * 16, s, lane);
        }
    float dk_acc[2][CHUNKS][4] = {}, dv_acc[2][CHUNKS][4] = {};

    for (int step = 0; step < steps; step++) {
        const int query0 = begin + step * STEP_POSITIONS;
        const u32 q_tile = q_tiles + (step & 1) * 2 * QUERIES * ROW_BYTES, do_tile = q_tile + QUERIES * ROW_BYTES;
        if (step > 0) {
            copy_wait<0>();
            __syncthreads();
        }
        float2 next_row = {};
        if (step + 1 < steps) {
            const u32 next = q_tiles + ((step + 1) & 1) * 2 * QUERIES * ROW_BYTES;
            load_queries<QUERIES, THREADS>(next, q, q_ld, query0 + STEP_POSITIONS, end, threadIdx.x);
            load_queries<QUERIES, THREADS>(next + QUERIES * ROW_BYTES, dout, dout_ld, query0 + STEP_POSITIONS, end,
                                           threadIdx.x);
            if (own < QUERIES) next_row = fetch(query0 + STEP_POSITIONS);
        }
        copy_commit();
        const int position0 = query0 + offset, key0 = tile.first + row0;
        const bool mask = position0 < key0 + 31 || (window > 0 && position0 + STEP_POSITIONS - 1 - window >= key0);
        // Keys of this warp that no query of the step sees need no work.
        const bool hidden = position0 + STEP_POSITIONS - 1 < key0 || (window > 0 && position0 - window >= key0 + 31);
        if (!hidden) {
#pragma unroll
            for (int r = 0; r < QUERIES; r += 16) {
                float s[2][2][4] = {}, dp[2][2][4] = {};
#pragma unroll
                for (int d = 0; d < STEPS; d++) {
                    u32 b[4];
                    load_b(b, q_tile, r, d, lane);
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        multiply16(s[m][0], kf[m][d], b[0], b[1]);
                        multiply16(s[m][1], kf[m][d], b[2], b[3]);
                    }
                    load_b(b, do_tile, r, d, lane);
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        multiply16(dp[m][0], vf[m][d], b[0], b[1]);
                        multiply16(dp[m][1], vf[m][d], b[2], b[3]);
                    }
                }
                u32 pf[2][4], dsf[2][4];
#pragma unroll
                for (int n = 0; n < 2; n++) {
                    const int row = r + n * 8 + 2 * (lane & 3);
                    const float4 stats = *reinterpret_cast<const float4*>(&rows[step & 1][row]);
#pragma unroll
                    for (int m = 0; m < 2; m++) {
#pragma unroll
                        for (int h = 0; h < 2; h++) {
                            float p[2], ds[2];
#pragma unroll
                            for (int e = 0; e < 2; e++) {
                                p[e] = exp2_fast(s[m][n][2 * h + e] * factor - (e ? stats.z : stats.x));
                                if (mask) {
                                    const int key = key0 + m * 16 + h * 8 + lane / 4,
                                              position = position0 + (row + e) / GROUP;
                                    if (key > position || (window > 0 && key <= position - window)) p[e] = 0.0f;
                                }
                                ds[e] = p[e] * (dp[m][n][2 * h + e] - (e ? stats.w : stats.y));
                            }
                            pf[m][2 * n + h] = to_bf16x2(p[0], p[1]);
                            dsf[m][2 * n + h] = to_bf16x2(ds[0], ds[1]);
                        }
                    }
                }
#pragma unroll
                for (int c = 0; c < CHUNKS / 2; c++) {
                    u32 b[4];
                    load_b_transposed(b, do_tile, r, c, lane);
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        multiply16(dv_acc[m][2 * c], pf[m], b[0], b[1]);
                        multiply16(dv_acc[m][2 * c + 1], pf[m], b[2], b[3]);
                    }
                    load_b_transposed(b, q_tile, r, c, lane);
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        multiply16(dk_acc[m][2 * c], dsf[m], b[0], b[1]);
                        multiply16(dk_acc[m][2 * c + 1], dsf[m], b[2], b[3]);
                    }
                }
            }
        }
        if (step + 1 < steps && own < QUERIES) rows[(step + 1) & 1][own] = next_row;
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < CHUNKS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) dk_acc[m][n][i] *= scale;
    stage(k_tile, row0, dk_acc, lane);
    stage(v_tile, row0, dv_acc, lane);
    __syncwarp();
    const u64 to = (u64)tile.key_start * dkv_ld + kv * HEAD_DIM;
#pragma unroll
    for (int i = 0; i < 32 * CHUNKS / 32; i++) {
        const int at = lane + i * 32, row = row0 + at / CHUNKS, chunk = at % CHUNKS;
        if (tile.first + row < tile.key_len) {
            const u64 place = to + (u64)(tile.first + row) * dkv_ld + chunk * 8;
            *reinterpret_cast<uint4*>(dk + place) = shared_load16(k_tile + swizzled(row, chunk));
            *reinterpret_cast<uint4*>(dv + place) = shared_load16(v_tile + swizzled(row, chunk));
        }
    }
}
