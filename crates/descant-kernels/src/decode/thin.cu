// Products of at most eight rows with a bf16 matrix, as in a step of generation: bound by the matrix's bytes.
//
//   out[b, n] = sum_k x[b, k] W[n, k]
//
// The matrix is the left operand of mma.sync and goes from device memory to registers, never through shared memory: a
// lane holds 16 bytes of each of its two rows, and both operands use the same order of columns, which a dot product
// does not see. The rows of x lie in shared memory, normed there first where asked (RMSNorm, Zhang and Sennrich 2019).
// A CTA makes 16 columns at a time; its eight warps share out k, and their sums are added in order of the warps. A
// row's result depends on that row alone, so it is the same whatever else is in a batch.
//
// Behind W's rows come those of `more`, an adapter's A, whose products go to `u`.
//
// x bf16 [B, K]; norm f32 [K] or null; w bf16 [N, K]; more bf16 [R, K] or null; u bf16 [B, R]; one of out f32 [B, N]
// and half bf16 [B, N], the other null. K a multiple of 32, N and R any. Launch: any grid; 256 threads; B rows of
// shared memory, each K * 2 bytes and 64 where that is a multiple of 128.
#include "mma.cuh"
#include "step.cuh"

#define WARPS 8
#define COLUMNS 16
#define AHEAD 12  // chunks of a warp that are loaded together: all of 2880
static_assert(THREADS == 32 * WARPS, "eight warps");

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    thin(const bf16* x, const float* norm, const bf16* w, const bf16* more, float* out, bf16* half, bf16* u, int B,
         int K, int N, int R, float epsilon) {
    extern __shared__ __align__(16) u8 rows[];
    __shared__ float sums[WARPS][COLUMNS][8];
    __shared__ float scratch[32];
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, g = lane >> 2, q = lane & 3;
    const int stride = K * 2 + (K % 64 == 0 ? 64 : 0), chunks = K / 32;
    const int of_w = (N + COLUMNS - 1) / COLUMNS, tiles = of_w + (R + COLUMNS - 1) / COLUMNS;

    uint4 upper[AHEAD], lower[AHEAD];
    auto load = [&](int tile, int first) {
        const bool adapter = tile >= of_w;
        const bf16* from = adapter ? more : w;
        const int column = (adapter ? tile - of_w : tile) * COLUMNS, count = adapter ? R : N;
        const bool has_upper = column + g < count, has_lower = column + g + 8 < count;
        const uint4 none = make_uint4(0, 0, 0, 0);
        const uint4* one = (const uint4*)(from + (u64)(column + g) * K) + q;
        const uint4* other = (const uint4*)(from + (u64)(column + g + 8) * K) + q;
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int chunk = first + i * WARPS;
            upper[i] = has_upper && chunk < chunks ? __ldcs(one + chunk * 4) : none;
            lower[i] = has_lower && chunk < chunks ? __ldcs(other + chunk * 4) : none;
        }
    };
    if ((int)blockIdx.x < tiles) load(blockIdx.x, warp);
    next_may_start();
    wait_for_earlier();

    for (int b = 0; b < B; b++) {
        const uint4* from = (const uint4*)(x + (u64)b * K);
        float sum = 0.0f;
        for (int i = t; i < K / 8; i += THREADS) {
            const uint4 v = from[i];
            if (norm) {
                float f[8];
                unpack8(v, f);
#pragma unroll
                for (int j = 0; j < 8; j++) sum += f[j] * f[j];
            } else {
                *(uint4*)(rows + b * stride + i * 16) = v;
            }
        }
        if (!norm) continue;
        const float scale = rsqrtf(block_sum(sum, scratch) / K + epsilon);
        for (int i = t; i < K / 8; i += THREADS) {
            float f[8];
            unpack8(from[i], f);
            const float4 a = ((const float4*)norm)[2 * i], c = ((const float4*)norm)[2 * i + 1];
            const float weight[8] = {a.x, a.y, a.z, a.w, c.x, c.y, c.z, c.w};
#pragma unroll
            for (int j = 0; j < 8; j++) f[j] = f[j] * scale * weight[j];
            *(uint4*)(rows + b * stride + i * 16) = pack8(f);
        }
    }
    __syncthreads();

    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        float acc[4] = {};
        for (int first = warp; first < chunks; first += WARPS * AHEAD) {
            if (first != warp || tile != (int)blockIdx.x) load(tile, first);
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                const int chunk = first + i * WARPS;
                if (chunk >= chunks) break;
                uint4 z = make_uint4(0, 0, 0, 0);
                if (g < B) z = *(const uint4*)(rows + g * stride + chunk * 64 + q * 16);
                const u32 left[2][4] = {{upper[i].x, lower[i].x, upper[i].y, lower[i].y},
                                        {upper[i].z, lower[i].z, upper[i].w, lower[i].w}};
                multiply16(acc, left[0], z.x, z.y);
                multiply16(acc, left[1], z.z, z.w);
            }
        }
        sums[warp][g][q * 2] = acc[0], sums[warp][g][q * 2 + 1] = acc[1];
        sums[warp][g + 8][q * 2] = acc[2], sums[warp][g + 8][q * 2 + 1] = acc[3];
        __syncthreads();
        const bool adapter = tile >= of_w;
        const int column = (adapter ? tile - of_w : tile) * COLUMNS + (t & 15), b = t >> 4;
        if (b < B && column < (adapter ? R : N)) {
            float sum = 0.0f;
#pragma unroll
            for (int part = 0; part < WARPS; part++) sum += sums[part][t & 15][b];
            if (adapter)
                u[b * R + column] = to_bf16(sum);
            else if (out)
                out[(u64)b * N + column] = sum;
            else
                half[(u64)b * N + column] = to_bf16(sum);
        }
        __syncthreads();
    }
}
