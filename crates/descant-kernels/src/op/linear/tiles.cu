// Published MXFP4 to tiles, in place: a band of 16 rows is as many bytes before as after, so a block brings a band to
// shared memory and writes it back in the other order. The order of tiles is that of descant-quant's mxfp4/tiles.rs.
//
// Launch: a block a band, THREADS. Shared memory: the band.
// Shapes: blocks u8 [rows, columns / 2], scales u8 [rows, columns / 32]; rows is a multiple of 16, columns of 32.
#include "common.cuh"

constexpr int ROWS = 16, COLUMNS = 16, HALF = 8, BIAS = 126;
static_assert(THREADS % 32 == 0, "whole warps");

__shared__ extern __align__(16) u8 band[];

// Brings the block's band of so many bytes, a multiple of 16, and says where it lies.
__device__ __forceinline__ u8* bring(u8* all, int bytes) {
    u8* const here = all + (size_t)blockIdx.x * bytes;
    for (int i = threadIdx.x; i < bytes / 16; i += THREADS) ((uint4*)band)[i] = ((const uint4*)here)[i];
    __syncthreads();
    return here;
}

// Four nibbles of one place of a tile: magnitudes and signs where the kernels look for them.
__device__ __forceinline__ u32 together(u32 upper, u32 lower, u32 upper_right, u32 lower_right) {
    return (upper & 7) << 6 | (upper & 8) << 12 | (lower & 7) << 3 | (lower & 8) << 9 | (upper_right & 7) |
           (upper_right & 8) << 11 | (lower_right & 7) << 9 | (lower_right & 8) << 10;
}

// A thread makes a line of a tile at a time: eight u16 of rows x and x + 8.
extern "C" __global__ void __launch_bounds__(THREADS) blocks_in_tiles(u8* blocks, int columns) {
    const int stride = columns / 2, bytes = ROWS * stride;
    u8* const here = bring(blocks, bytes);
    for (int i = threadIdx.x; i < bytes / 16; i += THREADS) {
        const u8* from = band + i % HALF * stride + i / HALF * (COLUMNS / 2);
        const uint2 upper = *(const uint2*)from, lower = *(const uint2*)(from + HALF * stride);
        u32 line[4];
#pragma unroll
        for (int y = 0; y < 8; y += 2) {
            const u32 even = together(upper.x >> 4 * y, lower.x >> 4 * y, upper.y >> 4 * y, lower.y >> 4 * y);
            const int z = 4 * y + 4;
            line[y / 2] = even | together(upper.x >> z, lower.x >> z, upper.y >> z, lower.y >> z) << 16;
        }
        ((uint4*)here)[i] = make_uint4(line[0], line[1], line[2], line[3]);
    }
}

// Byte (q, i) of a block of columns is that of row 2q, 2q + 1, 2q + 8 or 2q + 9, as an exponent field.
extern "C" __global__ void __launch_bounds__(THREADS) scales_in_tiles(u8* scales, int columns) {
    const int across = columns / 32, bytes = ROWS * across;
    u8* const here = bring(scales, bytes);
    for (int i = threadIdx.x; i < bytes; i += THREADS) {
        const int q = i % ROWS / 4, k = i % 4, row = 2 * q + k % 2 + k / 2 * HALF;
        here[i] = band[row * across + i / ROWS] + BIAS;
    }
}
