// Products of at most eight rows with a bf16 matrix, as in a step of generation: bound by the matrix's bytes.
//
//   out[b, n] = sum_k x[b, k] W[n, k]
//
// The matrix is the right operand of mma.sync and goes from device memory to registers, never through shared memory: a
// lane has 16 bytes of a column at a time, and both operands use the same order of k, which a dot product does not see.
// The rows of x lie in shared memory, normed there first where asked (RMSNorm, Zhang and Sennrich 2019). A CTA makes
// eight columns at a time; its eight warps share out k, and their sums are added in order of the warps. What a product
// has read makes room for the next tile's, so that loads never stop. A row's result depends on that row alone.
#include "mma.cuh"
#include "step.cuh"

#define WARPS 8
#define AHEAD 12  // chunks of a warp that are on their way: all of 2880
static_assert(THREADS == 32 * WARPS, "eight warps");
static_assert(COLUMNS == 8, "as a fragment of the right operand has");

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    thin(const bf16* x, const float* norm, const bf16* w, const bf16* more, float* out, bf16* half, bf16* u, int B,
         int K, int N, int R, float epsilon) {
    extern __shared__ __align__(16) u8 rows[];
    __shared__ __align__(16) float sums[2][WARPS][8][COLUMNS];
    __shared__ float parts[WARPS];
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, g = lane >> 2, q = lane & 3;
    const int stride = K * 2 + (K % 64 == 0 ? 64 : 0), chunks = K / 32;
    const int of_w = (N + COLUMNS - 1) / COLUMNS, tiles = of_w + (R + COLUMNS - 1) / COLUMNS;

    uint4 loaded[AHEAD] = {};
    // The column of this lane in a tile; null where there is none.
    auto line = [&](int tile) {
        const bool adapter = tile >= of_w;
        const int column = (adapter ? tile - of_w : tile) * COLUMNS + g;
        const bool is_there = tile < tiles && column < (adapter ? R : N);
        return is_there ? (const uint4*)((adapter ? more : w) + (u64)column * K) + q : (const uint4*)0;
    };
    // What is not there leaves what was: no product reads it, or nobody the product.
    auto load = [&](uint4& to, const uint4* from, int chunk) {
        if (from && chunk < chunks) to = __ldcs(from + chunk * 4);
    };
    const uint4* at = line(blockIdx.x);
#pragma unroll
    for (int i = 0; i < AHEAD; i++) load(loaded[i], at, warp + i * WARPS);

    next_may_start();

    wait_for_earlier();

    // So many warps bring a row, all rows at once.
    const int rows_up = B > 4 ? 8 : B > 2 ? 4 : B, share = WARPS / rows_up, b = warp / share, first = warp % share;
    if (b < B) {
        const uint4* from = (const uint4*)(x + (u64)b * K);
        float sum = 0.0f;
        for (int i = first * 32 + lane; i < K / 8; i += share * 32) {
            const uint4 v = from[i];
            *(uint4*)(rows + b * stride + i * 16) = v;
            float f[8];
            unpack8(v, f);
#pragma unroll
            for (int j = 0; j < 8; j++) sum += f[j] * f[j];
        }
        sum = warp_sum(sum);
        if (lane == 0) parts[warp] = sum;
    }
    __syncthreads();
    if (norm) {
        if (b < B) {
            float sum = 0.0f;
            for (int i = 0; i < share; i++) sum += parts[b * share + i];
            const float scale = rsqrtf(sum / K + epsilon);
            for (int i = first * 32 + lane; i < K / 8; i += share * 32) {
                float f[8];
                unpack8(*(const uint4*)(rows + b * stride + i * 16), f);
                const float4 a = ((const float4*)norm)[2 * i], c = ((const float4*)norm)[2 * i + 1];
                const float weight[8] = {a.x, a.y, a.z, a.w, c.x, c.y, c.z, c.w};
#pragma unroll
                for (int j = 0; j < 8; j++) f[j] = f[j] * scale * weight[j];
                *(uint4*)(rows + b * stride + i * 16) = pack8(f);
            }
        }
        __syncthreads();
    }

    // A row that is not there makes sums that nobody reads.
    const u8* row = rows + min(g, B - 1) * stride + q * 16;
    int buffer = 0;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x, buffer ^= 1) {
        const uint4* next = line(tile + gridDim.x);
        float acc[2][4] = {};
        for (int from = warp; from < chunks; from += WARPS * AHEAD) {
            const bool is_last = from + WARPS * AHEAD >= chunks;
            const uint4* source = is_last ? next : at;
            const int base = is_last ? warp : from + WARPS * AHEAD;
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                const int chunk = from + i * WARPS;
                const uint4 v = loaded[i];
                if (chunk < chunks) {
                    const uint4 z = *(const uint4*)(row + chunk * 64);
                    const u32 one[4] = {z.x, 0, z.y, 0}, other[4] = {z.z, 0, z.w, 0};
                    multiply16(acc[0], one, v.x, v.y);
                    multiply16(acc[1], other, v.z, v.w);
                }
                load(loaded[i], source, base + i * WARPS);
            }
        }
        at = next;
        *(float2*)&sums[buffer][warp][g][q * 2] = make_float2(acc[0][0] + acc[1][0], acc[0][1] + acc[1][1]);
        __syncthreads();
        const bool adapter = tile >= of_w;
        const int column = (adapter ? tile - of_w : tile) * COLUMNS + (t & 7), r = t >> 3;
        if (r < B && column < (adapter ? R : N)) {
            float sum = 0.0f;
#pragma unroll
            for (int part = 0; part < WARPS; part++) sum += sums[buffer][part][r][t & 7];
            if (adapter)
                u[r * R + column] = to_bf16(sum);
            else if (out)
                out[(u64)r * N + column] = sum;
            else
                half[(u64)r * N + column] = to_bf16(sum);
        }
    }
}