// Forward of attention for Hopper: the same function as forward.cu, on warpgroup products.
//
// Three warpgroups of 64 stacked rows compute, a fourth loads; one block a multiprocessor walks over the work list.
// The scores of the next keys are multiplied while the softmax of these runs, as in Shah et al. 2024,
// "FlashAttention-3"; three warpgroups keep the tensor cores busy without an order among them.
#include "attention_sm90.cuh"
#include "step.cuh"

// Keys a step: 80 leaves the registers for one step's scores beside the last one's probabilities (128: 357 TFLOP/s
// on an H100, 80: 455), and two steps cover what 24 positions see through a window of 128.
constexpr int KEYS = 80, STAGES = 4;
constexpr int ROWS = QUERY_ROWS, WORKERS = ROWS / 64;
constexpr int POSITIONS = ROWS / GROUP;
constexpr int Q_BYTES = ROWS * 128, KV_BYTES = KEYS * 128;
static_assert(KEYS % 16 == 0, "P V sums over 16 keys at a time");
static_assert(ROWS == 64 * WORKERS && THREADS == 128 * (WORKERS + 1), "warpgroups of 64 rows, and one that loads");
static_assert(SHARED == 1024 + 2 * Q_BYTES + STAGES * 2 * KV_BYTES, "two tiles of queries, and the ring; 1024-aligned");

