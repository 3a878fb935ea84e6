// Rows between tokens and sorted pairs: gather, weighted sum, their gradients, and the fused end of the expert half's
// backward. All sums over a token's pairs run in slot order.
#include "step.cuh"

static_assert(THREADS % 32 == 0 && ROW_THREADS % 32 == 0, "whole warps");
static_assert(FEW_K % 4 == 0, "slots go by fours");

// out[places[t, i]] = x[t] for each slot i: a row for each sorted place. A row is read once, because rows in the order
// of places come from everywhere. x bf16 [T, D], places i32 [T, k], out bf16 [T k, D].
// Grid: ceil(T / (THREADS / 32)). Block: THREADS, a warp a token.
extern "C" __global__ void __launch_bounds__(THREADS)
    take_tokens(const bf16* __restrict__ x, const int* __restrict__ places, bf16* __restrict__ out, int T, int D,
                int k) {
    const int token = blockIdx.x * (THREADS / 32) + (threadIdx.x >> 5);
    if (token >= T) return;
    const bf16* from = x + (u64)token * D;
    for (int column = (threadIdx.x & 31) * 8; column < D; column += 4 * 256) {
        uint4 v[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (column + 256 * i < D) v[i] = load16(from + column + 256 * i);
        for (int slot = 0; slot < k; slot++) {
            bf16* to = out + (u64)places[token * k + slot] * D + column;
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (column + 256 * i < D) store16(to + 256 * i, v[i]);
        }
    }
}

// out[t] = residual[t] + sum over slots i of weights[t, i] * y[places[t, i]].
// y bf16 [P, D]; weights f32 [T, k], null for ones (the gradient of take_tokens); residual bf16 [T, D] or null;
// out bf16 [T, D], may be residual. n = T * D / 8. Grid: ceil(n / THREADS). Block: THREADS, a vector a thread.
extern "C" __global__ void __launch_bounds__(THREADS)
    combine(const bf16* __restrict__ y, const float* __restrict__ weights, const int* __restrict__ places,
            const bf16* residual, bf16* out, u64 n, int D, int k) {
    follow_closely();
    u64 item = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (item >= n) return;
    int width = D / 8, column = item % width * 8;
    u64 token = item / width;
    float sum[8] = {};
    if (residual) unpack8(load16(residual + item * 8), sum);
    for (int start = 0; start < k; start += 4) {
        uint4 v[4];
        float w[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u64 pair = token * k + start + i;
            if (start + i < k) v[i] = load16(y + (u64)places[pair] * D + column), w[i] = weights ? weights[pair] : 1.0f;
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (start + i >= k) break;
            float f[8];
            unpack8(v[i], f);
#pragma unroll
            for (int j = 0; j < 8; j++) sum[j] += w[i] * f[j];
        }
    }
    store16(out + item * 8, pack8(sum));
}

// The gradients of `combine`: dy[p] = weights[q] * grad[q / k], d_weights[q] = dot(grad[q / k], y[p]) with q =
// pairs[p]. y, dy bf16 [P, D] (dy may be y); grad bf16 [T, D]; weights, d_weights f32 [T, k]. Grid: P. Block:
// ROW_THREADS.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    combine_gradients(const bf16* y, const float* __restrict__ weights, const int* __restrict__ pairs,
                      const bf16* __restrict__ grad, bf16* dy, float* d_weights, int D, int k) {
    __shared__ float scratch[32];
    u64 place = blockIdx.x;
    int pair = pairs[place];
    float weight = weights[pair], sum = 0.0f;
    grad += (u64)(pair / k) * D, y += place * D, dy += place * D;
    for (int c = threadIdx.x; c < D / 8; c += ROW_THREADS) {
        float a[8], b[8];
        unpack8(load16(grad + 8 * c), a);
        unpack8(load16(y + 8 * c), b);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            sum += a[j] * b[j];
            a[j] *= weight;
        }
        store16(dy + 8 * c, pack8(a));
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) d_weights[pair] = sum;
}

// Of a token with up to K pairs.
template <int K> struct Token {
    const bf16* dxp;
    const void* router_w;
    bool router_is_f32;
    int places[K], experts[K];
    float d_logits[K];
};

