// Hopper's own instructions for the attention kernels: warpgroup products, barriers in shared memory, work lists.
//
// Tiles are rows of 64 bf16 (128 bytes) in the 128-byte swizzle, groups of 8 rows behind each other, 1024-aligned.
// The same tile serves as operand with its rows as result columns (K in Q K^T) and with its rows summed over (V in
// P V): only the instruction's transpose bit differs. Loads are cp.async by a producer warpgroup, because rows are
// gathered from segments and zero behind their ends, which a tensor map cannot do.
#pragma once
#include "attention.cuh"
static_assert(HEAD_DIM == 64, "the swizzle and the products below are those of 128-byte rows");

// Which warpgroup, and which warp of it: the same in all lanes, and the compiler is told so, because what depends on
// them goes into uniform registers.
__device__ __forceinline__ int warpgroup() { return __shfl_sync(FULL_WARP, (int)threadIdx.x >> 7, 0); }
__device__ __forceinline__ int warp_of_group() { return __shfl_sync(FULL_WARP, ((int)threadIdx.x >> 5) & 3, 0); }

// ---- barriers
__device__ __forceinline__ void barrier_init(u32 b, u32 count) { asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(b), "r"(count) : "memory"); }
__device__ __forceinline__ void barrier_arrive(u32 b) { asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(b) : "memory"); }
__device__ __forceinline__ bool barrier_try(u32 b, u32 parity) {
    u32 done;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.b32 %0, 1, 0, p; }" : "=r"(done) : "r"(b), "r"(parity) : "memory");
    return done;
}
__device__ __forceinline__ void barrier_wait(u32 b, u32 parity) {
    while (!barrier_try(b, parity)) {}
}
// What a warp has read may be overwritten.
__device__ __forceinline__ void release(u32 b) {
    __syncwarp();
    if ((threadIdx.x & 31) == 0) barrier_arrive(b);
}
// Place in a ring of `N` stages and the parity of its barriers.
template <int N> struct Ring {
    int stage = 0;
    u32 parity = 0;
    __device__ __forceinline__ void next() {
        if (++stage == N) { stage = 0; parity ^= 1; }
    }
};
// The producer's copies in flight: the barrier of a stage is told only when its copies have landed and are visible
// to the tensor cores, one stage late so that two are in flight, and at once when the producer must wait itself.
struct Announcer {
    u32 pending = 0;
    __device__ __forceinline__ void tell() {
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        release(pending);
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
        barrier_wait(empty, parity);
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
template <int BYTES> __device__ __forceinline__ void copy_async_small(u32 to, const void* from, bool valid) {
    int bytes = valid ? BYTES : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(BYTES), "r"(bytes) : "memory");
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
__device__ __forceinline__ void produce_key_steps(Announcer& announcer, Ring<STAGES>& ring, const QueryItem& of, u32 stages, u32 full,
                                                  u32 empty, const bf16* k, const bf16* v, int ld) {
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

// ---- products
template <int N> __device__ __forceinline__ void set_registers_up() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> __device__ __forceinline__ void set_registers_down() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void products_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }
// Keeps the compiler from moving or copying an accumulator across an asynchronous product.
template <int N> __device__ __forceinline__ void pin(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}
// A tile as an operand: address, 1024 bytes from 8 rows to the next 8, 128-byte swizzle.
__device__ __forceinline__ u64 operand(u32 address) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)1 << 16 | (u64)64 << 32 | (u64)1 << 62;
}
// `d` (+)= A B: A from shared memory or registers; `add` false starts at zero. B's stored rows are result columns in
// `product`, and summed over in `product_by_rows`.
__device__ __forceinline__ void product(float (&d)[40], u64 a, u64 b, bool add) {
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %42, 0; "
        "wgmma.mma_async.sync.aligned.m64n80k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39}, "
        "%40, %41, p, 1, 1, 0, 0; }"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
          "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39])
        : "l"(a), "l"(b), "r"((int)add));
}
__device__ __forceinline__ void product(float (&d)[32], u64 a, u64 b, bool add) {
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %34, 0; "
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, p, 1, 1, 0, 0; }"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "l"(a), "l"(b), "r"((int)add));
}
__device__ __forceinline__ void product(float (&d)[32], const u32 (&a)[4], u64 b, bool add) {
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %37, 0; "
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, p, 1, 1, 0; }"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add));
}
__device__ __forceinline__ void product_by_rows(float (&d)[32], const u32 (&a)[4], u64 b, bool add) {
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %37, 0; "
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, p, 1, 1, 1; }"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add));
}
