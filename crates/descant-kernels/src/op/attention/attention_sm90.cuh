// What the attention kernels for Hopper share: the producer's loads, and the walk over the work list.
//
// The same tile serves as operand with its rows as result columns (K in Q K^T) and with its rows summed over (V in
// P V): only the instruction's transpose bit differs. Loads are cp.async by a producer warpgroup, because rows are
// gathered from segments and zero behind their ends, which a tensor map cannot do.
#pragma once
#include "attention.cuh"
#include "sm90.cuh"
static_assert(HEAD_DIM == 64, "the swizzle and the products below are those of 128-byte rows");

// The producer's copies in flight: the barrier of a stage is signalled when its copies have landed and are visible
// to the tensor cores, one stage late so that two are in flight, and at once when the producer must wait itself.
struct Announcer {
    u32 pending = 0;
    __device__ __forceinline__ void tell() {
        fence_async();
        barrier_arrive_warp(pending);
    }
    __device__ __forceinline__ void copies_issued(u32 full) {
        copy_commit();
        if (pending) {
            copy_wait<1>();
            tell();
        }
        pending = full;
    }
    __device__ __forceinline__ void flush() {
        if (pending) {
            copy_wait<0>();
            tell();
        }
        pending = 0;
    }
    __device__ __forceinline__ void acquire(u32 empty, u32 parity) {
        if (__all_sync(FULL_WARP, barrier_try(empty, parity))) return;
        flush();
        barrier_spin(empty, parity);
    }
};

// ---- loads by 128 threads, 16 rows a pass: few registers, since the producer has few. Where a copy is not valid its
// address is not read.
template <int ROWS>
__device__ __forceinline__ void produce_keys(u32 to, const bf16* from, int ld, int first, int end) {
    const int row = threadIdx.x >> 3, chunk = threadIdx.x & 7;
    const bf16* p = from + (u64)(first + row) * ld + chunk * 8;
    to += swizzled(row, chunk);
    int left = end - first - row;
#pragma unroll
    for (int i = 0; i < ROWS / 16; i++) {
        copy_async16(to + i * 2048, p, left > i * 16);
        p += 16 * ld;
    }
}
template <int ROWS>
__device__ __forceinline__ void produce_queries(u32 to, const bf16* from, int ld, int first, int end) {
    const int row = threadIdx.x >> 3, chunk = threadIdx.x & 7;
    to += swizzled(row, chunk);
    if (16 % GROUP == 0) {
        const int position = first + row / GROUP;
        const bf16* p = from + (u64)position * ld + row % GROUP * HEAD_DIM + chunk * 8;
#pragma unroll
        for (int i = 0; i < ROWS / 16; i++) {
            copy_async16(to + i * 2048, p, position + i * (16 / GROUP) < end);
            p += 16 / GROUP * ld;
        }
    } else {
#pragma unroll 1
        for (int i = 0; i < ROWS / 16; i++) {
            const int r = row + i * 16, position = first + r / GROUP;
            copy_async16(to + i * 2048, from + (u64)position * ld + r % GROUP * HEAD_DIM + chunk * 8,
                         r / GROUP < ROWS / GROUP && position < end);
        }
    }
}

// An accumulator of 16 N columns as left operands, in bf16.
template <int N> __device__ __forceinline__ void to_left(u32 (&left)[N][4], const float (&x)[8 * N]) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) left[n][i] = to_bf16x2(x[8 * n + 2 * i], x[8 * n + 2 * i + 1]);
}

// ---- work: items are sorted by falling size; blocks take them in rounds, every second one backwards, so that sums
// come out even without a counter.
__device__ __forceinline__ int item_of_round(int round) {
    return round * gridDim.x + ((round & 1) ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
}

// A tile of queries of one key head, and the keys that some query of it sees: [low, last].
struct QueryItem {
    int kv, offset, last, low;
    Tile tile;
};
template <int POSITIONS>
__device__ __forceinline__ QueryItem query_item(const int* tiles, int item, int kv_heads, int window) {
    QueryItem of;
    of.kv = item % kv_heads;
    of.tile = read_tile(tiles, item / kv_heads);
    of.offset = of.tile.key_len - of.tile.query_len;
    of.last = min(of.tile.first + POSITIONS, of.tile.query_len) - 1 + of.offset;
    of.low = window > 0 ? max(0, of.tile.first + of.offset - window + 1) : 0;
    return of;
}
// The producer's part of a walk over those keys: a stage holds `KEYS` keys and behind them their values.
template <int KEYS, int STAGES>
__device__ __forceinline__ void produce_key_steps(Announcer& announcer, Ring<STAGES>& ring, const QueryItem& of,
                                                  u32 stages, u32 full, u32 empty, const bf16* k, const bf16* v,
                                                  int ld) {
    const u64 from = (u64)of.tile.key_start * ld + of.kv * HEAD_DIM;
    for (int key0 = of.low; key0 <= of.last; key0 += KEYS) {
        announcer.acquire(empty + 8 * ring.stage, ring.parity ^ 1);
        const u32 to = stages + ring.stage * 2 * KEYS * 128;
        produce_keys<KEYS>(to, k + from, ld, key0, of.last + 1);
        produce_keys<KEYS>(to + KEYS * 128, v + from, ld, key0, of.last + 1);
        announcer.copies_issued(full + 8 * ring.stage);
        ring.next();
    }
}
