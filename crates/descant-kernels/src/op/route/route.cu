// Routing: router logits, the choice of experts, and their weights. Index arrays are i32.
#include "mma.cuh"
#include "step.cuh"

#define EXPERT_TILE 32
constexpr int WARPS = THREADS / 32;
static_assert(THREADS % 32 == 0, "whole warps");
static_assert(TILE_TOKENS == 16, "a product of tensor cores high");
static_assert(MAX_EXPERTS % 32 == 0, "as many keys a lane");

// Takes the leading bf16 of eight floats, and leaves what is missing in them.
__device__ __forceinline__ uint4 split(float* f) {
    uint4 lead = pack8(f);
    float taken[8];
    unpack8(lead, taken);
#pragma unroll
    for (int j = 0; j < 8; j++) f[j] -= taken[j];
    return lead;
}

// logits[t, e] = dot(x[t], w[e]) + bias[e], on tensor cores with f32 accumulators: products of bf16 are exact in f32.
//
// A block owns TILE_TOKENS M tokens; its warps take the columns in turns of 32 and are summed in order. Within a turn a
// lane loads 16 bytes of a row; both operands use the same order of columns, which a dot product does not see. With w
// in f32 (a router with its low-rank part added) it is the sum of three bf16 products.
template <bool F32, int M>
__device__ __forceinline__ void router_logits(const bf16* __restrict__ x, const void* __restrict__ w,
                                              const float* __restrict__ bias, float* logits, int T, int D, int E) {
    __shared__ float partial[WARPS][TILE_TOKENS * M][EXPERT_TILE];
    constexpr int AHEAD = F32 && M > 1 ? 1 : F32 || M > 1 ? 2 : 3;  // turns of a warp loaded together, without spills
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    int first = blockIdx.x * TILE_TOKENS * M;
    for (int e0 = 0; e0 < E; e0 += EXPERT_TILE) {
        float acc[M][4][4] = {};
        // What is not there is zero: loads without branches are under way together.
        for (int start = warp; start < D / 32; start += WARPS * AHEAD) {
            uint4 a[AHEAD][M][2], b[AHEAD][4][F32 ? 2 : 1];
#pragma unroll
            for (int turn = 0; turn < AHEAD; turn++) {
                const int column = (start + turn * WARPS) * 32 + t * 8;
#pragma unroll
                for (int i = 0; i < 2 * M; i++) {
                    const int token = first + i * 8 + g;
                    const bool here = token < T && column < D;
                    a[turn][i >> 1][i & 1] = here ? load16(x + (u64)token * D + column) : make_uint4(0, 0, 0, 0);
                }
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    const int expert = e0 + n * 8 + g;
                    const bool here = expert < E && column < D;
                    const u64 at = (u64)expert * D + column;
#pragma unroll
                    for (int i = 0; i < (F32 ? 2 : 1); i++)
                        b[turn][n][i] = !here ? make_uint4(0, 0, 0, 0)
                                        : F32 ? *(const uint4*)((const float*)w + at + i * 4)
                                              : load16((const bf16*)w + at);
                }
            }
#pragma unroll
            for (int turn = 0; turn < AHEAD; turn++)
#pragma unroll
                for (int n = 0; n < 4; n++)
                    if constexpr (F32) {
                        float f[8];
                        *(uint4*)f = b[turn][n][0], *(uint4*)(f + 4) = b[turn][n][1];
#pragma unroll
                        for (int part = 0; part < 3; part++) {
                            const uint4 y = split(f);
#pragma unroll
                            for (int m = 0; m < M; m++) multiply32_free(acc[m][n], a[turn][m][0], a[turn][m][1], y);
                        }
                    } else
#pragma unroll
                        for (int m = 0; m < M; m++)
                            multiply32_free(acc[m][n], a[turn][m][0], a[turn][m][1], b[turn][n][0]);
        }
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    partial[warp][m * 16 + (i >> 1) * 8 + g][n * 8 + t * 2 + (i & 1)] = acc[m][n][i];
        __syncthreads();
        for (int i = threadIdx.x; i < TILE_TOKENS * M * EXPERT_TILE; i += THREADS) {
            int token = first + i / EXPERT_TILE, expert = e0 + i % EXPERT_TILE;
            if (token >= T || expert >= E) continue;
            float sum = 0.0f;
#pragma unroll
            for (int part = 0; part < WARPS; part++) sum += partial[part][i / EXPERT_TILE][i % EXPERT_TILE];
            logits[(u64)token * E + expert] = sum + (bias ? bias[expert] : 0.0f);
        }
        __syncthreads();
    }
}

