// Backward of attention for Hopper, the pass over queries: the same as that of backward.cu, on warpgroup products.
//
// Three warpgroups of 64 stacked query rows, 64 keys a step. The tile that stays gives the rows of every result, so P
// and dS go from accumulator to left operand without leaving registers, and each product of a step is issued before the
// previous one is waited for.
#include "attention_sm90.cuh"
#include "step.cuh"

extern __shared__ u8 shared[];

constexpr int ROWS = QUERY_ROWS, WORKERS = ROWS / 64, POSITIONS = ROWS / GROUP, KEYS = 64, STAGES = 4;
constexpr int ROWS_BYTES = ROWS * 128, KV_BYTES = KEYS * 128;
static_assert(ROWS == 64 * WORKERS && THREADS == 128 * (WORKERS + 1), "warpgroups of 64 rows, and one that loads");
static_assert(SHARED == 1024 + 5 * ROWS_BYTES + STAGES * 2 * KV_BYTES, "q, out, two dout, dq, the ring; 1024-aligned");

// Arguments as backward.cu's attention_backward_q, then the number of tiles times key heads, and of key heads. Tiles
// are those of forward_sm90.cu. Grid at most the number of multiprocessors.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_backward_q(const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
                         const bf16* __restrict__ out, const bf16* __restrict__ dout, const float* __restrict__ lse,
                         bf16* __restrict__ dq, float* __restrict__ delta, const int* __restrict__ tiles, int q_ld,
                         int kv_ld, int out_ld, int dout_ld, int dq_ld, int n_rows, int window, float scale,
                         int n_items, int kv_heads) {
    __shared__ __align__(8) u64 barriers[6 + 2 * STAGES];
    __shared__ float lses[2][ROWS], deltas[ROWS];
    // Q and out are read once, into registers; dout stays, so it has two places, to be loaded ahead.
    const u32 q_tile = tile_aligned(shared_address(shared)), out_tile = q_tile + ROWS_BYTES,
              do_tiles = out_tile + ROWS_BYTES, dq_tile = do_tiles + 2 * ROWS_BYTES, kv_tiles = dq_tile + ROWS_BYTES;
    const u32 q_full = shared_address(barriers), q_empty = q_full + 8, do_full = q_full + 16, do_empty = q_full + 32,
              kv_full = q_full + 48, kv_empty = kv_full + 8 * STAGES;
    if (threadIdx.x == 0) {
        ring_init<1>(q_full, q_empty, 4, 4 * WORKERS);
        ring_init<2>(do_full, do_empty, 4, 4 * WORKERS);
        ring_init<STAGES>(kv_full, kv_empty, 4, 4 * WORKERS);
        barriers_made();
    }
    follow_closely();
    __syncthreads();
    Ring<1> qr;
    Ring<2> dor;
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
            const int kv = of.kv, column = kv * GROUP * HEAD_DIM;
            announcer.acquire(do_empty + 8 * dor.stage, dor.parity ^ 1);
            produce_queries<ROWS>(do_tiles + dor.stage * ROWS_BYTES, dout + (u64)tile.query_start * dout_ld + column,
                                  dout_ld, tile.first, tile.query_len);
            const u32 lse_to = shared_address(&lses[dor.stage][0]);
            for (int row = threadIdx.x; row < ROWS; row += 128) {
                const int query = tile.first + row / GROUP;
                // A row that is not there gets 0: its dout is zero, and with it all it gives.
                copy_async4(lse_to + row * 4, lse + (u64)(kv * GROUP + row % GROUP) * n_rows + tile.query_start + query,
                            row / GROUP < POSITIONS && query < tile.query_len);
            }
            announcer.copies_issued(do_full + 8 * dor.stage);
            dor.next();
            announcer.acquire(q_empty, qr.parity ^ 1);
            produce_queries<ROWS>(q_tile, q + (u64)tile.query_start * q_ld + column, q_ld, tile.first, tile.query_len);
            produce_queries<ROWS>(out_tile, out + (u64)tile.query_start * out_ld + column, out_ld, tile.first,
                                  tile.query_len);
            announcer.copies_issued(q_full);
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
            const u32 do_tile = do_tiles + dor.stage * ROWS_BYTES;
            const int position[2] = {tile.first + offset + row_a / GROUP, tile.first + offset + (row_a + 8) / GROUP};

            barrier_spin(do_full + 8 * dor.stage, dor.parity);
            barrier_spin(q_full, qr.parity);
            // delta of the warp's 16 rows, 8 lanes a row.
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = row0 + i * 4 + lane / 8, chunk = lane & 7;
                const uint4 a = shared_load16(do_tile + swizzled(row, chunk)),
                            b = shared_load16(out_tile + swizzled(row, chunk));
                float x = low_float(a.x) * low_float(b.x) + high_float(a.x) * high_float(b.x) +
                          low_float(a.y) * low_float(b.y) + high_float(a.y) * high_float(b.y) +
                          low_float(a.z) * low_float(b.z) + high_float(a.z) * high_float(b.z) +
                          low_float(a.w) * low_float(b.w) + high_float(a.w) * high_float(b.w);
                x += __shfl_xor_sync(FULL_WARP, x, 1);
                x += __shfl_xor_sync(FULL_WARP, x, 2);
                x += __shfl_xor_sync(FULL_WARP, x, 4);
                if (chunk == 0) {
                    deltas[row] = x;
                    const int query = tile.first + row / GROUP;
                    if (row / GROUP < POSITIONS && query < tile.query_len)
                        delta[(u64)(kv * GROUP + row % GROUP) * n_rows + tile.query_start + query] = x;
                }
            }
            u32 qf[4][4], ds[4][4];
