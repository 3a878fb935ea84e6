// Backward of attention for Hopper in one pass over keys: every score is computed once.
//
// A block has a tile of keys and goes over the queries that see it, from the last ones to the first. Two warpgroups of
// 64 keys keep the gradients of keys and values in registers, as in backward_kv_sm90.cu, and hand dS to a third, which
// multiplies it by K and adds the product to the queries' sums in device memory. Tiles of sums are added to in the
// order of the keys, so that the same bits come out whoever is first: a number for each counts whose turn it is
// (the deterministic mode of Shah et al. 2024, "FlashAttention-3", does so). Blocks take tiles of keys in the same
// order, one after the other, so a block waits only for tiles that others have or had, however many of them are at
// work.
#include "backward_sm90.cuh"
#include "step.cuh"

extern __shared__ u8 shared[];

constexpr int KV_STAGES = 2, DS_STAGES = 2;
static_assert(THREADS == 128 * (KV_WORKERS + 2), "warpgroups of keys, one that loads, and one that adds");
static_assert(QUERIES == SUM_ROWS, "a tile of sums is that of a step");
static_assert(SHARED == 1024 + (2 * KV_STAGES + 2 + DS_STAGES) * TILE_BYTES + Q_STAGES * 2 * Q_BYTES,
              "keys and values, dk and dv, dS, and the ring of queries; 1024-aligned");

// A tile of keys of one key head, and the tiles of queries that see it: from `begin` to `n_tiles`, the last one first.
struct KeyItem {
    Tile tile;
    int kv, offset, n_tiles, begin, steps;
    // Of those, how many see some key from `key0` on.
    __device__ __forceinline__ int steps_from(int key0) const {
        if (key0 >= tile.key_len) return 0;
        return min(steps, max(0, n_tiles - max(key0 - offset, 0) / STEP_POSITIONS));
    }
};
__device__ __forceinline__ KeyItem key_item(const int* tiles, int item, int kv_heads) {
    KeyItem of;
    of.kv = item % kv_heads;
    of.tile = read_tile(tiles, item / kv_heads);
    of.offset = of.tile.key_len - of.tile.query_len;
    of.n_tiles = (of.tile.query_len + STEP_POSITIONS - 1) / STEP_POSITIONS;
    of.begin = min(of.n_tiles, max(of.tile.first - of.offset, 0) / STEP_POSITIONS);
    of.steps = of.n_tiles - of.begin;
    return of;
}

