// Cross-entropy of rows of logits, the gradient written over them.
//
// One block a row. A row of gpt-oss' vocabulary is 402 KB: what fits stays in shared memory between the two passes, and
// the rest is read again, from L2 while the blocks of a wave keep little enough there. Logarithm-sum-exp in f32 by a
// running maximum a thread (Milakov and Gimelshein 2018), merged in one order.
#include "common.cuh"

static_assert(THREADS == 32 * 32, "a warp for each lane of one");
static_assert(EACH_THREADS % 32 == 0, "whole warps");
#define BATCH 4
#define LOWEST -3.0e38f

struct Running {
    float largest, sum;
};

__device__ __forceinline__ Running merge(Running a, Running b) {
    float largest = fmaxf(a.largest, b.largest);
    return {largest, a.sum * __expf(a.largest - largest) + b.sum * __expf(b.largest - largest)};
}

__device__ __forceinline__ void add(Running& r, uint4 v) {
    float f[8], top, sum = 0.0f;
    unpack8(v, f);
    top = fmaxf(fmaxf(fmaxf(f[0], f[1]), fmaxf(f[2], f[3])), fmaxf(fmaxf(f[4], f[5]), fmaxf(f[6], f[7])));
    if (top > r.largest) {
        r.sum *= __expf(r.largest - top);
        r.largest = top;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) sum += __expf(f[j] - r.largest);
    r.sum += sum;
}

__device__ __forceinline__ Running merge_warp(Running r) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        Running other = {__shfl_xor_sync(FULL_WARP, r.largest, offset), __shfl_xor_sync(FULL_WARP, r.sum, offset)};
        r = merge(r, other);
    }
    return r;
}

// Of a whole block, for all of its threads.
__device__ __forceinline__ Running merge_block(Running r, Running* parts) {
    r = merge_warp(r);
    if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = r;
    __syncthreads();
    return merge_warp(parts[threadIdx.x & 31]);
}

// losses[r] = log(sum_v exp(logits[r, v])) - logits[r, targets[r]]; with_gradient: logits[r, v] <-
// factor[r] * (softmax(logits[r])[v] - [v = targets[r]]), otherwise the logits stay. A logit that is not a number makes
// the loss none. logits bf16 [rows, V], V a multiple of 8; targets i32 in 0..V; factor f32 [rows] or null for ones;
// losses f32 [rows]. `cached` vectors of 16 bytes of a row are kept in dynamic shared memory, of which the launch gives
// 16 * cached bytes: min(V / 8, what a block may have less 1 KB). Grid: rows. Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
    cross_entropy(bf16* logits, const int* __restrict__ targets, const float* __restrict__ factor, float* losses, int V,
                  int cached, int with_gradient) {
    extern __shared__ uint4 kept[];
    __shared__ Running parts[32];
    u64 row = blockIdx.x;
    bf16* x = logits + row * V;
    int n = V / 8, target = targets[row];
    float wanted = to_float(x[target]);
    Running r = {LOWEST, 0.0f};
    for (int start = threadIdx.x; start < n; start += BATCH * THREADS) {
        uint4 v[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++)
            if (start + i * THREADS < n) v[i] = load16(x + 8 * (u64)(start + i * THREADS));
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int c = start + i * THREADS;
            if (c >= n) break;
            if (c < cached) kept[c] = v[i];
            add(r, v[i]);
        }
    }
    r = merge_block(r, parts);
    if (threadIdx.x == 0) losses[row] = r.largest - wanted + logf(r.sum);
    if (!with_gradient) return;
    float scale = factor ? factor[row] : 1.0f, inverse = scale / r.sum;
    for (int start = threadIdx.x; start < n; start += BATCH * THREADS) {
        uint4 v[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int c = start + i * THREADS;
            if (c < n) v[i] = c < cached ? kept[c] : load16(x + 8 * (u64)c);
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int c = start + i * THREADS;
            if (c >= n) break;
            float f[8];
            unpack8(v[i], f);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                f[j] = __expf(f[j] - r.largest) * inverse;
                if (8 * c + j == target) f[j] -= scale;
            }
            store16(x + 8 * (u64)c, pack8(f));
        }
    }
}

// out[r] = x[r] * factors[r]. x, out bf16 [rows, D] (may be the same), n = rows * D / 8. Grid: ceil(n /
// EACH_THREADS). Block: EACH_THREADS.
extern "C" __global__ void __launch_bounds__(EACH_THREADS)
    scale_rows(const bf16* x, const float* __restrict__ factors, bf16* out, u64 n, int D) {
    u64 item = (u64)blockIdx.x * EACH_THREADS + threadIdx.x;
    if (item >= n) return;
    float f[8], factor = factors[item / (D / 8)];
    unpack8(load16(x + item * 8), f);
#pragma unroll
    for (int j = 0; j < 8; j++) f[j] *= factor;
    store16(out + item * 8, pack8(f));
}

// sum[0] = sum_i losses[i] * weights[i], in one order. All f32 [n]. Grid: 1. Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
    weighted_sum(const float* __restrict__ losses, const float* __restrict__ weights, float* sum, int n) {
    __shared__ float scratch[32];
    float x = 0.0f;
    for (int i = threadIdx.x; i < n; i += THREADS) x += losses[i] * weights[i];
    x = block_sum(x, scratch);
    if (threadIdx.x == 0) sum[0] = x;
}

// out[i] = weights[i] * factor[0]. All f32 [n]. Grid: ceil(n / EACH_THREADS). Block: EACH_THREADS.
extern "C" __global__ void __launch_bounds__(EACH_THREADS)
    times_one(const float* __restrict__ weights, const float* __restrict__ factor, float* out, int n) {
    int i = blockIdx.x * EACH_THREADS + threadIdx.x;
    if (i < n) out[i] = weights[i] * factor[0];
}

__device__ __forceinline__ void add_one(Running& r, float x) {
    if (x > r.largest) {
        r.sum *= __expf(r.largest - x);
        r.largest = x;
    }
    r.sum += __expf(x - r.largest);
}

// divergences[r] = sum_v p[v] * (log p[v] - log q[v]), p and q the probabilities of one[r] and other[r]: 0 for equal
// rows. A logit that is not a number makes it none. one, other f32 [rows, V]; divergences f32 [rows]. Grid: rows.
// Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
    divergence(const float* __restrict__ one, const float* __restrict__ other, float* divergences, int V) {
    __shared__ Running parts[2][32];
    __shared__ float scratch[32];
    u64 row = blockIdx.x;
    const float *x = one + row * V, *y = other + row * V;
    Running p = {LOWEST, 0.0f}, q = p;
    for (int i = threadIdx.x; i < V; i += THREADS) {
        add_one(p, x[i]);
        add_one(q, y[i]);
    }
    p = merge_block(p, parts[0]);
    q = merge_block(q, parts[1]);
    float of_p = logf(p.sum), of_q = logf(q.sum), sum = 0.0f;
    for (int i = threadIdx.x; i < V; i += THREADS) {
        float a = x[i] - p.largest - of_p, b = y[i] - q.largest - of_q;
        sum += __expf(a) * (a - b);
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) divergences[row] = sum;
}
