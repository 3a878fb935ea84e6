// Packed MXFP4 to bf16 in device memory: for odd cases and for comparison; the step never needs it.
#include "common.cuh"
#include "mxfp4.cuh"

// Eight elements a thread. blocks u8 [n, 16], scales u8 [n], out bf16 [n, 32]; `words` = 4 n.
// Launch: block = 256, grid = ceil(words / 256), no shared memory.
extern "C" __global__ void __launch_bounds__(256)
    dequantize_mxfp4(const u32* blocks, const u8* scales, uint4* out, long long words) {
    long long i = (long long)blockIdx.x * 256 + threadIdx.x;
    if (i >= words) return;
    u32 values[4];
    BlockScale by = block_scale(scales[i >> 2]);
    spread8(blocks[i], values);
#pragma unroll
    for (int j = 0; j < 4; j++) values[j] = multiply_bf16x2(multiply_bf16x2(values[j], by.first), by.second);
    out[i] = make_uint4(values[0], values[1], values[2], values[3]);
}
