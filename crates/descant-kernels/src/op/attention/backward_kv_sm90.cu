// Backward of attention for Hopper, the pass over keys: the same as that of backward.cu, on warpgroup products.
//
// Two warpgroups of 64 keys, 64 stacked query rows a step; see backward_q_sm90.cu.
#include "backward_sm90.cuh"
#include "step.cuh"

extern __shared__ u8 shared[];

static_assert(THREADS == 128 * (KV_WORKERS + 1), "warpgroups of keys, and one that loads");
static_assert(SHARED == 1024 + 4 * TILE_BYTES + Q_STAGES * 2 * Q_BYTES, "k, v, dk, dv, and the ring; 1024-aligned");

// Where blocks of a cluster leave their sums for each other: f32, 64 a row, pairs in an order without bank conflicts.
static_assert(KV_ROWS % PARTS_OF_KEYS == 0, "a block adds a part of the rows");
static_assert(2 * KV_ROWS * 64 * 4 == Q_STAGES * 2 * Q_BYTES, "the sums of keys and values lie in the ring");
__device__ __forceinline__ u32 sum_place(u32 sums, int row, int pair) {
    return sums + row * 256 + (pair ^ ((row & 7) << 2)) * 8;
}

// With PARTS > 1 a cluster of so many blocks has one tile of keys, each block a run of the queries that see it, and the
// sums are added in the order of the runs.
template <int PARTS>
__device__ __forceinline__ void backward_kv(const bf16* __restrict__ q, const bf16* __restrict__ k,
                                            const bf16* __restrict__ v, const bf16* __restrict__ dout,
                                            const float* __restrict__ lse, const float* __restrict__ delta,
                                            bf16* __restrict__ dk, bf16* __restrict__ dv, const int* __restrict__ tiles,
                                            int q_ld, int kv_ld, int dout_ld, int dkv_ld, int n_rows, int window,
                                            float scale, int n_items, int kv_heads) {
    const int part = blockIdx.x % PARTS;
    const auto item_of = [&](int round) { return PARTS > 1 ? (int)blockIdx.x / PARTS : item_of_round(round); };
    const auto another = [&](int round) { return PARTS > 1 ? round == 0 : round * (int)gridDim.x < n_items; };
    // This block's run of the queries from `begin` to `end`.
    const auto run = [&](int& begin, int& end) {
        if (PARTS == 1) return;
        const int steps = max(0, (end - begin + STEP_POSITIONS - 1) / STEP_POSITIONS), first = begin;
        begin = first + steps * part / PARTS * STEP_POSITIONS;
        end = min(end, first + steps * (part + 1) / PARTS * STEP_POSITIONS);
    };
    __shared__ __align__(8) u64 barriers[2 + 2 * Q_STAGES];
    __shared__ __align__(16) float2 rows[Q_STAGES][QUERIES];
    const u32 k_tile = tile_aligned(shared_address(shared)), v_tile = k_tile + TILE_BYTES,
              dk_tile = v_tile + TILE_BYTES, dv_tile = dk_tile + TILE_BYTES, q_tiles = dv_tile + TILE_BYTES;
    const u32 kv_full = shared_address(barriers), kv_empty = kv_full + 8, q_full = kv_full + 16,
              q_empty = q_full + 8 * Q_STAGES;
    if (threadIdx.x == 0) {
        ring_init<1>(kv_full, kv_empty, 4, 4 * KV_WORKERS);
        ring_init<Q_STAGES>(q_full, q_empty, 4, 4 * KV_WORKERS);
        barriers_made();
    }
    follow_closely();
    __syncthreads();
    Ring<1> kvr;
    Ring<Q_STAGES> qr;
    const int worker = warpgroup() - 1;

    if (worker < 0) {
        registers_lower<40>();
        Announcer announcer;
        for (int round = 0; another(round); round++) {
            const int item = item_of(round);
            if (item >= n_items) continue;
            const int kv = item % kv_heads, column = kv * GROUP * HEAD_DIM;
            const Tile tile = read_tile(tiles, item / kv_heads);
            const int offset = tile.key_len - tile.query_len, key_end = min(tile.first + KV_ROWS, tile.key_len);
            int begin = max(tile.first - offset, 0);
            int end = window > 0 ? min(tile.query_len, key_end - 1 + window - offset) : tile.query_len;
            run(begin, end);
            const u64 from = (u64)tile.key_start * kv_ld + kv * HEAD_DIM;
            announcer.acquire(kv_empty, kvr.parity ^ 1);
            produce_keys<KV_ROWS>(k_tile, k + from, kv_ld, tile.first, tile.key_len);
            produce_keys<KV_ROWS>(v_tile, v + from, kv_ld, tile.first, tile.key_len);
            announcer.copies_issued(kv_full);
            kvr.next();
            const bf16* q_from = q + (u64)tile.query_start * q_ld + column;
            const bf16* do_from = dout + (u64)tile.query_start * dout_ld + column;
            // Half of the threads fetch a row's lse, half its delta.
            const int row = threadIdx.x % QUERIES, which = threadIdx.x / QUERIES;
            const float* statistic =
                (which ? delta : lse) + (u64)(kv * GROUP + row % GROUP) * n_rows + tile.query_start + row / GROUP;
            for (int query0 = begin; query0 < end; query0 += STEP_POSITIONS) {
                announcer.acquire(q_empty + 8 * qr.stage, qr.parity ^ 1);
                const u32 to = q_tiles + qr.stage * 2 * Q_BYTES;
                produce_queries<QUERIES>(to, q_from, q_ld, query0, end);
                produce_queries<QUERIES>(to + Q_BYTES, do_from, dout_ld, query0, end);
                // Zeros for a row that is not there: its q and dout are zero, and with them all it gives.
                copy_async4(shared_address(&rows[qr.stage][row]) + 4 * which, statistic + query0,
                            row / GROUP < STEP_POSITIONS && query0 + row / GROUP < end);
                announcer.copies_issued(q_full + 8 * qr.stage);
                qr.next();
            }
        }
        announcer.flush();
        if (PARTS > 1) {
            cluster_sync();
            cluster_sync();
        }
    } else {
        registers_raise<232>();
        const int lane = threadIdx.x & 31, row0 = worker * 64 + warp_of_group() * 16, row_a = row0 + lane / 4;
        const float factor = scale * LOG2E;
        for (int round = 0; another(round); round++) {
            const int item = item_of(round);
            if (item >= n_items) continue;
            const int kv = item % kv_heads;
            const Tile tile = read_tile(tiles, item / kv_heads);
            const int offset = tile.key_len - tile.query_len, key_end = min(tile.first + KV_ROWS, tile.key_len);
            int begin = max(tile.first - offset, 0);
            int end = window > 0 ? min(tile.query_len, key_end - 1 + window - offset) : tile.query_len;
            run(begin, end);
            const int steps = max(0, (end - begin + STEP_POSITIONS - 1) / STEP_POSITIONS);
            // Steps in which a query sees one of this warpgroup's 64 keys; in the others it only hands the stage on.
            const int key0 = tile.first + worker * 64;
            int own_begin = min(max(0, (key0 - offset - begin) / STEP_POSITIONS), steps), own_end = steps;
            if (key0 >= tile.key_len)
                own_begin = steps;
            else if (window > 0)
                own_end =
                    min(steps, max(0, (min(key0 + 63, key_end - 1) + window - offset - begin + STEP_POSITIONS - 1) /
                                          STEP_POSITIONS));
            own_end = max(own_begin, own_end);
            auto hand_on = [&](int n) {
                for (int i = 0; i < n; i++) {
                    barrier_spin(q_full + 8 * qr.stage, qr.parity);
                    barrier_arrive_warp(q_empty + 8 * qr.stage);
                    qr.next();
                }
            };

            barrier_spin(kv_full, kvr.parity);
            u32 kf[4][4], vf[4][4], p[4][4], ds[4][4];
#pragma unroll
            for (int d = 0; d < 4; d++) {
                load_a(kf[d], k_tile, row0, d, lane);
                load_a(vf[d], v_tile, row0, d, lane);
            }
            barrier_arrive_warp(kv_empty);
            kvr.next();
            float s[32], dp[32], dk_acc[32], dv_acc[32];
#pragma unroll
            for (int i = 0; i < 32; i++) dk_acc[i] = dv_acc[i] = 0.0f;
            auto scores = [&]() {
                const u32 q_tile = q_tiles + qr.stage * 2 * Q_BYTES;
#pragma unroll
                for (int d = 0; d < 4; d++) product<64>(s, kf[d], operand(q_tile + d * 32), d > 0);
                products_commit();
            };
            auto value_scores = [&]() {
                const u32 do_tile = q_tiles + qr.stage * 2 * Q_BYTES + Q_BYTES;
#pragma unroll
                for (int d = 0; d < 4; d++) product<64>(dp, vf[d], operand(do_tile + d * 32), d > 0);
                products_commit();
            };
            hand_on(own_begin);
            float2 deltas[8];
            auto probabilities = [&](int step) {
                const int position0 = begin + step * STEP_POSITIONS + offset;
                const bool mask =
                    position0 < key0 + 63 || (window > 0 && position0 + STEP_POSITIONS - 1 - window >= key0);
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    const float4 x = *reinterpret_cast<const float4*>(&rows[qr.stage][n * 8 + 2 * (lane & 3)]);
                    deltas[n] = make_float2(x.y, x.w);
#pragma unroll
                    for (int i = 0; i < 4; i++) s[4 * n + i] = exp2_fast(s[4 * n + i] * factor - (i & 1 ? x.z : x.x));
                }
                // Apart from the above, so that the many steps without a mask stay free of branches.
                if (mask) {
#pragma unroll
                    for (int n = 0; n < 8; n++)
#pragma unroll
                        for (int i = 0; i < 4; i++) {
                            const int key = tile.first + row_a + 8 * (i >> 1),
                                      position = position0 + (n * 8 + 2 * (lane & 3) + (i & 1)) / GROUP;
                            if (key > position || (window > 0 && key <= position - window)) s[4 * n + i] = 0.0f;
                        }
                }
            };
            auto gradients = [&]() {
#pragma unroll
                for (int n = 0; n < 4; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int at = 8 * n + 2 * i;
                        const float2 d = deltas[2 * n + i / 2];
                        ds[n][i] = to_bf16x2(s[at] * (dp[at] - d.x), s[at + 1] * (dp[at + 1] - d.y));
                    }
            };
            auto keys_and_values = [&](u32 q_tile) {
#pragma unroll
                for (int n = 0; n < 4; n++)
                    product<64, true>(dv_acc, p[n], operand(q_tile + Q_BYTES + n * 16 * 128), true);
#pragma unroll
                for (int n = 0; n < 4; n++) product<64, true>(dk_acc, ds[n], operand(q_tile + n * 16 * 128), true);
                products_commit();
            };
            go_over_queries(
                own_begin, own_end, qr, q_full, q_empty, s, dp, p, dk_acc, dv_acc, scores, value_scores, probabilities,
                gradients, [&] { return q_tiles + qr.stage * 2 * Q_BYTES; }, keys_and_values, [] {});
            hand_on(steps - own_end);
            if constexpr (PARTS > 1) {
                const u32 sums = q_tiles;
                threads_sync(1, 128 * KV_WORKERS); // Nobody reads the ring any more.
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int n = 0; n < 8; n++) {
                        const int at = 4 * n + 2 * h;
                        const u32 place = sum_place(sums, row_a + 8 * h, n * 4 + (lane & 3));
                        shared_store8(place, dk_acc[at], dk_acc[at + 1]);
                        shared_store8(place + KV_ROWS * 256, dv_acc[at], dv_acc[at + 1]);
                    }
                cluster_sync();
                constexpr int SHARE = KV_ROWS / PARTS;
                const u64 to = (u64)tile.key_start * dkv_ld + kv * HEAD_DIM;
                for (int i = threadIdx.x - 128; i < 2 * SHARE * 8; i += 128 * KV_WORKERS) {
                    const int row = part * SHARE + i / 8 % SHARE, chunk = i % 8;
                    const bool values = i >= SHARE * 8;
                    const u32 from = sum_place(sums, row, chunk * 4) + (values ? KV_ROWS * 256 : 0);
                    float sum[8] = {};
#pragma unroll
                    for (int p = 0; p < PARTS; p++) {
                        const float4 a = cluster_load16(from, p), b = cluster_load16(from + 16, p);
                        sum[0] += a.x, sum[1] += a.y, sum[2] += a.z, sum[3] += a.w;
                        sum[4] += b.x, sum[5] += b.y, sum[6] += b.z, sum[7] += b.w;
                    }
                    if (!values)
#pragma unroll
                        for (int j = 0; j < 8; j++) sum[j] *= scale;
                    if (tile.first + row < tile.key_len)
                        store16((values ? dv : dk) + to + (u64)(tile.first + row) * dkv_ld + chunk * 8, pack8(sum));
                }
                // The others may still read here.
                cluster_sync();
            } else {
                store_keys(dk, dv, dkv_ld, dk_acc, dv_acc, scale, dk_tile, dv_tile, row0, lane, tile, kv);
            }
        }
    }
}