// Gradient of the norm's output at eight columns: sum of the pairs' rows and of the router's part.
template <int K>
__device__ __forceinline__ void normed_gradient(const Token<K>& token, int D, int k, int c, float* g) {
#pragma unroll
    for (int j = 0; j < 8; j++) g[j] = 0.0f;
#pragma unroll
    for (int start = 0; start < K; start += 4) {
        if (start >= k) break;
        uint4 v[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (start + i < k) v[i] = load16(token.dxp + (u64)token.places[start + i] * D + 8 * c);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (start + i >= k) break;
            float f[8], w[8];
            u64 at = (u64)token.experts[start + i] * D + 8 * c;
            unpack8(v[i], f);
            if (token.router_is_f32) {
                load_floats8((const float*)token.router_w + at, 0, w);
            } else {
                unpack8(load16((const bf16*)token.router_w + at), w);
            }
#pragma unroll
            for (int j = 0; j < 8; j++) g[j] += f[j] + token.d_logits[start + i] * w[j];
        }
    }
}

// V vectors a thread stay in registers between the two passes; with V = 0 the second pass computes them again.
template <int V, int K>
__device__ __forceinline__ void finish_token(const Token<K>& token, const bf16* x, const float* w, const bf16* grad,
                                             bf16* out, float scale, int D, int k, float* scratch) {
    float kept[V > 0 ? V : 1][8];
    uint4 rows[V > 0 ? V : 1], rest[V > 0 ? V : 1];
    float sum = 0.0f;
    int n = D / 8;
    // Under way beside the rest.
#pragma unroll
    for (int i = 0; i < V; i++) {
        int c = threadIdx.x + i * ROW_THREADS;
        if (c < n) rows[i] = load16(x + 8 * c), rest[i] = load16(grad + 8 * c);
    }
#pragma unroll
    for (int i = 0; i < (V > 0 ? V : (n + ROW_THREADS - 1) / ROW_THREADS); i++) {
        int c = threadIdx.x + i * ROW_THREADS;
        if (c >= n) break;
        float g[8], f[8];
        uint4 row = V > 0 ? rows[V > 0 ? i : 0] : load16(x + 8 * c);
        normed_gradient(token, D, k, c, g);
        unpack8(row, f);
        float weight[8];
        load_floats8(w, c, weight);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            g[j] *= weight[j];
            sum += g[j] * f[j];
        }
        if (V > 0) {
#pragma unroll
            for (int j = 0; j < 8; j++) kept[V > 0 ? i : 0][j] = g[j];
        }
    }
    float along = block_sum(sum, scratch) * scale * scale / D;
#pragma unroll
    for (int i = 0; i < (V > 0 ? V : (n + ROW_THREADS - 1) / ROW_THREADS); i++) {
        int c = threadIdx.x + i * ROW_THREADS;
        if (c >= n) break;
        float g[8], f[8], r[8];
        if (V > 0) {
#pragma unroll
            for (int j = 0; j < 8; j++) g[j] = kept[V > 0 ? i : 0][j];
            unpack8(rows[V > 0 ? i : 0], f);
        } else {
            normed_gradient(token, D, k, c, g);
            for (int j = 0; j < 8; j++) g[j] *= w[8 * c + j];
            unpack8(load16(x + 8 * c), f);
        }
        unpack8(V > 0 ? rest[V > 0 ? i : 0] : load16(grad + 8 * c), r);
#pragma unroll
        for (int j = 0; j < 8; j++) r[j] += scale * (g[j] - f[j] * along);
        store16(out + 8 * c, pack8(r));
    }
}

