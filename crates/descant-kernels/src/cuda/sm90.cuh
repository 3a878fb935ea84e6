// Hopper's own instructions as functions, only for sm_90a: barriers in shared memory and rings of stages, hand-over of
// registers between warpgroups, tensor copies, and the matrix products of a warpgroup.
//
// Tiles are rows of 64 bf16 (128 bytes) in the 128-byte swizzle, groups of 8 rows behind each other, 1024-aligned.
#pragma once
#include "barrier.cuh"

// Which warpgroup, and which warp of it: the same in all lanes, and made known to the compiler, because what depends on
// them goes into uniform registers.
__device__ __forceinline__ int warpgroup() { return __shfl_sync(FULL_WARP, (int)threadIdx.x >> 7, 0); }
__device__ __forceinline__ int warp_of_group() { return __shfl_sync(FULL_WARP, ((int)threadIdx.x >> 5) & 3, 0); }
// The first address from here on where a tile may begin.
__device__ __forceinline__ u32 tile_aligned(u32 address) { return (address + 1023) & ~1023u; }
// One lane of a warp whose lanes are all here, known to the compiler as one: what it issues needs no loop over lanes.
__device__ __forceinline__ bool is_elected() {
    u32 elected;
    asm volatile("{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.b32 %0, 1, 0, p; }" : "=r"(elected));
    return elected;
}

// ---- barriers
// After the last barrier_init, before the block meets.
__device__ __forceinline__ void barriers_made() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
// One arrival, and so many bytes of tensor copies that the phase waits for.
__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Whether the phase with this parity is complete.
__device__ __forceinline__ bool barrier_try(u32 barrier, u32 parity) {
    u32 done;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.b32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return done;
}
// Returns when it is. The loop is the assembler's: the compiler must not move code into it.
__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
    asm volatile(
        "{ .reg .pred p;\nWAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra WAIT; }" ::"r"(barrier),
        "r"(parity)
        : "memory");
}
// barrier_wait with a loop that the compiler sees: around the assembler's it schedules these kernels otherwise.
__device__ __forceinline__ void barrier_spin(u32 barrier, u32 parity) {
    while (!barrier_try(barrier, parity)) {}
}
// A place in a ring of `N` stages, and the parity of the phase of its barriers that is waited for. Who fills begins
// with 1: the stages are empty, and nobody had to empty them.
template <int N> struct Ring {
    int stage = 0;
    u32 parity;
    __device__ __forceinline__ explicit Ring(u32 first = 0) : parity(first) {}
    __device__ __forceinline__ void next() {
        if (++stage == N) stage = 0, parity ^= 1;
    }
    __device__ __forceinline__ int previous() const { return stage == 0 ? N - 1 : stage - 1; }
};
// Its barriers: the arrivals that make a stage full, and those that make it empty.
template <int N> __device__ __forceinline__ void ring_init(u32 full, u32 empty, u32 fillers, u32 readers) {
    for (int i = 0; i < N; i++) {
        barrier_init(full + 8 * i, fillers);
        barrier_init(empty + 8 * i, readers);
    }
}
// Ordinary stores and asynchronous copies to shared memory become visible to the tensor cores.
__device__ __forceinline__ void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- blocks of a cluster, which see each other's shared memory
// Returns when all threads of all its blocks are here; what they wrote can be read.
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
// Its halves: says that this thread is here, and waits for all others.
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }
// Writes a number to block `rank`, at the place that `to` is in this one.
__device__ __forceinline__ void cluster_store(u32 to, u32 rank, float x) {
    asm volatile("{ .reg .u32 at;\nmapa.shared::cluster.u32 at, %0, %1;\nst.shared::cluster.f32 [at], %2; }" ::"r"(to),
                 "r"(rank), "f"(x)
                 : "memory");
}
// 16 bytes of block `rank`, at the place that `from` is in this one.
__device__ __forceinline__ float4 cluster_load16(u32 from, u32 rank) {
    float4 x;
    asm volatile(
        "{ .reg .u32 at;\nmapa.shared::cluster.u32 at, %4, %5;\n"
        "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [at]; }"
        : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
        : "r"(from), "r"(rank)
        : "memory");
    return x;
}

