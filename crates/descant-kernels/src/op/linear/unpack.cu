// A matrix of NF4 to bf16, for products that know no packing; see nf4.cuh for the numbers.
//
// Launch: any grid of THREADS; a thread makes eight numbers at a time.
// Shapes: packed u8 [n / 2]; codes u8 [n / 64]; tables as in nf4.cuh, of one matrix; out bf16 [n]. n is a multiple
// of 64.
#include "nf4.cuh"

static_assert(THREADS % 32 == 0, "whole warps: a level for each lane");

extern "C" __global__ void __launch_bounds__(THREADS)
    unpack_nf4(const u8* packed, const u8* codes, const float* tables, bf16* out, int n) {
    __shared__ u32 table_words[TABLE_BYTES / 4];
    const u32 looked_up = shared_address(table_words), levels = levels_of_lane(looked_up);
    fill_tables(tables, looked_up);
    __syncthreads();
    const Scales scales = scales_of(codes, tables, 0, 1, n / 64);
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < n / 8; i += gridDim.x * THREADS) {
        const u32 word = ((const u32*)packed)[i], block = i / 8;
        const float absmax = absmax_of(codes[block], scales.nested[block / 256], scales.offset, looked_up);
        const u32 low = low_nibbles(word), high = high_nibbles(word);
        u32 x[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            x[j] = numbers(level_of(low, pick(j), levels), level_of(high, pick(j), levels), absmax, absmax);
        ((uint4*)out)[i] = make_uint4(x[0], x[1], x[2], x[3]);
    }
}
