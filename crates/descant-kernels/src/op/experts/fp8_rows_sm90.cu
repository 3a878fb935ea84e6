// What products in fp8 (fp8_sm90.cu) read beside packed weights: rows of activations in E4M3 with a factor each, and
// the powers of two that weights share.
#include "step.cuh"
#include "fp8_rows.cuh"

constexpr int WARPS = THREADS / 32, PIECE = 16;
static_assert(THREADS % 32 == 0, "whole warps");

// 16 numbers of a row.
__device__ __forceinline__ void load_piece(const bf16* from, float (&x)[PIECE]) {
#pragma unroll
    for (int i = 0; i < PIECE / 8; i++) unpack8(load16(from + 8 * i), x + 8 * i);
}

// out[places[t, i]] = x[t] in E4M3 in the order of fp8.cuh, factors[places[t, i]] = largest magnitude / 448, for each
// slot i < k; with places null k is 1 and a row stays where it is. x bf16 [T, D], places i32 [T, k] or null, out u8 [T
// k, D], factors f32 [T k]; D a multiple of 16. Grid: ceil(T / WARPS). Block: THREADS, a warp a row.
extern "C" __global__ void __launch_bounds__(THREADS)
    rows_fp8(const bf16* __restrict__ x, const int* __restrict__ places, u8* __restrict__ out,
             float* __restrict__ factors, int T, int D, int k) {
    follow_closely();
    const int row = blockIdx.x * WARPS + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    if (row >= T) return;
    const bf16* from = x + (u64)row * D;
    float largest = 0.0f;
    for (int c = lane * PIECE; c < D; c += 32 * PIECE) {
        float y[PIECE];
        load_piece(from + c, y);
#pragma unroll
        for (int i = 0; i < PIECE; i++) largest = fmaxf(largest, fabsf(y[i]));
    }
    largest = warp_max(largest);
    const float up = e4m3_up(largest);
    if (lane < k) factors[places ? places[(u64)row * k + lane] : row] = e4m3_factor(largest);
    // The row is in the nearest cache by now.
    for (int c = lane * PIECE; c < D; c += 32 * PIECE) {
        float y[PIECE];
        load_piece(from + c, y);
        const uint4 codes = to_e4m3x16(y, up);
        for (int slot = 0; slot < k; slot++) {
            const u64 place = places ? places[(u64)row * k + slot] : row;
            store16(out + place * D + c, codes);
        }
    }
}

// Scales as tiles have them: of a stored line and a block of 32 columns, s + 126.
__device__ __forceinline__ int scale_of(const u8* scales, int line, int block, int across) {
    const int row = line % 16, half = row % 8;
    return scales[((u64)(line / 16) * across + block) * 16 + half / 2 * 4 + row / 8 * 2 + half % 2];
}
// The reference of such scales, as published, and how far the least lies below it.
__device__ __forceinline__ void refer(int least, int most, u8* reference, int* span) {
    const int published = max(most - 126, LEAST_REFERENCE);
    *reference = published;
    atomicMax(span, published - (least - 126));
}

// Forward: references[line] of the blocks of a line, which are terms of one sum; span[0] the largest distance of two
// scales that share one. scales u8 in tiles of [lines, 32 across], references u8 [lines], span i32 [2], zeros before.
// Grid: ceil(lines / THREADS).
extern "C" __global__ void __launch_bounds__(THREADS)
    references_forward(const u8* __restrict__ scales, u8* references, int* span, int lines, int across) {
    const int line = blockIdx.x * THREADS + threadIdx.x;
    if (line >= lines) return;
    int least = 255, most = 0;
    for (int block = 0; block < across; block++) {
        const int scale = scale_of(scales, line, block, across);
        least = min(least, scale), most = max(most, scale);
    }
    refer(least, most, references + line, span);
}

// Backward: references[expert, block] of the lines of a matrix in a block of columns; span[1]. references u8 [E,
// across]. Grid: E · across. Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
    references_backward(const u8* __restrict__ scales, u8* references, int* span, int lines, int across) {
    __shared__ int ends[2];
    if (threadIdx.x < 2) ends[threadIdx.x] = threadIdx.x ? 0 : 255;
    __syncthreads();
    const int expert = blockIdx.x / across, block = blockIdx.x % across;
    int least = 255, most = 0;
    for (int line = threadIdx.x; line < lines; line += THREADS) {
        const int scale = scale_of(scales, expert * lines + line, block, across);
        least = min(least, scale), most = max(most, scale);
    }
    atomicMin(ends, least), atomicMax(ends + 1, most);
    __syncthreads();
    if (threadIdx.x == 0) refer(ends[0], ends[1], references + blockIdx.x, span + 1);
}