// ---- tensor copies
// A tensor in device memory as the host describes it.
struct alignas(64) TensorMap {
    u64 words[16];
};
// The box at column x, row y; zeros outside of the tensor.
__device__ __forceinline__ void tensor_copy(u32 to, const TensorMap& map, int x, int y, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
        "l"(&map), "r"(x), "r"(y), "r"(barrier)
        : "memory");
}

// A piece of memory, `bytes` and both addresses multiples of 16.
__device__ __forceinline__ void bulk_copy(u32 to, const void* from, u32 bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

// Four 8 x 8 matrices from the fragments of mma.sync; a lane has the address of one row.
__device__ __forceinline__ void store_matrices(u32 to, const u32 (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(r[0]), "r"(r[1]),
                 "r"(r[2]), "r"(r[3])
                 : "memory");
}
// The same of matrices that are turned: a thread has two rows of a column.
__device__ __forceinline__ void store_matrices_transposed(u32 to, const u32 (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(r[0]),
                 "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

// ---- numbers in device memory that blocks wait for
__device__ __forceinline__ u32 load_relaxed(const u32* from) {
    u32 x;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(from) : "memory");
    return x;
}
__device__ __forceinline__ u32 load_acquire(const u32* from) {
    u32 x;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(from) : "memory");
    return x;
}
__device__ __forceinline__ void store_relaxed(u32* to, u32 x) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(x) : "memory");
}
// What this thread wrote comes before what it writes next, and what it read before what it reads next, for all blocks.
__device__ __forceinline__ void fence_device() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
// Adds four floats where they lie, 16-aligned.
__device__ __forceinline__ void add16(float* to, float a, float b, float c, float d) {
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(a), "f"(b), "f"(c), "f"(d)
                 : "memory");
}

// ---- registers from the warpgroups that load to those that multiply
template <int N> __device__ __forceinline__ void registers_raise() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ __forceinline__ void registers_lower() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

// ---- products: begin, any number of them, commit; wait until at most N commits are not done
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// Keeps the compiler from moving or copying accumulators across an asynchronous product.
template <int N> __device__ __forceinline__ void pin(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}
template <class First, class... Others> __device__ __forceinline__ void pin(First& first, Others&... others) {
    pin(first);
    pin(others...);
}
// A tile as an operand. `leading` is bytes between the 64-element columns of a tile that is contiguous along M or N.
__device__ __forceinline__ u64 operand(u32 address, u32 leading = 16) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)(leading >> 4) << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}
// The same in halves: the low word, to which places in a tile are added, and whole again, `bytes` further.
__device__ __forceinline__ u32 operand_low(u32 address) { return (u32)operand(address); }
__device__ __forceinline__ u64 operand_at(u32 low, u32 bytes) {
    return (u64)(low + (bytes >> 4)) | (u64)(1024 >> 4 | 1 << 30) << 32;
}

// An accumulator of N columns is N / 2 operands of the instruction, the first ones; what follows is numbered from
// there.
#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D8(i) D4(i), D4(i + 4)
#define D16(i) D8(i), D8(i + 8)
#define D32 D16(0), D16(16)
#define D40 D32, D8(32)
#define D48 D32, D16(32)
#define D56 D48, D8(48)
#define D64 D48, D16(48)
#define D72 D64, D8(64)
#define D80 D64, D16(64)
#define D96 D80, D16(80)
#define P32                                                                                                          \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31"
#define P40 P32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define P48 P40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define P56 P48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define P64 P48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define P72 P64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define P80 P72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define P96 P80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
// `at` is the number of operands in `d`, and the ones behind it those of the other operands.
#define WGMMA "wgmma.mma_async.sync.aligned.m64n"
#define FROM_SHARED(n, at, at1, at2, at3)                                                             \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #at2 ", 0; " WGMMA #n "k16.f32.bf16.bf16 {" P##at \
                 "}, %" #at ", %" #at1 ", p, 1, 1, 0, %" #at3 "; }"                                   \
                 : D##at                                                                              \
                 : "l"(a), "l"(b), "r"((int)add), "n"(TRANSPOSED))
