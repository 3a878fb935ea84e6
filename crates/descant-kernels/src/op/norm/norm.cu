// RMSNorm of rows, and its backward with the residual's gradient added. Source: Zhang and Sennrich 2019.
//
// Both are bound by bytes: every row is read once and stays in registers between the sum and the scaling. A block of
// THREADS owns a row and continues with the row gridDim.x further, with its part of the weight kept in registers.
// Rows longer than 4096 are read twice, the second time from cache. Sums have one order for each row, whatever the
// grid.
#include "step.cuh"

static_assert(THREADS % 32 == 0, "whole warps");

// What a thread keeps of a row: V vectors of eight, thread t the vectors t, t + 128, ...
template <int V> struct Row {
    uint4 v[V];
    __device__ __forceinline__ void load(const bf16* row, int n) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            int c = threadIdx.x + i * THREADS;
            v[i] = c < n ? load16(row + 8 * c) : make_uint4(0, 0, 0, 0);
        }
    }
};

__device__ __forceinline__ float square_sum(uint4 v) {
    float f[8], sum = 0.0f;
    unpack8(v, f);
#pragma unroll
    for (int j = 0; j < 8; j++) sum += f[j] * f[j];
    return sum;
}

template <int V>
__device__ __forceinline__ void norm_rows(const bf16* __restrict__ x, const float* __restrict__ w,
                                          bf16* __restrict__ out, float* inv_rms, int T, int D, int ld, float eps) {
    __shared__ float scratch[32];
    int n = D / 8;
    float weight[V][8];
#pragma unroll
    for (int i = 0; i < V; i++)
        if (threadIdx.x + i * THREADS < n) load_floats8(w, threadIdx.x + i * THREADS, weight[i]);
    for (int row = blockIdx.x; row < T; row += gridDim.x) {
        Row<V> r;
        r.load(x + (u64)row * D, n);
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < V; i++) sum += square_sum(r.v[i]);
        float scale = rsqrtf(block_sum(sum, scratch) / D + eps);
        if (threadIdx.x == 0 && inv_rms) inv_rms[row] = scale;
#pragma unroll
        for (int i = 0; i < V; i++) {
            int c = threadIdx.x + i * THREADS;
            if (c >= n) break;
            float f[8];
            unpack8(r.v[i], f);
#pragma unroll
            for (int j = 0; j < 8; j++) f[j] = f[j] * scale * weight[i][j];
            store16(out + (u64)row * ld + 8 * c, pack8(f));
        }
    }
}

__device__ __forceinline__ void norm_long_rows(const bf16* x, const float* w, bf16* out, float* inv_rms, int T, int D,
                                               int ld, float eps) {
    __shared__ float scratch[32];
    int n = D / 8;
    for (int row = blockIdx.x; row < T; row += gridDim.x) {
        const bf16* from = x + (u64)row * D;
        float sum = 0.0f;
        for (int c = threadIdx.x; c < n; c += THREADS) sum += square_sum(load16(from + 8 * c));
        float scale = rsqrtf(block_sum(sum, scratch) / D + eps);
        if (threadIdx.x == 0 && inv_rms) inv_rms[row] = scale;
        for (int c = threadIdx.x; c < n; c += THREADS) {
            float f[8], weight[8];
            unpack8(load16(from + 8 * c), f);
            load_floats8(w, c, weight);
#pragma unroll
            for (int j = 0; j < 8; j++) f[j] = f[j] * scale * weight[j];
            store16(out + (u64)row * ld + 8 * c, pack8(f));
        }
    }
}

// out[t, i] = x[t, i] * inv_rms[t] * w[i], with inv_rms[t] = 1 / sqrt(mean(x[t]^2) + eps).
// x bf16 [T, D]; w f32 [D]; out bf16 [T, ld], columns D.. untouched; inv_rms f32 [T] or null. D a multiple of 8,
// 16-byte rows. Grid: any, at most T (16 blocks a multiprocessor are enough). Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS, 6)
    rms_norm(const bf16* x, const float* w, bf16* out, float* inv_rms, int T, int D, int ld, float eps) {
    wait_for_earlier();
    int v = (D / 8 + THREADS - 1) / THREADS;
    if (v == 1)
        norm_rows<1>(x, w, out, inv_rms, T, D, ld, eps);
    else if (v == 2)
        norm_rows<2>(x, w, out, inv_rms, T, D, ld, eps);
    else if (v == 3)
        norm_rows<3>(x, w, out, inv_rms, T, D, ld, eps);
    else if (v == 4)
        norm_rows<4>(x, w, out, inv_rms, T, D, ld, eps);
    else
        norm_long_rows(x, w, out, inv_rms, T, D, ld, eps);
}

// Dot product of x with weight * dy over eight elements; `g` gets weight * dy.
__device__ __forceinline__ float along_sum(uint4 x, uint4 dy, const float* weight, float* g) {
    float f[8], sum = 0.0f;
    unpack8(x, f);
    unpack8(dy, g);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        g[j] *= weight[j];
        sum += g[j] * f[j];
    }
    return sum;
}

