// The largest logit of each row, ties to the lower id, so that a token is chosen without a row going to the host.
//
// One block a row. Maxima are compared by value, then by id, so that the order of threads does not show. A logit that
// is not a number is never the largest, but in the first place, where nothing is larger than it: as a plain loop has
// it. logits bf16 [rows, V], V a multiple of 8 below 2^24; ids f32 [rows], exact. Grid: rows. Block: THREADS.
#include "common.cuh"

static_assert(THREADS == 32 * 32, "a warp for each lane of one");
#define LOWEST __uint_as_float(0xff800000u)

struct Best {
    float value;
    int id;
};

__device__ __forceinline__ Best better(Best a, Best b) {
    return b.value > a.value || (b.value == a.value && b.id < a.id) ? b : a;
}

__device__ __forceinline__ Best warp_best(Best best) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        Best other = {__shfl_xor_sync(FULL_WARP, best.value, offset), __shfl_xor_sync(FULL_WARP, best.id, offset)};
        best = better(best, other);
    }
    return best;
}

extern "C" __global__ void __launch_bounds__(THREADS) best_tokens(const bf16* logits, float* ids, int V) {
    __shared__ Best found[THREADS / 32];
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5;
    const bf16* row = logits + (u64)blockIdx.x * V;
    Best best = {LOWEST, 0};
    for (int i = t; i < V / 8; i += THREADS) {
        float f[8];
        unpack8(load16(row + 8 * i), f);
#pragma unroll
        for (int j = 0; j < 8; j++)
            if (f[j] > best.value) best = {f[j], 8 * i + j};
    }
    best = warp_best(best);
    if (lane == 0) found[warp] = best;
    __syncthreads();
    if (warp > 0) return;
    best = warp_best(found[lane]);
    float first = to_float(row[0]);
    if (lane == 0) ids[blockIdx.x] = first != first ? 0.0f : (float)best.id;
}
