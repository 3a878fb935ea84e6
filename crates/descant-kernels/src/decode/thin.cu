// Products of at most eight rows with a bf16 matrix, as in a step of generation: bound by the matrix's bytes.
//
//   out[b, n] = sum_k x[b, k] W[n, k]
//
// The matrix is the right operand of mma.sync and goes from device memory to registers, never through shared memory: a
// lane has 16 bytes of a column at a time, and both operands use the same order of k, which a dot product does not see.
// The rows of x lie in shared memory, normed there first where asked (RMSNorm, Zhang and Sennrich 2019), with the
// norm's weights behind them. A CTA makes eight columns at a time; its eight warps share out k, and their sums are
// added as `order.cuh` says. What a product has read makes room for the next tile's, so that loads never stop. A
// row's result depends on that row alone, and `wide.cu` gives the same bits.
#include "mma.cuh"
#include "order.cuh"
#include "step.cuh"

#define WARPS PARTS  // one a part of the sum
#define AHEAD 12  // chunks of a warp that are on their way: all of 2880
// Where the i-th of them is: two neighbours, then WARPS pairs further. A column's 128 bytes are asked for at once.
#define CHUNK_AT(i) ((i) / 2 * 2 * WARPS + (i) % 2)
static_assert(THREADS == 32 * WARPS, "a warp a part");
static_assert(COLUMNS == 8, "as a fragment of the right operand has");

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    thin(const bf16* x, const float* norm, const bf16* w, const bf16* more, float* out, bf16* half, bf16* u, int B,
         int K, int N, int R, float epsilon) {
    extern __shared__ __align__(16) u8 rows[];
    __shared__ __align__(16) float sums[2][WARPS][8][COLUMNS];
    __shared__ float parts[WARPS][WARPS];  // of a row
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, g = lane >> 2, q = lane & 3;
    const int stride = K * 2 + (K % 64 == 0 ? 64 : 0), chunks = K / 32;
    const int of_w = (N + COLUMNS - 1) / COLUMNS, tiles = of_w + (R + COLUMNS - 1) / COLUMNS;

    uint4 loaded[AHEAD];
    // Of this lane's column in a tile, what this warp reads first; null where there is none.
    auto line = [&](int tile) {
        const bool adapter = tile >= of_w;
        const int column = (adapter ? tile - of_w : tile) * COLUMNS + g;
        const bool is_there = tile < tiles && column < (adapter ? R : N);
        return is_there ? (const uint4*)((adapter ? more : w) + (u64)column * K) + q + warp * 8 : (const uint4*)0;
    };
    // The i-th of this warp's chunks from `first` on, which begin at `from`. What is not there leaves what was: no
    // product reads it, or nobody the product.
    auto load = [&](const uint4* from, int first, int i) {
        if (from && first + CHUNK_AT(i) < chunks) loaded[i] = __ldcs(from + CHUNK_AT(i) * 4);
    };
    const uint4* at = line(blockIdx.x);
#pragma unroll
    for (int i = 0; i < AHEAD; i++) load(at, warp * 2, i);

    u8* const by = rows + B * stride;
#pragma unroll 1
    for (int i = t; norm && i < K / 4; i += THREADS) copy_async16(shared_address(by) + i * 16, norm + i * 4);
    next_may_start();
    wait_for_earlier();
    // So many warps bring a row, all rows at once: eight, or half as many with every doubling.
    const int halvings = B > 4 ? 3 : B > 2 ? 2 : B - 1, share = WARPS >> halvings;
    const int b = warp >> (3 - halvings), first = warp & (share - 1);
    u8* const own = rows + b * stride;
#pragma unroll 1
    for (int i = first * 32 + lane; b < B && i < K / 8; i += share * 32)
        copy_async16(shared_address(own) + i * 16, x + (u64)b * K + i * 8);
    copy_commit();
    copy_wait<0>();
    if (norm) {
        // In parts, whoever sums them: a row's sum is what it is alone.
#pragma unroll 1
        for (int part = first; b < B && part < PARTS; part += share) {
            const float sum = part_of_square(own, part, lane, K);
            if (lane == 0) parts[b][part] = sum;
        }
        __syncthreads();
        const float scale = b < B ? norm_scale(parts[b], K, epsilon) : 0.0f;
#pragma unroll 1
        for (int i = first * 32 + lane; b < B && i < K / 8; i += share * 32)
            *(uint4*)(own + i * 16) = normed8(*(const uint4*)(own + i * 16), scale, (const float4*)by + 2 * i);
    }
    __syncthreads();

    // A row that is not there makes sums that nobody reads.
    const u8* row = rows + min(g, B - 1) * stride + q * 16;
    int buffer = 0;
#pragma unroll 1
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x, buffer ^= 1) {
        const uint4* next = line(tile + gridDim.x);
        float acc[4] = {};
#pragma unroll 1
        for (int from = warp * 2; from < chunks; from += WARPS * AHEAD) {
            const bool is_last = from + WARPS * AHEAD >= chunks;
            if (!is_last) at += WARPS * AHEAD * 4;
            const uint4* source = is_last ? next : at;
            const int first = is_last ? warp * 2 : from + WARPS * AHEAD;
            const u8* x_at = row + from * 64;
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                const uint4 v = loaded[i];
                if (from + CHUNK_AT(i) < chunks) {
                    const uint4 z = *(const uint4*)(x_at + CHUNK_AT(i) * 64);
                    const u32 one[4] = {z.x, 0, z.y, 0}, other[4] = {z.z, 0, z.w, 0};
                    multiply16(acc, one, v.x, v.y);
                    multiply16(acc, other, v.z, v.w);
                }
                load(source, first, i);
            }
        }
        at = next;
        *(float2*)&sums[buffer][warp][g][q * 2] = make_float2(acc[0], acc[1]);
        __syncthreads();
        const bool adapter = tile >= of_w;
        const int column = (adapter ? tile - of_w : tile) * COLUMNS + (t & 7), r = t >> 3;
        if (r < B && column < (adapter ? R : N)) {
            float sum = 0.0f;
#pragma unroll
            for (int part = 0; part < PARTS; part += 2)
                sum += sums[buffer][part][r][t & 7] + sums[buffer][part + 1][r][t & 7];
            if (adapter)
                u[r * R + column] = to_bf16(sum);
            else if (out)
                out[(u64)r * N + column] = sum;
            else
                half[(u64)r * N + column] = to_bf16(sum);
        }
    }
}