#define FROM_REGISTERS(n, at, at1, at2, at3, at4, at5, before, scale, after, ...)                                     \
    asm volatile(before WGMMA #n "k16.f32.bf16.bf16 {" P##at "}, {%" #at ", %" #at1 ", %" #at2 ", %" #at3 "}, %" #at4 \
                                                             ", " scale ", 1, 1, %" #at5 ";" after                    \
                 : D##at                                                                                              \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(TRANSPOSED)__VA_ARGS__)

#define E5M2_E4M3(n, at, at1, at2, at3, at4, ...)                                                              \
    asm volatile(WGMMA #n "k32.f32.e5m2.e4m3 {" P##at "}, {%" #at ", %" #at1 ", %" #at2 ", %" #at3 "}, %" #at4 \
                                                      ", 1, 1, 1;"                                             \
                 : D##at                                                                                       \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

// d[64 x N] (+)= a[64 x 16] · b[16 x N], f32 from bf16, both from shared memory; `add` false starts at zero, and d may
// have room for more columns. b's stored rows are result columns, or, `TRANSPOSED`, summed over.
template <int N, bool TRANSPOSED = false, int ROOM>
__device__ __forceinline__ void product(float (&d)[ROOM], u64 a, u64 b, bool add = true) {
    static_assert(N == 64 || N == 80 || N == 128, "a width that we use");
    static_assert(N / 2 <= ROOM, "room for the columns");
    if constexpr (N == 64) FROM_SHARED(64, 32, 33, 34, 35);
    if constexpr (N == 80) FROM_SHARED(80, 40, 41, 42, 43);
    if constexpr (N == 128) FROM_SHARED(128, 64, 65, 66, 67);
}
// The same with a from registers, in the fragments of mma.sync.
template <int N, bool TRANSPOSED = false>
__device__ __forceinline__ void product(float (&d)[N / 2], const u32 (&a)[4], u64 b, bool add) {
    static_assert(N == 64, "a width that we use");
    FROM_REGISTERS(64, 32, 33, 34, 35, 36, 37, "{ .reg .pred p; setp.ne.b32 p, %38, 0; ", "p", " }", , "r"((int)add));
}
// Every width that we use, with the numbers of the operands behind d.
#define OF_WIDTHS(form)                                                                     \
    static_assert(N == 192 || (N % 16 == 0 && N >= 64 && N <= 160), "a width that we use"); \
    if constexpr (N == 64) form(64, 32, 33, 34, 35, 36, 37);                                \
    if constexpr (N == 80) form(80, 40, 41, 42, 43, 44, 45);                                \
    if constexpr (N == 96) form(96, 48, 49, 50, 51, 52, 53);                                \
    if constexpr (N == 112) form(112, 56, 57, 58, 59, 60, 61);                              \
    if constexpr (N == 128) form(128, 64, 65, 66, 67, 68, 69);                              \
    if constexpr (N == 144) form(144, 72, 73, 74, 75, 76, 77);                              \
    if constexpr (N == 160) form(160, 80, 81, 82, 83, 84, 85);                              \
    if constexpr (N == 192) form(192, 96, 97, 98, 99, 100, 101)
#define BF16_BF16(...) FROM_REGISTERS(__VA_ARGS__, "", "1", "")
template <int N, bool TRANSPOSED = false>
__device__ __forceinline__ void product(float (&d)[N / 2], const u32 (&a)[4], u64 b) {
    OF_WIDTHS(BF16_BF16);
}
// d[64 x N] += a[64 x 32] · b[32 x N], f32 from e5m2 (a, from registers) and e4m3; N as above.
template <int N> __device__ __forceinline__ void product_fp8(float (&d)[N / 2], const u32 (&a)[4], u64 b) {
    OF_WIDTHS(E5M2_E4M3);
}
// The same of 64 x 64 with both from shared memory and summed over stored rows: a is stored [16 x 64] as well.
__device__ __forceinline__ void product_of_rows(float (&d)[32], u64 a, u64 b, bool add) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0; " WGMMA "64k16.f32.bf16.bf16 {" P32
                 "}, %32, %33, p, 1, 1, 1, 1; }"
                 : D32
                 : "l"(a), "l"(b), "r"((int)add));
}
#undef WGMMA
#undef FROM_SHARED
#undef FROM_REGISTERS
#undef E5M2_E4M3
