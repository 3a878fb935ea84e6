// What is PTX in sm90.cuh and step.cuh, for block.h: the products of a warpgroup, from registers and from swizzled
// shared memory, rings and barriers, and numbers in device memory that blocks wait for.
//
// Products are done when they are issued: what is read or written too early does not show. One block at a time.
#pragma once
#include "block.h"

inline int warpgroup() { return threadIdx.x >> 7; }
inline int warp_of_group() { return (threadIdx.x >> 5) & 3; }
inline u32 tile_aligned(u32 address) { return (address + 1023) & ~1023u; }
template <int N> void registers_raise() {}
template <int N> void registers_lower() {}
// ---- barriers and rings
inline bool barrier_try(u32 barrier, u32 parity) {
    if ((phases[barrier].phase & 1) == parity) pass();
    return (phases[barrier].phase & 1) != parity;
}
inline void barrier_spin(u32 barrier, u32 parity) { barrier_wait(barrier, parity); }
inline bool __all_sync(u32, bool x) {
    return reduce(x, [](u32 a, u32 b) { return a & b; });
}
template <int N> struct Ring {
    int stage = 0;
    u32 parity;
    explicit Ring(u32 first = 0) : parity(first) {}
    void next() {
        if (++stage == N) stage = 0, parity ^= 1;
    }
    int previous() const { return stage == 0 ? N - 1 : stage - 1; }
};
template <int N> void ring_init(u32 full, u32 empty, u32 fillers, u32 readers) {
    for (int i = 0; i < N; i++) barrier_init(full + 8 * i, fillers), barrier_init(empty + 8 * i, readers);
}
inline void fence_async() {}
// ---- products
inline void products_begin() {}
inline void products_commit() {}
template <int N> void products_wait() {}
template <class... T> void pin(T&...) {}
inline u64 operand(u32 address) { return (u64)address; }
inline u32 operand_low(u32 address) { return (u32)((int)address >> 4); }
inline u64 operand_at(u32 low, u32 bytes) { return operand((low << 4) + bytes); }
// Number `column` of a tile's row, rows of 128 bytes in the 128-byte swizzle.
inline float of_tile(u32 tile, int row, int column) {
    const int bytes = column * 2, chunk = (bytes >> 4) ^ (row & 7);
    bf16 x;
    memcpy(&x, shared_pointer(tile + row * 128 + chunk * 16 + bytes % 16), 2);
    return to_float(x);
}
// Number k of 16 at the operand's row or column n; `rows`: the stored rows are summed over.
inline float of_operand(u64 at, int n, int k, bool rows) {
    const u32 address = (u32)at, into = address & 127;
    return rows ? of_tile(address, k, n) : of_tile(address - into, n, into / 2 + k);
}
template <class A, class B> void multiply(float* d, int columns, bool add, A a, B b) {
    const int lane = threadIdx.x & 31;
    for (int i = 0; i < columns / 2; i++) {
        const int row = warp_of_group() * 16 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + 2 * (lane & 3) + i % 2;
        float sum = add ? d[i] : 0.0f;
        for (int k = 0; k < 16; k++) sum += a(row, k) * b(column, k);
        d[i] = sum;
    }
}
template <int N, bool TRANSPOSED = false, int ROOM> void product(float (&d)[ROOM], u64 a, u64 b, bool add = true) {
    multiply(
        d, N, add, [&](int row, int k) { return of_operand(a, row, k, false); },
        [&](int column, int k) { return of_operand(b, column, k, TRANSPOSED); });
}
template <int N, bool TRANSPOSED = false> void product(float (&d)[N / 2], const u32 (&a)[4], u64 b, bool add) {
    auto& w = W();
    memcpy(w.a[LANE()], a, sizeof a);
    __syncwarp();
    multiply(
        d, N, add,
        [&](int row, int k) {
            const u32 pair = w.a[(row & 7) * 4 + (k & 7) / 2][(row >> 3 & 1) + 2 * (k >= 8)];
            return k & 1 ? high_float(pair) : low_float(pair);
        },
        [&](int column, int k) { return of_operand(b, column, k, TRANSPOSED); });
    __syncwarp();
}
inline void product_of_rows(float (&d)[32], u64 a, u64 b, bool add) {
    multiply(
        d, 64, add, [&](int row, int k) { return of_operand(a, row, k, true); },
        [&](int column, int k) { return of_operand(b, column, k, true); });
}
inline void store_matrices(u32 to, const u32 (&r)[4]) {
    u32 at[4];
    for (int m = 0; m < 4; m++) at[m] = exchange(to, m * 8 + LANE() / 4);
    for (int m = 0; m < 4; m++) memcpy(shared_pointer(at[m]) + (LANE() & 3) * 4, &r[m], 4);
    __syncwarp();
}
// ---- device memory
inline u32 load_relaxed(const u32* from) {
    pass();
    return *from;
}
inline u32 load_acquire(const u32* from) { return load_relaxed(from); }
inline void store_relaxed(u32* to, u32 x) { *to = x; }
inline void fence_device() {}
inline void add16(float* to, float a, float b, float c, float d) { to[0] += a, to[1] += b, to[2] += c, to[3] += d; }
