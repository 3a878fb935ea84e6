// A block of CUDA threads as contexts of one thread of the host, which change places where they wait, so that the text
// of a kernel runs where there is no card: shuffles, ballots, reductions, barriers, mma.sync, ldmatrix and movmatrix as
// PTX defines them; asynchronous copies at once.
//
// What it does not show: races that a card's order of work has and this one has not, programmatic launches, speed.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <ucontext.h>
#include <vector>
#include <cstdio>
#include <cstdlib>
#include <random>
typedef unsigned char u8;
typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;
using std::max;
using std::min;
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define FULL_WARP 0xffffffffu
struct uint2 {
    u32 x, y;
};
struct alignas(16) uint4 {
    u32 x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
template <bool B> struct Bool {
    static constexpr bool value = B;
};
inline float4 make_float4(float a, float b, float c, float d) { return {a, b, c, d}; }
inline uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
inline uint4 make_uint4(u32 a, u32 b, u32 c, u32 d) { return {a, b, c, d}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
struct Dim {
    int x, y, z;
};
inline Dim threadIdx, blockIdx;
inline Dim gridDim, blockDim;
// The threads of a block, and who is on.
struct Context {
    ucontext_t state;
    std::unique_ptr<char[]> stack;
    bool done = false;
};
inline std::vector<Context> contexts;
inline ucontext_t outside;
inline int current;
inline std::function<void()> body;
// The next thread that is not done takes over; in the end whoever began.
inline void pass() {
    const int from = current, n = (int)contexts.size();
    for (int i = 1; i <= n; i++) {
        const int to = (from + i) % n;
        if (contexts[to].done) continue;
        if (to == from) return;
        current = to, threadIdx = {to, 0, 0};
        swapcontext(&contexts[from].state, &contexts[to].state);
        return;
    }
    swapcontext(&contexts[from].state, &outside);
}
struct Barrier {
    int expected, arrived = 0;
    long phase = 0;
    explicit Barrier(int expected) : expected(expected) {}
    void complete() {
        if (arrived == expected) arrived = 0, phase++;
    }
    void arrive_and_wait() {
        const long mine = phase;
        arrived++, complete();
        while (phase == mine) pass();
    }
    void arrive_and_drop() { expected--, complete(); }
};
struct Warp {
    Barrier bar{32};
    u32 slot[32];
    uint4 wide[32];
    float f[32][8];
    u32 a[32][4], b[32][2];
};
inline std::vector<std::unique_ptr<Warp>> warps;
inline std::unique_ptr<Barrier> block_bar;
inline Warp& W() { return *warps[threadIdx.x / 32]; }
inline int LANE() { return threadIdx.x & 31; }
inline void __syncwarp() { W().bar.arrive_and_wait(); }
inline void __syncthreads() { block_bar->arrive_and_wait(); }
template <class T> T exchange(T v, int from) {
    auto& w = W();
    u32 bits;
    memcpy(&bits, &v, 4);
    w.slot[LANE()] = bits;
    __syncwarp();
    bits = w.slot[from & 31];
    __syncwarp();
    memcpy(&v, &bits, 4);
    return v;
}
template <class T> T __shfl_xor_sync(u32, T v, int x) { return exchange(v, LANE() ^ x); }
template <class T> T __shfl_sync(u32, T v, int l) { return exchange(v, l); }
template <class T> T __shfl_up_sync(u32, T v, int d) {
    int l = LANE() - d;
    return exchange(v, l < 0 ? LANE() : l);
}
template <class F> u32 reduce(u32 v, F f) {
    auto& w = W();
    w.slot[LANE()] = v;
    __syncwarp();
    u32 r = w.slot[0];
    for (int i = 1; i < 32; i++) r = f(r, w.slot[i]);
    __syncwarp();
    return r;
}
inline u32 __reduce_max_sync(u32, u32 v) {
    return reduce(v, [](u32 a, u32 b) { return std::max(a, b); });
}
inline u32 __reduce_min_sync(u32, u32 v) {
    return reduce(v, [](u32 a, u32 b) { return std::min(a, b); });
}
inline int __reduce_add_sync(u32, int v) {
    return (int)reduce((u32)v, [](u32 a, u32 b) { return a + b; });
}
inline u32 __match_any_sync(u32, int v) {
    auto& w = W();
    w.slot[LANE()] = (u32)v;
    __syncwarp();
    u32 r = 0;
    for (int i = 0; i < 32; i++) r |= (u32)(w.slot[i] == (u32)v) << i;
    __syncwarp();
    return r;
}
inline bool __any_sync(u32, bool x) {
    return reduce(x, [](u32 a, u32 b) { return a | b; });
}
inline u32 __ballot_sync(u32, bool x) {
    return reduce((u32)x << LANE(), [](u32 a, u32 b) { return a | b; });
}
inline int __popc(u32 x) { return __builtin_popcount(x); }
inline int __ffs(u32 x) { return __builtin_ffs((int)x); }
template <class T> T warp_running_sum(T x) {
    for (int offset = 1; offset < 32; offset <<= 1) {
        const T other = __shfl_up_sync(0, x, offset);
        if (LANE() >= offset) x += other;
    }
    return x;
}
inline u32 __float_as_uint(float x) {
    u32 y;
    memcpy(&y, &x, 4);
    return y;
}
inline float __uint_as_float(u32 x) {
    float y;
    memcpy(&y, &x, 4);
    return y;
}
inline float __int_as_float(int x) { return __uint_as_float(x); }
inline float to_float(bf16 x) { return __uint_as_float((u32)x << 16); }
inline float low_float(u32 p) { return __uint_as_float(p << 16); }
inline float high_float(u32 p) { return __uint_as_float(p & 0xffff0000u); }
inline bf16 to_bf16(float x) {
    u32 b = __float_as_uint(x);
    if (std::isnan(x)) return 0x7fff;
    b += 0x7fff + ((b >> 16) & 1);
    return b >> 16;
}
inline u32 to_bf16x2(float lo, float hi) { return (u32)to_bf16(lo) | (u32)to_bf16(hi) << 16; }
inline void unpack8(uint4 v, float* f) {
    u32 w[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; i++) f[2 * i] = low_float(w[i]), f[2 * i + 1] = high_float(w[i]);
}
inline uint4 pack8(const float* f) {
    return {to_bf16x2(f[0], f[1]), to_bf16x2(f[2], f[3]), to_bf16x2(f[4], f[5]), to_bf16x2(f[6], f[7])};
}
inline float dot8(const float (&u)[8], uint4 v) {
    float w[8], sum = 0.0f;
    unpack8(v, w);
    for (int i = 0; i < 8; i++) sum += u[i] * w[i];
    return sum;
}
inline uint4 load16(const void* p) {
    if ((uintptr_t)p % 16) {
        puts("unaligned load16");
        abort();
    }
    return *(const uint4*)p;
}
inline void store16(void* p, uint4 v) {
    if ((uintptr_t)p % 16) {
        puts("unaligned store16");
        abort();
    }
    *(uint4*)p = v;
}
inline float warp_sum(float x) {
    for (int o = 16; o > 0; o >>= 1) x += __shfl_xor_sync(FULL_WARP, x, o);
    return x;
}
inline float warp_max(float x) {
    for (int o = 16; o > 0; o >>= 1) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, o));
    return x;
}
alignas(1024) inline char shared_base;  // as shared memory is aligned
inline u32 shared_address(const void* p) { return (u32)(int)((const char*)p - &shared_base); }
inline char* shared_pointer(u32 a) { return &shared_base + (int)a; }
template <class T> T loaded(u32 from) {
    if ((uintptr_t)shared_pointer(from) % sizeof(T)) puts("unaligned load"), abort();
    T x;
    memcpy(&x, shared_pointer(from), sizeof x);
    return x;
}
inline u32 shared_load(u32 from) { return loaded<u32>(from); }
inline uint4 shared_load16(u32 from) { return loaded<uint4>(from); }
inline void shared_load8(u32 from, float (&x)[2]) { memcpy(x, shared_pointer(from), 8); }
inline void shared_store(u32 to, u32 x) { memcpy(shared_pointer(to), &x, 4); }
inline void shared_store(u32 to, const u32 (&x)[4]) { memcpy(shared_pointer(to), x, 16); }
inline void shared_store(u32 to, bf16 x) { memcpy(shared_pointer(to), &x, 2); }
inline u32 load_byte(const u8* from) { return *from; }
inline void copy_async16(u32 to, const void* from, bool valid = true) {
    char* p = shared_pointer(to);
    if ((uintptr_t)p % 16 || (uintptr_t)from % 16) {
        puts("unaligned copy");
        abort();
    }
    if (valid)
        memcpy(p, from, 16);
    else
        memset(p, 0, 16);
}
inline void copy_async4(u32 to, const void* from, bool valid = true) {
    shared_store(to, valid ? *(const u32*)from : 0);
}
inline void copy_commit() {}
template <int N> void copy_wait() {}
inline void prefetch(const void*) {}
inline void next_may_start() {}
inline void wait_for_earlier() {}
inline void __threadfence() {}
template <class T> T __ldcg(const T* p) { return *p; }
template <class T, class U> void __stcg(T* p, U v) { *p = v; }
inline float __expf(float x) { return expf(x); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline u32 atomicAdd(u32* p, u32 v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
inline int atomicAdd(int* p, int v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
inline void atomicMax(unsigned long long* p, unsigned long long v) {
    for (auto have = *p; have < v && !__atomic_compare_exchange_n(p, &have, v, false, 5, 5);) {}
}
inline u32 ordered(float x) {
    const u32 bits = __float_as_uint(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
// mma
inline void multiply16(float* d, const u32 (&a)[4], u32 b0, u32 b1) {
    auto& w = W();
    int l = LANE(), g = l >> 2, q = l & 3;
    for (int i = 0; i < 4; i++) w.a[l][i] = a[i];
    w.b[l][0] = b0;
    w.b[l][1] = b1;
    __syncwarp();
    auto half = [](u32 x, int i) { return i ? high_float(x) : low_float(x); };
    auto A = [&](int r, int k) {
        int reg = (r >= 8) + 2 * (k >= 8), kk = k & 7;
        return half(w.a[(r & 7) * 4 + kk / 2][reg], kk & 1);
    };
    auto B = [&](int k, int n) {
        int kk = k & 7;
        return half(w.b[n * 4 + kk / 2][k >= 8], kk & 1);
    };
    for (int i = 0; i < 4; i++) {
        int r = g + 8 * (i >= 2), n = q * 2 + (i & 1);
        float s = 0;
        for (int k = 0; k < 16; k++) s += A(r, k) * B(k, n);
        d[i] += s;
    }
    __syncwarp();
}
inline void multiply16_onto(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, const float* c) {
    for (int i = 0; i < 4; i++) d[i] = c[i];
    multiply16(d, a, b0, b1);
}
inline void ldm(u32 (&r)[4], u32 from, bool t) {
    auto& w = W();
    int l = LANE(), g = l >> 2, q = l & 3;
    char* p = shared_pointer(from);
    if ((uintptr_t)p % 16) {
        puts("unaligned ldmatrix");
        abort();
    }
    memcpy(&w.wide[l], p, 16);
    __syncwarp();
    for (int m = 0; m < 4; m++) {
        auto el = [&](int row, int col) { return ((bf16*)&w.wide[m * 8 + row])[col]; };
        r[m] = t ? (u32)el(2 * q, g) | (u32)el(2 * q + 1, g) << 16 : (u32)el(g, 2 * q) | (u32)el(g, 2 * q + 1) << 16;
    }
    __syncwarp();
}
inline void load_matrices(u32 (&r)[4], u32 from) { ldm(r, from, false); }
inline void load_matrices_transposed(u32 (&r)[4], u32 from) { ldm(r, from, true); }
inline u32 transposed(u32 x) {
    auto& w = W();
    int l = LANE(), g = l >> 2, q = l & 3;
    w.slot[l] = x;
    __syncwarp();
    auto el = [&](int row, int col) {
        u32 v = w.slot[row * 4 + col / 2];
        return col & 1 ? v >> 16 : v & 0xffff;
    };
    u32 y = el(2 * q, g) | el(2 * q + 1, g) << 16;
    __syncwarp();
    return y;
}
inline void run(Dim grid, int threads, std::function<void()> f, bool reverse = false) {
    gridDim = grid;
    blockDim = {threads, 1, 1};
    long n = (long)grid.x * grid.y * grid.z;
    for (long j = 0; j < n; j++) {
        long i = reverse ? n - 1 - j : j;
        warps.clear();
        for (int w = 0; w < threads / 32; w++) warps.push_back(std::make_unique<Warp>());
        block_bar = std::make_unique<Barrier>(threads);
        blockIdx = {(int)(i % grid.x), (int)(i / grid.x % grid.y), (int)(i / grid.x / grid.y)};
        body = f;
        contexts = std::vector<Context>(threads);
        for (Context& context : contexts) {
            constexpr size_t BYTES = 1 << 18;
            context.stack = std::make_unique<char[]>(BYTES);
            getcontext(&context.state);
            context.state.uc_stack.ss_sp = context.stack.get(), context.state.uc_stack.ss_size = BYTES;
            context.state.uc_link = nullptr;
            makecontext(
                &context.state,
                [] {
                    body();
                    W().bar.arrive_and_drop();
                    block_bar->arrive_and_drop();
                    contexts[current].done = true;
                    pass();
                },
                0);
        }
        current = 0, threadIdx = {0, 0, 0};
        swapcontext(&outside, &contexts[0].state);
    }
}
// ---- what is PTX in common.cuh, grouped.cuh's packings, barrier.cuh and sm90.cuh
inline u32 __byte_perm(u32 a, u32 b, u32 select) {
    u64 bytes = (u64)b << 32 | a;
    u32 r = 0;
    for (int i = 0; i < 4; i++) r |= (u32)(bytes >> 8 * (select >> 4 * i & 7) & 0xff) << 8 * i;
    return r;
}
inline float __fdividef(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline u32 multiply_bf16x2(u32 a, u32 b) {
    return to_bf16x2(low_float(a) * low_float(b), high_float(a) * high_float(b));
}
// A barrier in shared memory, by its address: arrivals, and bytes of copies that a phase waits for. Copies land at
// once.
struct Phases {
    u32 expected = 0, arrived = 0, phase = 0;
};
inline std::map<u32, Phases> phases;
inline void barrier_init(u32 barrier, u32 arrivals) { phases[barrier] = {arrivals, 0, 0}; }
inline void barrier_arrive(u32 barrier) {
    Phases& p = phases[barrier];
    if (++p.arrived == p.expected) p.arrived = 0, p.phase++;
}
inline void barrier_arrive_warp(u32 barrier) {
    __syncwarp();
    if (LANE() == 0) barrier_arrive(barrier);
}
inline void barrier_arrive_copies(u32 barrier) { barrier_arrive(barrier); }
inline void barrier_wait(u32 barrier, u32 parity) {
    for (;;) {
        if ((phases[barrier].phase & 1) != parity) return;
        pass();
    }
}
inline void barrier_poll(u32 barrier, u32 parity) { barrier_wait(barrier, parity); }
inline void barriers_made() {}
inline void follow_closely() {}
// Some threads of a block meet.
inline std::map<int, Barrier> meetings;
inline void threads_sync(int name, int threads) {
    meetings.try_emplace(name, threads).first->second.arrive_and_wait();
}
// Memory as a card aligns it.
template <class T> T* aligned(size_t n) { return (T*)aligned_alloc(128, (n * sizeof(T) + 256) / 128 * 128); }
// Published MXFP4 in the order of tiles, as descant-quant's mxfp4/tiles.rs describes it.
inline void tile(const u8* blocks, const u8* scales, size_t rows, int columns, u8* tiles, u8* of_tiles) {
    static const int magnitude[4] = {6, 3, 0, 9}, sign[4] = {15, 12, 14, 13};
    for (size_t row = 0; row < rows; row += 16)
        for (int column = 0; column < columns; column += 16)
            for (int x = 0; x < 8; x++)
                for (int y = 0; y < 8; y++) {
                    u32 four = 0;
                    for (int i = 0; i < 4; i++) {
                        const size_t at = (row + x + i % 2 * 8) * columns + column + y + i / 2 * 8;
                        const u32 nibble = blocks[at / 2] >> at % 2 * 4 & 15;
                        four |= (nibble & 7) << magnitude[i] | nibble >> 3 << sign[i];
                    }
                    const size_t to = row * columns / 2 + column * 8 + x * 16 + y * 2;
                    tiles[to] = (u8)four, tiles[to + 1] = (u8)(four >> 8);
                }
    for (size_t row = 0; row < rows; row++)
        for (int block = 0; block < columns / 32; block++) {
            const int in = (int)(row % 16), at = in % 8 / 2 * 4 + in / 8 * 2 + in % 2;
            of_tiles[(row / 16 * (columns / 32) + block) * 16 + at] = scales[row * (columns / 32) + block] + 126;
        }
}