// Arguments as backward.cu's attention_backward_kv, then the number of tiles times key heads, and of key heads. Tiles
// of keys, `first` a multiple of KEY_ROWS. Grid at most the number of multiprocessors.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_backward_kv(const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* lse,
                          const float* delta, bf16* dk, bf16* dv, const int* tiles, int q_ld, int kv_ld, int dout_ld,
                          int dkv_ld, int n_rows, int window, float scale, int n_items, int kv_heads) {
    backward_kv<1>(q, k, v, dout, lse, delta, dk, dv, tiles, q_ld, kv_ld, dout_ld, dkv_ld, n_rows, window, scale,
                   n_items, kv_heads);
}

// The same where tiles are too few for all multiprocessors. Grid: PARTS_OF_KEYS blocks an item.
extern "C" __global__ void __cluster_dims__(PARTS_OF_KEYS, 1, 1) __launch_bounds__(THREADS, 1)
    attention_backward_kv_parts(const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* lse,
                                const float* delta, bf16* dk, bf16* dv, const int* tiles, int q_ld, int kv_ld,
                                int dout_ld, int dkv_ld, int n_rows, int window, float scale, int n_items,
                                int kv_heads) {
    backward_kv<PARTS_OF_KEYS>(q, k, v, dout, lse, delta, dk, dv, tiles, q_ld, kv_ld, dout_ld, dkv_ld, n_rows, window,
                               scale, n_items, kv_heads);
}
