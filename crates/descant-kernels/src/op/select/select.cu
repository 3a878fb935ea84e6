// Rows by index: reads of a table, and the gradient of rows that were taken.
#include "step.cuh"

static_assert(THREADS % 32 == 0, "whole warps");

// out[i] = table[rows[i]]; bf16 rows of D, dense. The table may lie in mapped host memory. n = count * D / 8.
// Grid: ceil(n / THREADS). Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
    gather_rows(const bf16* __restrict__ table, const int* __restrict__ rows, bf16* out, u64 n, int D) {
    follow_closely();
    int width = D / 8;
    u64 item = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (item >= n) return;
    store16(out + item * 8, load16(table + (u64)rows[item / width] * D + item % width * 8));
}

// out[t] = rows[places[t]], or zeros where the place is negative; bf16 rows of D, dense. n = count * D / 8 of `out`.
// Grid: ceil(n / THREADS). Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
    spread_rows(const bf16* __restrict__ rows, const int* __restrict__ places, bf16* out, u64 n, int D) {
    follow_closely();
    int width = D / 8;
    u64 item = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (item >= n) return;
    int place = places[item / width];
    store16(out + item * 8, place < 0 ? make_uint4(0, 0, 0, 0) : load16(rows + (u64)place * D + item % width * 8));
}