// A warp's choice for one token, as `choose` describes it.
__device__ __forceinline__ void choose_token(const float* logits, int* experts, float* weights, int token, int E,
                                             int k) {
    int lane = threadIdx.x & 31;
    // A key is the logit above and the reversed expert below, never 0; a lane keeps up to eight.
    u64 keys[MAX_EXPERTS / 32];
#pragma unroll
    for (int j = 0; j < MAX_EXPERTS / 32; j++) {
        int e = j * 32 + lane;
        keys[j] = e < E ? (u64)ordered(logits[(u64)token * E + e]) << 32 | (u32)(MAX_EXPERTS - e) : 0;
    }
    int mine = 0;
    for (int slot = 0; slot < k; slot++) {
        u64 best = 0;
#pragma unroll
        for (int j = 0; j < MAX_EXPERTS / 32; j++) best = keys[j] > best ? keys[j] : best;
#pragma unroll
        for (int offset = 16; offset > 0; offset >>= 1) {
            u64 other = __shfl_xor_sync(FULL_WARP, best, offset);
            best = other > best ? other : best;
        }
#pragma unroll
        for (int j = 0; j < MAX_EXPERTS / 32; j++) keys[j] = keys[j] == best ? 0 : keys[j];
        if (lane == slot) mine = MAX_EXPERTS - (int)(u32)best;
    }
    float value = logits[(u64)token * E + mine];
    // All lanes take part in the exchange; those beyond k then count for nothing.
    float largest = __shfl_sync(FULL_WARP, value, 0);
    float p = lane < k ? expf(value - largest) : 0.0f;
    float sum = warp_sum(p);
    if (lane >= k) return;
    experts[(u64)token * k + lane] = mine;
    if (weights) weights[(u64)token * k + lane] = p / sum;
}

// The k largest logits of each token, largest first, ties to the lower expert, and their softmax.
// logits f32 [T, E]; experts i32 [T, k]; weights f32 [T, k] or null. k <= 32, k <= E <= 256.
// Grid: ceil(T / WARPS). Block: THREADS, a warp a token.
extern "C" __global__ void __launch_bounds__(THREADS)
    choose(const float* __restrict__ logits, int* experts, float* weights, int T, int E, int k) {
    int token = blockIdx.x * WARPS + (threadIdx.x >> 5);
    if (token < T) choose_token(logits, experts, weights, token, E, k);
}

// A block chooses for its own tokens.
template <bool F32, int M>
__device__ __forceinline__ void logits_and_choice(const bf16* __restrict__ x, const void* __restrict__ w,
                                                  const float* __restrict__ bias, float* logits, int* experts,
                                                  float* weights, int T, int D, int E, int k) {
    router_logits<F32, M>(x, w, bias, logits, T, D, E);
    int first = blockIdx.x * TILE_TOKENS * M, end = min(T, first + TILE_TOKENS * M);
    for (int token = first + (threadIdx.x >> 5); token < end; token += WARPS)
        choose_token(logits, experts, weights, token, E, k);
}

// x bf16 [T, D]; w [E, D]; bias f32 [E] or null; logits f32 [T, E]; experts and weights as `choose` has them. D a
// multiple of 32, any E. Grid: ceil(T / (TILE_TOKENS m)). Block: THREADS.
#define ROUTER_CHOICE(name, number, f32, m)                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                        \
        name(const bf16* x, const number* w, const float* bias, float* logits, int* experts, float* weights, int T, \
             int D, int E, int k) {                                                                                 \
        follow_closely();                                                                                           \
        logits_and_choice<f32, m>(x, w, bias, logits, experts, weights, T, D, E, k);                                \
    }
ROUTER_CHOICE(router_choice, bf16, false, 2)
ROUTER_CHOICE(router_choice_few, bf16, false, 1)
ROUTER_CHOICE(router_choice_f32, float, true, 2)
ROUTER_CHOICE(router_choice_few_f32, float, true, 1)

// weights[t] = softmax(logits[t, experts[t]]). logits f32 [T, E], experts i32 [T, k], weights f32 [T, k].
// The first expert is taken as the one with the largest logit. Grid: ceil(T / THREADS). Block: THREADS, a thread a
// token.
extern "C" __global__ void expert_weights(const float* __restrict__ logits, const int* __restrict__ experts,
                                          float* weights, int T, int E, int k) {
    u64 token = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (token >= T) return;
    logits += token * E, experts += token * k, weights += token * k;
    float largest = logits[experts[0]], sum = 0.0f;
    for (int i = 1; i < k; i++) largest = fmaxf(largest, logits[experts[i]]);
    for (int i = 0; i < k; i++) sum += expf(logits[experts[i]] - largest);
    for (int i = 0; i < k; i++) weights[i] = expf(logits[experts[i]] - largest) / sum;
}

// Gradient of all logits of a token, zero where it did not go: dlogits[t, e_i] = w_i (g_i - sum_j w_j g_j).
// weights, grad f32 [T, k]; experts i32 [T, k]; dlogits f32 [T, E]. Grid: ceil(T / WARPS). Block: THREADS, a warp a
// token.
extern "C" __global__ void expert_weights_backward(const float* __restrict__ weights, const int* __restrict__ experts,
                                                   const float* __restrict__ grad, float* dlogits, int T, int E,
                                                   int k) {
    u64 token = (u64)blockIdx.x * WARPS + (threadIdx.x >> 5);
    if (token >= T) return;
    weights += token * k, experts += token * k, grad += token * k;
    float mean = 0.0f;
    for (int i = 0; i < k; i++) mean += weights[i] * grad[i];
    for (int e = threadIdx.x & 31; e < E; e += 32) {
        float value = 0.0f;
        for (int i = 0; i < k; i++)
            if (experts[i] == e) value = weights[i] * (grad[i] - mean);
        dlogits[token * E + e] = value;
    }
}