#pragma unroll
            for (int d = 0; d < 4; d++) load_a(qf[d], q_tile, row0, d, lane);
            __syncwarp();
            const float lse2[2] = {lses[dor.stage][row_a], lses[dor.stage][row_a + 8]};
            const float delta_a[2] = {deltas[row_a], deltas[row_a + 8]};
            barrier_arrive_warp(q_empty);
            qr.next();

            float s[32], dp[32], acc[32];
#pragma unroll
            for (int i = 0; i < 32; i++) acc[i] = 0.0f;
            auto scores = [&]() {
                const u32 k_tile = kv_tiles + kvr.stage * 2 * KV_BYTES;
#pragma unroll
                for (int d = 0; d < 4; d++) product<64>(s, qf[d], operand(k_tile + d * 32), d > 0);
                products_commit();
            };
            auto value_scores = [&]() {
                const u32 v_tile = kv_tiles + kvr.stage * 2 * KV_BYTES + KV_BYTES;
#pragma unroll
                for (int d = 0; d < 4; d++)
                    product<64>(dp, operand(do_tile + worker * 64 * 128 + d * 32), operand(v_tile + d * 32), d > 0);
                products_commit();
            };
            barrier_spin(kv_full + 8 * kvr.stage, kvr.parity);
            pin(s, dp, acc);
            products_begin();
            scores();
            value_scores();
            // P and dS of a step whose scores are under way. No product is issued inside: the compiler must see on
            // every path which ones are in flight.
            auto gradients = [&](int step) {
                const int key0 = low + step * KEYS;
                const bool mask = key0 + KEYS - 1 > tile.first + offset || (window > 0 && key0 <= last - window);
#pragma unroll
                for (int i = 0; i < 32; i++) s[i] = exp2_fast(s[i] * factor - lse2[(i >> 1) & 1]);
                // Apart from the above, so that the many steps without a mask stay free of branches.
                if (mask) {
#pragma unroll
                    for (int i = 0; i < 32; i++) {
                        const int high = position[(i >> 1) & 1] - key0, key = (i >> 2) * 8 + 2 * (lane & 3) + (i & 1);
                        if (key > high || (window > 0 && key <= high - window)) s[i] = 0.0f;
                    }
                }
                products_wait<1>();
                pin(acc);
                if (step > 0) barrier_arrive_warp(kv_empty + 8 * kvr.previous());
                products_wait<0>();
                pin(dp);
#pragma unroll
                for (int n = 0; n < 4; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int at = 8 * n + 2 * i;
                        ds[n][i] =
                            to_bf16x2(s[at] * (dp[at] - delta_a[i & 1]), s[at + 1] * (dp[at + 1] - delta_a[i & 1]));
                    }
            };
            auto queries = [&](u32 k_tile) {
#pragma unroll
                for (int n = 0; n < 4; n++) product<64, true>(acc, ds[n], operand(k_tile + n * 16 * 128), true);
                products_commit();
            };
            products_wait<1>();
            pin(s);
            for (int step = 0; step + 1 < steps; step++) {
                gradients(step);
                const int previous = kvr.stage;
                kvr.next();
                barrier_spin(kv_full + 8 * kvr.stage, kvr.parity);
                pin(s, dp, acc);
                products_begin();
                // The next scores first: their softmax runs beside the other products.
                scores();
                queries(kv_tiles + previous * 2 * KV_BYTES);
                value_scores();
                products_wait<2>();
                pin(s);
            }
            gradients(steps - 1);
            pin(acc);
            products_begin();
            queries(kv_tiles + kvr.stage * 2 * KV_BYTES);
            products_wait<0>();
            pin(acc);
            barrier_arrive_warp(kv_empty + 8 * kvr.stage);
            kvr.next();
            barrier_arrive_warp(do_empty + 8 * dor.stage);
            dor.next();
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int n = 0; n < 8; n++)
                    shared_store(dq_tile + swizzled(row_a + 8 * h, n) + (lane & 3) * 4,
                                 to_bf16x2(acc[4 * n + 2 * h] * scale, acc[4 * n + 2 * h + 1] * scale));
            __syncwarp();
            store_queries<16>(dq + (u64)tile.query_start * dq_ld + kv * GROUP * HEAD_DIM, dq_ld, dq_tile, row0,
                              POSITIONS, tile.first, tile.query_len, lane);
            __syncwarp();
        }
    }
}
