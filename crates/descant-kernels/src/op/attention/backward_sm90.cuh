// What the passes over keys of attention's backward for Hopper share: warpgroups of 64 keys, which go over stacked
// query rows, 64 a step, and keep the gradients of their keys and values in registers.
#pragma once
#include "attention_sm90.cuh"

constexpr int KV_ROWS = KEY_ROWS, KV_WORKERS = KV_ROWS / 64, QUERIES = 64, STEP_POSITIONS = QUERIES / GROUP,
              Q_STAGES = 4;
constexpr int TILE_BYTES = KV_ROWS * 128, Q_BYTES = QUERIES * 128;
static_assert(KV_ROWS == 64 * KV_WORKERS, "warpgroups of 64 keys");

// A warpgroup's steps from `begin` to `end`, each a stage of the ring of queries. The products of neighbouring steps
// overlap: `scores` and `value_scores` issue those of a step's S and dP, `probabilities` and `gradients` make P and dS
// from them, and `keys_and_values` issues what they give to dK and dV. All read the ring's stage; the last comes a step
// later, and gets what `place` said of the stage before. `hand_over` comes when dS is there.
template <class Scores, class ValueScores, class Probabilities, class Gradients, class Place, class KeysAndValues,
          class HandOver>
__device__ __forceinline__ void go_over_queries(int begin, int end, Ring<Q_STAGES>& qr, u32 q_full, u32 q_empty,
                                                float (&s)[32], float (&dp)[32], u32 (&p)[4][4], float (&dk)[32],
                                                float (&dv)[32], Scores scores, ValueScores value_scores,
                                                Probabilities probabilities, Gradients gradients, Place place,
                                                KeysAndValues keys_and_values, HandOver hand_over) {
    // The compiler must see on every path which products are in flight: the last step is separate.
    if (begin >= end) return;
    auto finish = [&](int step) {
        probabilities(step);
        // The last step's products have read P and the stage.
        products_wait<1>();
        pin(dk, dv);
        if (step > begin) barrier_arrive_warp(q_empty + 8 * qr.previous());
        to_left(p, s);
        products_wait<0>();
        pin(dp);
        gradients();
    };
    barrier_spin(q_full + 8 * qr.stage, qr.parity);
    pin(s, dp, dk, dv);
    products_begin();
    scores();
    value_scores();
    products_wait<1>();
    pin(s);
    for (int step = begin; step + 1 < end; step++) {
        finish(step);
        const auto read = place();
        qr.next();
        barrier_spin(q_full + 8 * qr.stage, qr.parity);
        pin(s, dp, dk, dv);
        products_begin();
        // The next scores first: their exponentials run beside the other products.
        scores();
        keys_and_values(read);
        value_scores();
        hand_over();
        products_wait<2>();
        pin(s);
    }
    finish(end - 1);
    pin(dk, dv);
    products_begin();
    keys_and_values(place());
    hand_over();
    products_wait<0>();
    pin(dk, dv);
    barrier_arrive_warp(q_empty + 8 * qr.stage);
    qr.next();
}

// A warp's 16 keys from row `row0` of the tile: their gradients to key head `kv` of `dk` and `dv`, rows `ld` apart,
// through its rows of two tiles in shared memory.
__device__ __forceinline__ void store_keys(bf16* dk, bf16* dv, int ld, const float (&dk_acc)[32],
                                           const float (&dv_acc)[32], float scale, u32 dk_tile, u32 dv_tile, int row0,
                                           int lane, const Tile& tile, int kv) {
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const u32 at = swizzled(row0 + lane / 4 + 8 * h, n) + (lane & 3) * 4;
            shared_store(dk_tile + at, to_bf16x2(dk_acc[4 * n + 2 * h] * scale, dk_acc[4 * n + 2 * h + 1] * scale));
            shared_store(dv_tile + at, to_bf16x2(dv_acc[4 * n + 2 * h], dv_acc[4 * n + 2 * h + 1]));
        }
    __syncwarp();
    const u64 to = (u64)tile.key_start * ld + kv * HEAD_DIM;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = row0 + i * 4 + lane / 8, chunk = lane & 7;
        if (tile.first + row < tile.key_len) {
            const u64 place = to + (u64)(tile.first + row) * ld + chunk * 8;
            *reinterpret_cast<uint4*>(dk + place) = shared_load16(dk_tile + swizzled(row, chunk));
            *reinterpret_cast<uint4*>(dv + place) = shared_load16(dv_tile + swizzled(row, chunk));
        }
    }
    __syncwarp();
}
