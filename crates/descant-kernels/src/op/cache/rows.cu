// Rows by index: the writes of a key-value cache.
#include "common.cuh"

static_assert(THREADS % 32 == 0, "whole warps");

// cache[rows[i]] = values[i], for distinct rows. values bf16 rows of stride ld (a part of packed q k v rows, for
// example); cache bf16 [capacity, D] dense; n = count * D / 8. Grid: ceil(n / THREADS). Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
    write_rows(bf16* cache, const int* __restrict__ rows, const bf16* __restrict__ values, u64 n, int D, int ld) {
    int width = D / 8;
    u64 item = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (item >= n) return;
    store16(cache + (u64)rows[item / width] * D + item % width * 8,
            load16(values + item / width * ld + item % width * 8));
}
