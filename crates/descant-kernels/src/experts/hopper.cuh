// Hopper's own instructions as functions: barriers in shared memory, register hand-over between warpgroups, and the
// matrix product of a warpgroup. Only for sm_90a.
#pragma once

__device__ __forceinline__ void barrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives when all copies of this thread so far have landed; one of the arrivals that the barrier expects.
__device__ __forceinline__ void copy_arrive(u32 barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
// Returns when the phase with this parity is complete.
__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n.reg .pred done;\nWAIT:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra DONE;\nbra WAIT;\nDONE:\n}" ::"r"(barrier),
        "r"(parity)
        : "memory");
}
// Ordinary stores to shared memory become visible to the tensor cores.
__device__ __forceinline__ void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// A tensor in device memory as the host describes it to the tensor copies.
struct alignas(64) TensorMap {
    u64 words[16];
};
// One arrival, and so many bytes of copies that the phase waits for.
__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// The box at column x, row y; zeros outside of the tensor.
__device__ __forceinline__ void tensor_copy(u32 to, const TensorMap& map, int x, int y, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(&map), "r"(x), "r"(y), "r"(barrier)
                 : "memory");
}
template <int N> __device__ __forceinline__ void registers_raise() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ __forceinline__ void registers_lower() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
// Threads of one named barrier.
__device__ __forceinline__ void threads_sync(int name, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

__device__ __forceinline__ void product_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void product_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void product_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// Describes a tile in shared memory with 128-byte swizzle. `leading` and `stride` are in bytes: between the 8-row
// groups (`stride`), and between the 64-element columns of a tile that is contiguous along M or N (`leading`).
__device__ __forceinline__ u64 tile_descriptor(u32 address, u32 leading, u32 stride) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)(leading >> 4) << 16 | (u64)(stride >> 4) << 32 | (u64)1 << 62;
}

#define F4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define F16(d, i) F4(d, i), F4(d, i + 4), F4(d, i + 8), F4(d, i + 12)
#define F32(d, i) F16(d, i), F16(d, i + 16)
#define LIST_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define LIST_32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, " \
    "%23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LIST_48 \
    LIST_32 \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define LIST_64 \
    LIST_32 \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, " \
    "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define LIST_72 \
    LIST_64 \
    ", %64, %65, %66, %67, %68, %69, %70, %71"
#define LIST_80 \
    LIST_64 \
    ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define LIST_96 \
    LIST_64 \
    ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, " \
    "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define LIST_112 \
    LIST_96 \
    ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define LIST_128 \
    LIST_96 \
    ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113," \
    " %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// d[64 x N] += a[64 x 16] · b[16 x N], f32 from bf16, both from shared memory; d may have room for more columns.
// `TRANSPOSED`: b is contiguous along its columns.
template <int N, bool TRANSPOSED, int ROOM> __device__ __forceinline__ void product(float (&d)[ROOM], u64 a, u64 b) {
    static_assert(N == 64 || N == 128 || N == 192 || N == 256, "a width of wgmma that we use");
    if constexpr (N == 64)
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" LIST_32 "}, %32, %33, 1, 1, 1, 0, %34;"
                     : F32(d, 0)
                     : "l"(a), "l"(b), "n"(TRANSPOSED));
    if constexpr (N == 128)
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" LIST_64 "}, %64, %65, 1, 1, 1, 0, %66;"
                     : F32(d, 0), F32(d, 32)
                     : "l"(a), "l"(b), "n"(TRANSPOSED));
    if constexpr (N == 192)
        asm volatile("wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {" LIST_96 "}, %96, %97, 1, 1, 1, 0, %98;"
                     : F32(d, 0), F32(d, 32), F32(d, 64)
                     : "l"(a), "l"(b), "n"(TRANSPOSED));
    if constexpr (N == 256)
        asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" LIST_128 "}, %128, %129, 1, 1, 1, 0, %130;"
                     : F32(d, 0), F32(d, 32), F32(d, 64), F32(d, 96)
                     : "l"(a), "l"(b), "n"(TRANSPOSED));
}

// d[64 x N] += a[64 x 16] · b[16 x N], a from registers in the fragments of mma.sync, b from shared memory.
template <int N> __device__ __forceinline__ void product_registers(float (&d)[N / 2], const u32 (&a)[4], u64 b) {
    static_assert(N % 16 == 0 && N <= 256, "a width of wgmma that we use");
    if constexpr (N == 32)
        asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" LIST_16 "}, {%16, %17, %18, %19}, %20, 1, 1, 1, 0;"
                     : F16(d, 0)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    if constexpr (N == 64)
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" LIST_32 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
                     : F32(d, 0)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    if constexpr (N == 96)
        asm volatile("wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {" LIST_48 "}, {%48, %49, %50, %51}, %52, 1, 1, 1, 0;"
                     : F32(d, 0), F16(d, 32)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    if constexpr (N == 128)
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" LIST_64 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 0;"
                     : F32(d, 0), F32(d, 32)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    if constexpr (N == 144)
        asm volatile("wgmma.mma_async.sync.aligned.m64n144k16.f32.bf16.bf16 {" LIST_72 "}, {%72, %73, %74, %75}, %76, 1, 1, 1, 0;"
                     : F32(d, 0), F32(d, 32), F4(d, 64), F4(d, 68)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    if constexpr (N == 160)
        asm volatile("wgmma.mma_async.sync.aligned.m64n160k16.f32.bf16.bf16 {" LIST_80 "}, {%80, %81, %82, %83}, %84, 1, 1, 1, 0;"
                     : F32(d, 0), F32(d, 32), F16(d, 64)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    if constexpr (N == 192)
        asm volatile("wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {" LIST_96 "}, {%96, %97, %98, %99}, %100, 1, 1, 1, 0;"
                     : F32(d, 0), F32(d, 32), F32(d, 64)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    if constexpr (N == 224)
        asm volatile("wgmma.mma_async.sync.aligned.m64n224k16.f32.bf16.bf16 {" LIST_112 "}, {%112, %113, %114, %115}, %116, 1, 1, 1, 0;"
                     : F32(d, 0), F32(d, 32), F32(d, 64), F16(d, 96)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    if constexpr (N == 256)
        asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" LIST_128 "}, {%128, %129, %130, %131}, %132, 1, 1, 1, 0;"
                     : F32(d, 0), F32(d, 32), F32(d, 64), F32(d, 96)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