// Arguments as forward.cu's attention_forward, then the number of tiles times key heads, and of key heads. Tiles'
// `first` is a multiple of POSITIONS. Grid at most the number of multiprocessors.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_forward(const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
                      const float* __restrict__ sinks, bf16* __restrict__ out, float* __restrict__ lse,
                      const int* __restrict__ tiles, int q_ld, int kv_ld, int out_ld, int n_rows, int window,
                      float scale, int n_items, int kv_heads) {
    extern __shared__ u8 shared[];
    __shared__ __align__(8) u64 barriers[4 + 2 * STAGES];
    const u32 q_tiles = tile_aligned(shared_address(shared)), kv_tiles = q_tiles + 2 * Q_BYTES;
    const u32 q_full = shared_address(barriers), q_empty = q_full + 16, kv_full = q_full + 32,
              kv_empty = kv_full + 8 * STAGES;
    if (threadIdx.x == 0) {
        ring_init<2>(q_full, q_empty, 4, 4 * WORKERS);
        ring_init<STAGES>(kv_full, kv_empty, 4, 4 * WORKERS);
        barriers_made();
    }
    follow_closely();
    __syncthreads();
    Ring<2> qr;
    Ring<STAGES> kvr;
    const int worker = warpgroup() - 1;

    if (worker < 0) {
        registers_lower<32>();
        Announcer announcer;
        for (int round = 0; round * (int)gridDim.x < n_items; round++) {
            const int item = item_of_round(round);
            if (item >= n_items) continue;
            const QueryItem of = query_item<POSITIONS>(tiles, item, kv_heads, window);
            const Tile& tile = of.tile;
            const int kv = of.kv;
            announcer.acquire(q_empty + 8 * qr.stage, qr.parity ^ 1);
            produce_queries<ROWS>(q_tiles + qr.stage * Q_BYTES,
                                  q + (u64)tile.query_start * q_ld + kv * GROUP * HEAD_DIM, q_ld, tile.first,
                                  tile.query_len);
            announcer.copies_issued(q_full + 8 * qr.stage);
            qr.next();
            produce_key_steps<KEYS>(announcer, kvr, of, kv_tiles, kv_full, kv_empty, k, v, kv_ld);
        }
        announcer.flush();
    } else {
        registers_raise<160>();
        const int lane = threadIdx.x & 31, row0 = worker * 64 + warp_of_group() * 16, row_a = row0 + lane / 4;
        const float factor = scale * LOG2E;
        for (int round = 0; round * (int)gridDim.x < n_items; round++) {
            const int item = item_of_round(round);
            if (item >= n_items) continue;
            const QueryItem of = query_item<POSITIONS>(tiles, item, kv_heads, window);
            const Tile& tile = of.tile;
            const int kv = of.kv, offset = of.offset, last = of.last, low = of.low;
            const int steps = (last + 1 - low + KEYS - 1) / KEYS;
            const u32 q_tile = q_tiles + qr.stage * Q_BYTES;
            const int position[2] = {tile.first + offset + row_a / GROUP, tile.first + offset + (row_a + 8) / GROUP};
            float s[KEYS / 2], o[32], top[2] = {-INFINITY_F, -INFINITY_F}, sum[2] = {0.0f, 0.0f}, shrink[2];
            u32 p[KEYS / 16][4];
#pragma unroll
            for (int i = 0; i < 32; i++) o[i] = 0.0f;

            auto scores = [&](u32 k_tile) {
#pragma unroll
                for (int d = 0; d < 4; d++)
                    product<KEYS>(s, operand(q_tile + worker * 64 * 128 + d * 32), operand(k_tile + d * 32), d > 0);
            };
            auto softmax = [&](int key0) {
                const bool mask = key0 + KEYS - 1 > tile.first + offset || (window > 0 && key0 <= last - window);
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    if (mask) {
                        const int high = position[h] - key0, low = window > 0 ? high - window : -1;
#pragma unroll
                        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                            for (int e = 0; e < 2; e++) {
                                const int key = n * 8 + 2 * (lane & 3) + e;
                                if (key > high || key <= low) s[4 * n + 2 * h + e] = -INFINITY_F;
                            }
                    }
                    float best = top[h];
#pragma unroll
                    for (int n = 0; n < KEYS / 8; n++)
                        best = fmaxf(best, fmaxf(s[4 * n + 2 * h], s[4 * n + 2 * h + 1]));
                    best = quad_max(best);
                    const float shift = best == -INFINITY_F ? 0.0f : best * factor;
                    shrink[h] = exp2_fast(top[h] * factor - shift);
                    top[h] = best;
                    float part = 0.0f;
#pragma unroll
                    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            const float x = exp2_fast(s[4 * n + 2 * h + e] * factor - shift);
                            s[4 * n + 2 * h + e] = x;
                            part += x;
                        }
                    sum[h] = sum[h] * shrink[h] + part;
                }
            };
            auto values = [&](u32 v_tile) {
#pragma unroll
                for (int n = 0; n < KEYS / 16; n++) product<64, true>(o, p[n], operand(v_tile + n * 16 * 128), true);
            };

            barrier_spin(q_full + 8 * qr.stage, qr.parity);
            barrier_spin(kv_full + 8 * kvr.stage, kvr.parity);
            pin(s);
            products_begin();
            scores(kv_tiles + kvr.stage * 2 * KV_BYTES);
            products_commit();
            products_wait<0>();
            pin(s);
            softmax(low);
            to_left(p, s);
            for (int step = 1; step < steps; step++) {
                const int previous = kvr.stage;
                kvr.next();
                barrier_spin(kv_full + 8 * kvr.stage, kvr.parity);
                pin(s, o);
                products_begin();
                scores(kv_tiles + kvr.stage * 2 * KV_BYTES);
                products_commit();
                values(kv_tiles + previous * 2 * KV_BYTES + KV_BYTES);
                products_commit();
                products_wait<1>();
                pin(s);
                softmax(low + step * KEYS);
                products_wait<0>();
                pin(o);
                barrier_arrive_warp(kv_empty + 8 * previous);
#pragma unroll
                for (int i = 0; i < 32; i++) o[i] *= shrink[(i >> 1) & 1];
                to_left(p, s);
            }
            pin(o);
            products_begin();
            values(kv_tiles + kvr.stage * 2 * KV_BYTES + KV_BYTES);
            products_commit();
            products_wait<0>();
            pin(o);
            barrier_arrive_warp(kv_empty + 8 * kvr.stage);
            kvr.next();

#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int row = row_a + 8 * h, head = kv * GROUP + row % GROUP;
                const float all = quad_sum(sum[h]);
                const float sink = sinks[head] * LOG2E, best = top[h] * factor, shift = fmaxf(best, sink);
                const float kept = exp2_fast(best - shift), total = all * kept + exp2_fast(sink - shift);
                const int query = tile.first + row / GROUP;
                if ((lane & 3) == 0 && row / GROUP < POSITIONS && query < tile.query_len)
                    lse[(u64)head * n_rows + tile.query_start + query] = shift + log2f(total);
                const float divide = kept / total;
#pragma unroll
                for (int n = 0; n < 8; n++)
                    shared_store(q_tile + swizzled(row, n) + (lane & 3) * 4,
                                 to_bf16x2(o[4 * n + 2 * h] * divide, o[4 * n + 2 * h + 1] * divide));
            }
            // Over Q's own rows, which nobody reads any more: this warpgroup's products are done.
            __syncwarp();
            store_queries<16>(out + (u64)tile.query_start * out_ld + kv * GROUP * HEAD_DIM, out_ld, q_tile, row0,
                              POSITIONS, tile.first, tile.query_len, lane);
            barrier_arrive_warp(q_empty + 8 * qr.stage);
            qr.next();
        }
    }
}
