// `take_tokens` of rows.cu for Hopper: rows go through shared memory in bulk copies, one thread a row, so that many are
// under way with few instructions.
#include "sm90.cuh"
#include "step.cuh"

constexpr int WARPS = THREADS / 32, STAGES = 2;
static_assert(THREADS % 32 == 0, "whole warps");

__device__ __forceinline__ void bulk_store(void* to, u32 from, u32 bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until at most N groups have not read what they store.
template <int N> __device__ __forceinline__ void bulk_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}

// out[places[t, i]] = x[t] for each slot i < k. x bf16 [T, D], places i32 [T, k], out bf16 [T k, D]; D a multiple of 8,
// k <= MAX_K. Dynamic shared memory: THREADS / 32 * 2 rows. Grid: any. Block: THREADS; the first lane of a warp works.
extern "C" __global__ void __launch_bounds__(THREADS)
    take_tokens(const bf16* __restrict__ x, const int* __restrict__ places, bf16* __restrict__ out, int T, int D,
                int k) {
    follow_closely();
    extern __shared__ __align__(128) u8 shared[];
    __shared__ __align__(8) u64 barriers[WARPS * STAGES];
    if (threadIdx.x & 31) return;
    const int warp = threadIdx.x >> 5, step = gridDim.x * WARPS;
    const u32 bytes = D * 2, rows = shared_address(shared) + warp * STAGES * bytes,
              full = shared_address(barriers) + warp * STAGES * 8;
    for (int i = 0; i < STAGES; i++) barrier_init(full + 8 * i, 1);
    barriers_made();
    fence_async();
    auto load = [&](int token, int stage) {
        barrier_expect(full + 8 * stage, bytes);
        bulk_copy(rows + stage * bytes, x + (u64)token * D, bytes, full + 8 * stage);
    };
    Ring<STAGES> ring;
    int token = blockIdx.x * WARPS + warp;
    if (token < T) load(token, 0);
    for (; token < T; token += step) {
        int place[MAX_K];
#pragma unroll
        for (int i = 0; i < MAX_K; i++)
            if (i < k) place[i] = places[(u64)token * k + i];
        // What the other stage stored has been read.
        bulk_wait_read<0>();
        if (token + step < T) load(token + step, ring.stage ^ 1);
        barrier_spin(full + 8 * ring.stage, ring.parity);
#pragma unroll
        for (int i = 0; i < MAX_K; i++)
            if (i < k) bulk_store(out + (u64)place[i] * D, rows + ring.stage * bytes, bytes);
        bulk_commit();
        ring.next();
    }
    bulk_wait_read<0>();
}