// Sums over the block, each the same bits in every thread. `scratch` is free again on return.
template <int K> __device__ __forceinline__ void block_sums(float (&x)[K], float* scratch) {
    static_assert(ROW_THREADS / 32 * K <= 32, "room for a sum of each warp");
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
    for (int i = 0; i < K; i++) {
        x[i] = warp_sum(x[i]);
        if (lane == 0) scratch[warp * K + i] = x[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < K; i++) {
        x[i] = 0.0f;
        for (int other = 0; other < ROW_THREADS / 32; other++) x[i] += scratch[other * K + i];
    }
    __syncthreads();
}

// The end of the expert half's backward, for each token t with experts e_i:
//   dw_i   = d_weights[t, i] + dot(grad[t], down_bias[e_i])
//   dl_i   = weights_i (dw_i - sum_j weights_j dw_j)                     -> d_logits[t, i]
//   dxn    = sum_i dxp[places[t, i]] + sum_i dl_i router_w[e_i]
//   out[t] = grad[t] + gradient of RMSNorm (x_mid, inv_rms, norm_w) at dxn
// dxp bf16 [P, D]; places, experts i32 [T, k]; d_weights, weights, d_logits f32 [T, k]; router_w [E, D], f32 or bf16;
// down_bias bf16 [E, D]; x_mid bf16 [T, D]; inv_rms f32 [T]; norm_w f32 [D]; grad, out bf16 [T, D], may be one. k <= K.
template <int K>
__device__ __forceinline__ void end_of_experts(const bf16* dxp, const int* places, const int* experts,
                                               const float* d_weights, const float* weights, const void* router_w,
                                               const bf16* down_bias, const bf16* x_mid, const float* inv_rms,
                                               const float* norm_w, const bf16* grad, bf16* out, float* d_logits, int D,
                                               int k, int router_is_f32) {
    __shared__ float scratch[32];
    u64 t = blockIdx.x;
    Token<K> token;
    token.dxp = dxp, token.router_w = router_w, token.router_is_f32 = router_is_f32;
    grad += t * D, out += t * D;
    float dw[K], mean = 0.0f;
#pragma unroll
    for (int i = 0; i < K; i++) {
        dw[i] = 0.0f;
        if (i < k) token.places[i] = places[t * k + i], token.experts[i] = experts[t * k + i];
    }
    for (int c = threadIdx.x; c < D / 8; c += ROW_THREADS) {
        float f[8];
        unpack8(load16(grad + 8 * c), f);
#pragma unroll
        for (int i = 0; i < K; i++) {
            if (i >= k) break;
            float b[8];
            unpack8(load16(down_bias + (u64)token.experts[i] * D + 8 * c), b);
#pragma unroll
            for (int j = 0; j < 8; j++) dw[i] += f[j] * b[j];
        }
    }
    block_sums(dw, scratch);
#pragma unroll
    for (int i = 0; i < K; i++)
        if (i < k) dw[i] += d_weights[t * k + i], mean += weights[t * k + i] * dw[i];
#pragma unroll
    for (int i = 0; i < K; i++) {
        if (i >= k) break;
        token.d_logits[i] = weights[t * k + i] * (dw[i] - mean);
        if (threadIdx.x == 0) d_logits[t * k + i] = token.d_logits[i];
    }
    const bf16* x = x_mid + t * D;
    int v = (D / 8 + ROW_THREADS - 1) / ROW_THREADS;
    if (v == 1)
        finish_token<1>(token, x, norm_w, grad, out, inv_rms[t], D, k, scratch);
    else if (v <= 3)
        finish_token<3>(token, x, norm_w, grad, out, inv_rms[t], D, k, scratch);
    else
        finish_token<0>(token, x, norm_w, grad, out, inv_rms[t], D, k, scratch);
}

// The above with k <= FEW_K. Grid: T. Block: ROW_THREADS.
extern "C" __global__ void __launch_bounds__(ROW_THREADS, 5)
    combine_backward(const bf16* dxp, const int* places, const int* experts, const float* d_weights,
                     const float* weights, const void* router_w, const bf16* down_bias, const bf16* x_mid,
                     const float* inv_rms, const float* norm_w, const bf16* grad, bf16* out, float* d_logits, int D,
                     int k, int router_is_f32) {
    follow_closely();
    end_of_experts<FEW_K>(dxp, places, experts, d_weights, weights, router_w, down_bias, x_mid, inv_rms, norm_w, grad,
                          out, d_logits, D, k, router_is_f32);
}
// The same with k <= MAX_K.
extern "C" __global__ void __launch_bounds__(ROW_THREADS, 4)
    combine_backward_many(const bf16* dxp, const int* places, const int* experts, const float* d_weights,
                          const float* weights, const void* router_w, const bf16* down_bias, const bf16* x_mid,
                          const float* inv_rms, const float* norm_w, const bf16* grad, bf16* out, float* d_logits,
                          int D, int k, int router_is_f32) {
    follow_closely();
    end_of_experts<MAX_K>(dxp, places, experts, d_weights, weights, router_w, down_bias, x_mid, inv_rms, norm_w, grad,
                          out, d_logits, D, k, router_is_f32);
}
