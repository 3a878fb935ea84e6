// Rows by index: embedding, selected hidden states and their gradient, and the writes of a key-value cache.
#include "common.cuh"

// out[i] = table[ids[i]], zeros where an id is negative (so that the gradient of a selection is one too, by the inverse index).
// table bf16 rows of stride ld, in device memory or in host memory mapped for the device; ids i32 [rows];
// out bf16 [rows, D] dense, n = rows * D / 8. Grid: ceil(n / 1024). Block: 256, four vectors a thread.
extern "C" __global__ void __launch_bounds__(256) gather_rows(const bf16* __restrict__ table, const int* __restrict__ ids,
                                                              bf16* __restrict__ out, u64 n, int D, int ld) {
    int width = D / 8;
    u64 base = (u64)blockIdx.x * 1024 + threadIdx.x;
    uint4 v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        u64 item = base + 256 * i;
        v[i] = make_uint4(0, 0, 0, 0);
        if (item >= n) continue;
        int id = ids[item / width];
        if (id >= 0) v[i] = load16(table + (u64)id * ld + item % width * 8);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (base + 256 * i < n) store16(out + (base + 256 * i) * 8, v[i]);
}

// cache[rows[i]] = values[i], for distinct rows. values bf16 rows of stride ld (a part of packed q k v rows, for example);
// cache bf16 [capacity, D] dense; n = count * D / 8. Grid: ceil(n / 256). Block: 256.
extern "C" __global__ void __launch_bounds__(256) write_rows(bf16* cache, const int* __restrict__ rows, const bf16* __restrict__ values,
                                                             u64 n, int D, int ld) {
    int width = D / 8;
    u64 item = (u64)blockIdx.x * 256 + threadIdx.x;
    if (item >= n) return;
    store16(cache + (u64)rows[item / width] * D + item % width * 8, load16(values + item / width * ld + item % width * 8));
}