// q, dout, k, v: bf16 rows `q_ld`, `dout_ld` and `kv_ld` apart; lse, delta: f32 [heads, n_rows]; sums: f32, 64 x 64 a
// tile in the order of the product, n_tiles of each key head, a segment's from query_start / STEP_POSITIONS + segment
// on; turns: zeros, the next item and a number for each tile of sums, of which one is used for 2^run of them: what was
// added must have arrived before the next one's turn, and is waited for once for all of them. No bit depends on it.
// dk, dv: rows `dkv_ld` apart. Tiles of keys, `first` a multiple of KEY_ROWS and rising among those of a segment. Grid
// at most the number of multiprocessors.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_backward_one(const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
                           const bf16* __restrict__ dout, const float* __restrict__ lse,
                           const float* __restrict__ delta, float* __restrict__ sums, u32* __restrict__ turns,
                           bf16* __restrict__ dk, bf16* __restrict__ dv, const int* __restrict__ tiles, int q_ld,
                           int kv_ld, int dout_ld, int dkv_ld, int n_rows, float scale, int n_items, int kv_heads,
                           int n_tiles, int run) {
    __shared__ __align__(8) u64 barriers[2 * (KV_STAGES + Q_STAGES + DS_STAGES)];
    __shared__ __align__(16) float lses[Q_STAGES][QUERIES], deltas[Q_STAGES][QUERIES];
    __shared__ int items[KV_STAGES];
    const u32 kv_tiles = tile_aligned(shared_address(shared)), dk_tile = kv_tiles + KV_STAGES * 2 * TILE_BYTES,
              dv_tile = dk_tile + TILE_BYTES, ds_tiles = dv_tile + TILE_BYTES,
              q_tiles = ds_tiles + DS_STAGES * TILE_BYTES;
    const u32 kv_full = shared_address(barriers), kv_empty = kv_full + 8 * KV_STAGES, q_full = kv_empty + 8 * KV_STAGES,
              q_empty = q_full + 8 * Q_STAGES, ds_full = q_empty + 8 * Q_STAGES, ds_empty = ds_full + 8 * DS_STAGES;
    if (threadIdx.x == 0) {
        ring_init<KV_STAGES>(kv_full, kv_empty, 4, 4 * (KV_WORKERS + 1));
        ring_init<Q_STAGES>(q_full, q_empty, 4, 4 * KV_WORKERS);
        ring_init<DS_STAGES>(ds_full, ds_empty, 4 * KV_WORKERS, 4);
        barriers_made();
    }
    follow_closely();
    __syncthreads();
    Ring<KV_STAGES> kvr;
    Ring<Q_STAGES> qr;
    Ring<DS_STAGES> dsr;
    const int group = warpgroup();

    if (group == 0) {
        registers_lower<32>();
        Announcer announcer;
        u32 next = threadIdx.x == 0 ? atomicAdd(turns, 1u) : 0;
        for (;;) {
            announcer.acquire(kv_empty + 8 * kvr.stage, kvr.parity ^ 1);
            if (threadIdx.x == 0) items[kvr.stage] = (int)next;
            threads_sync(2, 128);
            const int item = items[kvr.stage];
            if (item >= n_items) {
                announcer.flush();
                barrier_arrive_warp(kv_full + 8 * kvr.stage);
                break;
            }
            const KeyItem of = key_item(tiles, item, kv_heads);
            const Tile& tile = of.tile;
            const u64 from = (u64)tile.key_start * kv_ld + of.kv * HEAD_DIM;
            const u32 kv_to = kv_tiles + kvr.stage * 2 * TILE_BYTES;
            produce_keys<KV_ROWS>(kv_to, k + from, kv_ld, tile.first, tile.key_len);
            produce_keys<KV_ROWS>(kv_to + TILE_BYTES, v + from, kv_ld, tile.first, tile.key_len);
            announcer.copies_issued(kv_full + 8 * kvr.stage);
            kvr.next();
            const int column = of.kv * GROUP * HEAD_DIM;
            const bf16* q_from = q + (u64)tile.query_start * q_ld + column;
            const bf16* do_from = dout + (u64)tile.query_start * dout_ld + column;
            // Half of the threads fetch a row's lse, half its delta.
            const int row = threadIdx.x % QUERIES;
            const bool is_delta = threadIdx.x >= QUERIES;
            const float* statistic =
                (is_delta ? delta : lse) + (u64)(of.kv * GROUP + row % GROUP) * n_rows + tile.query_start + row / GROUP;
            // The next item is asked for some steps before this one ends: an answer takes as long as a step, and
            // whoever waits for a tile of that item must not wait for all of this one.
            const int ask = max(of.begin, min(of.begin + 4, of.n_tiles - 1));
            if (of.steps == 0 && threadIdx.x == 0) next = atomicAdd(turns, 1u);
            for (int t = of.n_tiles - 1; t >= of.begin; t--) {
                if (t == ask && threadIdx.x == 0) next = atomicAdd(turns, 1u);
                const int query0 = t * STEP_POSITIONS;
                announcer.acquire(q_empty + 8 * qr.stage, qr.parity ^ 1);
                const u32 to = q_tiles + qr.stage * 2 * Q_BYTES;
                produce_queries<QUERIES>(to, q_from, q_ld, query0, tile.query_len);
                produce_queries<QUERIES>(to + Q_BYTES, do_from, dout_ld, query0, tile.query_len);
                // Zeros for a row that is not there: its q and dout are zero, and with them all it gives.
                copy_async4(shared_address(is_delta ? &deltas[qr.stage][row] : &lses[qr.stage][row]),
                            statistic + query0, row / GROUP < STEP_POSITIONS && query0 + row / GROUP < tile.query_len);
                announcer.copies_issued(q_full + 8 * qr.stage);
                qr.next();
            }
        }
    } else if (group == KV_WORKERS + 1) {
        registers_lower<64>();
        const int thread = threadIdx.x & 127;
        for (;;) {
            barrier_spin(kv_full + 8 * kvr.stage, kvr.parity);
            const int item = items[kvr.stage];
            if (item >= n_items) break;
            const KeyItem of = key_item(tiles, item, kv_heads);
            const u32 k_low = operand_low(kv_tiles + kvr.stage * 2 * TILE_BYTES), turn = of.tile.first / KV_ROWS;
            const u64 first_place = (u64)of.kv * n_tiles + of.tile.query_start / STEP_POSITIONS + of.tile.segment;
            u32* const counters = turns + 1 + first_place;
            u32* last = nullptr; // The counter of the steps before.
            float acc[32];
            // What this block added there has arrived: the next tile's turn.
            const auto hand_on = [&]() {
                fence_device();
                threads_sync(1, 128);
                if (thread == 0 && last) store_relaxed(last, turn + 1);
            };
            int step = 0;
            const auto add = [&](auto all_keys) {
                const int t = of.n_tiles - 1 - step;
                u32* const counter = counters + (t >> run << run);
                const bool enters = counter != last;
                u32 seen = enters ? load_relaxed(counter) : turn;
                barrier_spin(ds_full + 8 * dsr.stage, dsr.parity);
                const u32 ds_low = operand_low(ds_tiles) + dsr.stage * (TILE_BYTES >> 4);
                pin(acc);
                products_begin();
#pragma unroll
                for (int n = 0; n < (decltype(all_keys)::value ? KV_ROWS : 64) / 16; n++)
                    product_of_rows(acc, operand_at(ds_low, n * 2048), operand_at(k_low, n * 2048), n > 0);
                products_commit();
                products_wait<0>();
                pin(acc);
                barrier_arrive_warp(ds_empty + 8 * dsr.stage);
                dsr.next();
                if (enters) {
                    // Its fence also puts what others added before `seen` before what is added here.
                    hand_on();
                    while (seen != turn) seen = load_acquire(counter);
                }
                last = counter;
                float* to = sums + (first_place + t) * (QUERIES * HEAD_DIM) + thread * 4;
                if (turn == 0) {
#pragma unroll
                    for (int n = 0; n < 8; n++)
                        *reinterpret_cast<float4*>(to + n * 512) =
                            make_float4(acc[4 * n], acc[4 * n + 1], acc[4 * n + 2], acc[4 * n + 3]);
                } else {
#pragma unroll
                    for (int n = 0; n < 8; n++)
                        add16(to + n * 512, acc[4 * n], acc[4 * n + 1], acc[4 * n + 2], acc[4 * n + 3]);
                }
            };
            const int both = of.steps_from(of.tile.first + 64);
            for (; step < both; step++) add(Bool<true>());
            for (; step < of.steps; step++) add(Bool<false>());
            barrier_arrive_warp(kv_empty + 8 * kvr.stage);
            kvr.next();
            hand_on();
        }
    } else {
        registers_raise<208>();
        const int worker = group - 1;
        const int lane = threadIdx.x & 31, row0 = worker * 64 + warp_of_group() * 16, row_a = row0 + lane / 4;
        const float factor = scale * LOG2E;
        const u32 q_low = operand_low(q_tiles);
        for (;;) {
            barrier_spin(kv_full + 8 * kvr.stage, kvr.parity);
            const int item = items[kvr.stage];
            if (item >= n_items) break;
            const KeyItem of = key_item(tiles, item, kv_heads);
            const Tile& tile = of.tile;
            const int key0 = tile.first + worker * 64;
            // Steps in which a query sees one of this warpgroup's 64 keys; in the others it only hands the stages on.
            const int own = of.steps_from(key0);
            const u32 k_tile = kv_tiles + kvr.stage * 2 * TILE_BYTES,
                      v_low = operand_low(k_tile + TILE_BYTES + worker * 64 * 128);
            u32 kf[4][4], p[4][4], ds[4][4];
#pragma unroll
            for (int d = 0; d < 4; d++) load_a(kf[d], k_tile, row0, d, lane);
            float s[32], dp[32], dk_acc[32], dv_acc[32];
#pragma unroll
            for (int i = 0; i < 32; i++) dk_acc[i] = dv_acc[i] = 0.0f;
            auto scores = [&]() {
                const u32 low = q_low + qr.stage * (2 * Q_BYTES >> 4);
#pragma unroll
                for (int d = 0; d < 4; d++) product<64>(s, kf[d], operand_at(low, d * 32), d > 0);
                products_commit();
            };
            // Values are read from shared memory: registers have no room for both.
            auto value_scores = [&]() {
                const u32 low = q_low + qr.stage * (2 * Q_BYTES >> 4);
#pragma unroll
                for (int d = 0; d < 4; d++)
                    product<64>(dp, operand_at(v_low, d * 32), operand_at(low, Q_BYTES + d * 32), d > 0);
                products_commit();
            };
            auto probabilities = [&](int step) {
                const int position0 = (of.n_tiles - 1 - step) * STEP_POSITIONS + of.offset;
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    const float2 x = *reinterpret_cast<const float2*>(&lses[qr.stage][n * 8 + 2 * (lane & 3)]);
#pragma unroll
                    for (int i = 0; i < 4; i++) s[4 * n + i] = exp2_fast(s[4 * n + i] * factor - (i & 1 ? x.y : x.x));
                }
                // Apart from the above, so that the many steps without a mask stay free of branches.
                if (position0 < key0 + 63) {
#pragma unroll
                    for (int n = 0; n < 8; n++)
#pragma unroll
                        for (int i = 0; i < 4; i++) {
                            const int key = tile.first + row_a + 8 * (i >> 1),
                                      position = position0 + (n * 8 + 2 * (lane & 3) + (i & 1)) / GROUP;
                            if (key > position) s[4 * n + i] = 0.0f;
                        }
                }
            };
            auto gradients = [&]() {
#pragma unroll
                for (int n = 0; n < 4; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int at = 8 * n + 2 * i;
                        const float2 x =
                            *reinterpret_cast<const float2*>(&deltas[qr.stage][(2 * n + i / 2) * 8 + 2 * (lane & 3)]);
                        ds[n][i] = to_bf16x2(s[at] * (dp[at] - x.x), s[at + 1] * (dp[at + 1] - x.y));
                    }
            };
            auto keys_and_values = [&](int stage) {
                const u32 low = q_low + stage * (2 * Q_BYTES >> 4);
#pragma unroll
                for (int n = 0; n < 4; n++) product<64, true>(dv_acc, p[n], operand_at(low, Q_BYTES + n * 2048), true);
#pragma unroll
                for (int n = 0; n < 4; n++) product<64, true>(dk_acc, ds[n], operand_at(low, n * 2048), true);
                products_commit();
            };
            auto hand_over = [&]() {
                const u32 to = ds_tiles + dsr.stage * TILE_BYTES;
                barrier_spin(ds_empty + 8 * dsr.stage, dsr.parity ^ 1);
#pragma unroll
                for (int n = 0; n < 4; n++)
                    store_matrices(to + swizzled(row0 + (lane & 15), 2 * n + (lane >> 4)), ds[n]);
                fence_async();
                barrier_arrive_warp(ds_full + 8 * dsr.stage);
                dsr.next();
            };
            go_over_queries(
                0, own, qr, q_full, q_empty, s, dp, p, dk_acc, dv_acc, scores, value_scores, probabilities, gradients,
                [&] { return qr.stage; }, keys_and_values, hand_over);
            barrier_arrive_warp(kv_empty + 8 * kvr.stage);
            kvr.next();
            for (int step = own; step < of.steps; step++) {
                barrier_spin(q_full + 8 * qr.stage, qr.parity);
                barrier_arrive_warp(q_empty + 8 * qr.stage);
                qr.next();
                barrier_spin(ds_empty + 8 * dsr.stage, dsr.parity ^ 1);
                barrier_arrive_warp(ds_full + 8 * dsr.stage);
                dsr.next();
            }
            store_keys(dk, dv, dkv_ld, dk_acc, dv_acc, scale, dk_tile, dv_tile, row0, lane, tile, of.kv);
        }
    }
}