__device__ __forceinline__ uint4 gradient(uint4 x, const float* g, uint4 residual, float scale, float along) {
    float f[8], r[8];
    unpack8(x, f);
    unpack8(residual, r);
#pragma unroll
    for (int j = 0; j < 8; j++) r[j] += scale * (g[j] - f[j] * along);
    return pack8(r);
}

template <int V>
__device__ __forceinline__ void backward_rows(const bf16* x, const float* __restrict__ w, const float* inv_rms,
                                              const bf16* dy, const bf16* residual, bf16* dx, int T, int D, int ld,
                                              float eps) {
    __shared__ float scratch[32];
    int n = D / 8;
    float weight[V][8];
#pragma unroll
    for (int i = 0; i < V; i++) {
        int c = threadIdx.x + i * THREADS;
        if (c < n)
            load_floats8(w, c, weight[i]);
        else
            for (int j = 0; j < 8; j++) weight[i][j] = 0.0f;
    }
    for (int row = blockIdx.x; row < T; row += gridDim.x) {
        Row<V> r, d, rest;
        r.load(x + (u64)row * D, n);
        d.load(dy + (u64)row * ld, n);
        if (residual)
            rest.load(residual + (u64)row * D, n);
        else
            for (int i = 0; i < V; i++) rest.v[i] = make_uint4(0, 0, 0, 0);
        float sum = 0.0f, squares = 0.0f;
#pragma unroll
        for (int i = 0; i < V; i++) {
            float g[8];
            sum += along_sum(r.v[i], d.v[i], weight[i], g);
            if (!inv_rms) squares += square_sum(r.v[i]);
        }
        float scale = inv_rms ? inv_rms[row] : rsqrtf(block_sum(squares, scratch) / D + eps);
        float along = block_sum(sum, scratch) * scale * scale / D;
#pragma unroll
        for (int i = 0; i < V; i++) {
            int c = threadIdx.x + i * THREADS;
            if (c >= n) break;
            float g[8];
            along_sum(r.v[i], d.v[i], weight[i], g);
            store16(dx + (u64)row * D + 8 * c, gradient(r.v[i], g, rest.v[i], scale, along));
        }
    }
}

__device__ __forceinline__ void backward_long_rows(const bf16* x, const float* w, const float* inv_rms, const bf16* dy,
                                                   const bf16* residual, bf16* dx, int T, int D, int ld, float eps) {
    __shared__ float scratch[32];
    int n = D / 8;
    for (int row = blockIdx.x; row < T; row += gridDim.x) {
        const bf16 *xr = x + (u64)row * D, *dr = dy + (u64)row * ld;
        float sum = 0.0f, squares = 0.0f, g[8], weight[8];
        for (int c = threadIdx.x; c < n; c += THREADS) {
            load_floats8(w, c, weight);
            sum += along_sum(load16(xr + 8 * c), load16(dr + 8 * c), weight, g);
            if (!inv_rms) squares += square_sum(load16(xr + 8 * c));
        }
        float scale = inv_rms ? inv_rms[row] : rsqrtf(block_sum(squares, scratch) / D + eps);
        float along = block_sum(sum, scratch) * scale * scale / D;
        for (int c = threadIdx.x; c < n; c += THREADS) {
            uint4 v = load16(xr + 8 * c);
            load_floats8(w, c, weight);
            along_sum(v, load16(dr + 8 * c), weight, g);
            uint4 rest = residual ? load16(residual + (u64)row * D + 8 * c) : make_uint4(0, 0, 0, 0);
            store16(dx + (u64)row * D + 8 * c, gradient(v, g, rest, scale, along));
        }
    }
}

// dx = residual + s (w dy) - x s^3 mean(w dy x), with s = inv_rms[t], or from x and eps where inv_rms is null.
// x bf16 [T, D]; dy bf16 [T, ld]; residual bf16 [T, D] or null; dx bf16 [T, D], may be `residual` or, where ld = D,
// `dy`. Grid: any, at most T (8 blocks a multiprocessor are enough). Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS, 4)
    rms_norm_backward(const bf16* x, const float* w, const float* inv_rms, const bf16* dy, const bf16* residual,
                      bf16* dx, int T, int D, int ld, float eps) {
    wait_for_earlier();
    int v = (D / 8 + THREADS - 1) / THREADS;
    if (v == 1)
        backward_rows<1>(x, w, inv_rms, dy, residual, dx, T, D, ld, eps);
    else if (v == 2)
        backward_rows<2>(x, w, inv_rms, dy, residual, dx, T, D, ld, eps);
    else if (v == 3)
        backward_rows<3>(x, w, inv_rms, dy, residual, dx, T, D, ld, eps);
    else if (v == 4)
        backward_rows<4>(x, w, inv_rms, dy, residual, dx, T, D, ld, eps);
    else
        backward_long_rows(x, w, inv_rms, dy, residual, dx, T, D, ld, eps);
}
