// What every kernel file shares: types, bf16 conversions, 16-byte accesses, warp reductions, asynchronous copies.
//
// No CUDA header is included anywhere, so that NVRTC needs nothing but our own text: bf16 is its raw 16 bits,
// converted by shifts (exact) and by cvt.rn.bf16 (round to nearest even, sm_80 and later).
#pragma once

typedef unsigned char u8;
typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define FULL_WARP 0xffffffffu

// A constant as an argument.
template <bool B> struct Bool {
    static constexpr bool value = B;
};

__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((u32)x << 16); }
__device__ __forceinline__ float low_float(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_float(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ __forceinline__ bf16 to_bf16(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}
// Two values in one register, the first in the low half.
__device__ __forceinline__ u32 to_bf16x2(float low, float high) {
    u32 y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(FULL_WARP, x, offset);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, offset));
    return x;
}
// The sum over this lane and those before it.
template <typename T> __device__ __forceinline__ T warp_running_sum(T x) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int offset = 1; offset < 32; offset <<= 1) {
        const T other = __shfl_up_sync(FULL_WARP, x, offset);
        if (lane >= offset) x += other;
    }
    return x;
}
__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ __forceinline__ u32 shared_load(u32 from) {
    u32 x;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(from) : "memory");
    return x;
}
__device__ __forceinline__ void shared_load8(u32 from, float (&x)[2]) {
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x[0]), "=f"(x[1]) : "r"(from) : "memory");
}
__device__ __forceinline__ uint4 shared_load16(u32 from) {
    uint4 x;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "r"(from)
                 : "memory");
    return x;
}
__device__ __forceinline__ void shared_store(u32 to, u32 x) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(x) : "memory");
}
__device__ __forceinline__ void shared_store(u32 to, bf16 x) {
    asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"(x) : "memory");
}
__device__ __forceinline__ void shared_store_byte(u32 to, u32 x) {
    asm volatile("st.shared.u8 [%0], %1;" ::"r"(to), "r"(x) : "memory");
}
__device__ __forceinline__ void shared_store8(u32 to, float a, float b) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(a), "f"(b) : "memory");
}
__device__ __forceinline__ void shared_store(u32 to, const u32 (&x)[4]) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
                 : "memory");
}
// 16 bytes from device to shared memory; zeros where `valid` is false.
__device__ __forceinline__ void copy_async16(u32 to, const void* from, bool valid = true) {
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
// The same of 4 bytes.
__device__ __forceinline__ void copy_async4(u32 to, const void* from, bool valid = true) {
    int bytes = valid ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
// 16 bytes are eight bf16: to floats and back.
__device__ __forceinline__ void unpack8(uint4 v, float* f) {
    f[0] = low_float(v.x), f[1] = high_float(v.x), f[2] = low_float(v.y), f[3] = high_float(v.y);
    f[4] = low_float(v.z), f[5] = high_float(v.z), f[6] = low_float(v.w), f[7] = high_float(v.w);
}
__device__ __forceinline__ uint4 pack8(const float* f) {
    return make_uint4(to_bf16x2(f[0], f[1]), to_bf16x2(f[2], f[3]), to_bf16x2(f[4], f[5]), to_bf16x2(f[6], f[7]));
}
// sum of u[i] v[i] over eight numbers, bf16.
__device__ __forceinline__ float dot8(const float (&u)[8], uint4 v) {
    float w[8], sum = 0.0f;
    unpack8(v, w);
#pragma unroll
    for (int i = 0; i < 8; i++) sum += u[i] * w[i];
    return sum;
}
// Asks for the 128 bytes around an address, which are read soon.
__device__ __forceinline__ void prefetch(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
// A byte of memory that nobody writes.
__device__ __forceinline__ u32 load_byte(const u8* from) {
    u32 x;
    asm volatile("{\n.reg .u16 s;\nld.global.nc.u8 s, [%1];\ncvt.u32.u16 %0, s;\n}" : "=r"(x) : "l"(from));
    return x;
}
// Eight floats, the ones at place `c` of such pieces.
__device__ __forceinline__ void load_floats8(const float* from, int c, float* to) {
    float4 a = ((const float4*)from)[2 * c], b = ((const float4*)from)[2 * c + 1];
    to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w, to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
}
__device__ __forceinline__ uint4 load16(const void* p) { return *(const uint4*)p; }
__device__ __forceinline__ void store16(void* p, uint4 v) { *(uint4*)p = v; }
// Orders floats as unsigned integers; -0 counts as 0, so that a tie is a tie.
__device__ __forceinline__ u32 ordered(float x) {
    u32 bits = __float_as_uint(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
// Sum over the block, the same bits in every thread. `scratch` is 32 floats of shared memory, free again on return.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, n_warps = (blockDim.x + 31) >> 5;
    x = warp_sum(x);
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    x = warp_sum(lane < n_warps ? scratch[lane] : 0.0f);
    __syncthreads();
    return x;
}
// The same of the largest of numbers that are not negative; what is not a number does not count.
__device__ __forceinline__ float block_max(float x, float* scratch) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, n_warps = (blockDim.x + 31) >> 5;
    x = warp_max(x);
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    x = warp_max(lane < n_warps ? scratch[lane] : 0.0f);
    __syncthreads();
    return x;
}
