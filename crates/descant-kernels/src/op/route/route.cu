// Routing: router logits, the choice of experts, the stable sort of (token, slot) pairs by expert.
//
// No atomics on floats and none that decide an order: a pair's place is the number of pairs before it, counted by
// ballots within a chunk of 1024 pairs and by sums over the chunks before. Index arrays are i32.
#include "mma.cuh"
#include "step.cuh"

#define EXPERT_TILE 32

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
// A block owns 16 M tokens; its eight warps take the columns in turns of 32 and are summed in order. Within a turn a
// lane loads 16 bytes of a row; both operands use the same order of columns, which a dot product does not see. With w
// in f32 (a router with its low-rank part added) it is the sum of three bf16 products.
template <bool F32, int M>
__device__ __forceinline__ void router_logits(const bf16* __restrict__ x, const void* __restrict__ w,
                                              const float* __restrict__ bias, float* logits, int T, int D, int E) {
    __shared__ float partial[8][16 * M][EXPERT_TILE];
    constexpr int AHEAD = F32 && M > 1 ? 1 : F32 || M > 1 ? 2 : 3;  // turns of a warp loaded together, without spills
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    int first = blockIdx.x * 16 * M;
    for (int e0 = 0; e0 < E; e0 += EXPERT_TILE) {
        float acc[M][4][4] = {};
        // What is not there is zero: loads without branches are under way together.
        for (int start = warp; start < D / 32; start += 8 * AHEAD) {
            uint4 a[AHEAD][M][2], b[AHEAD][4][F32 ? 2 : 1];
#pragma unroll
            for (int turn = 0; turn < AHEAD; turn++) {
                const int column = (start + turn * 8) * 32 + t * 8;
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
        for (int i = threadIdx.x; i < 16 * M * EXPERT_TILE; i += 256) {
            int token = first + i / EXPERT_TILE, expert = e0 + i % EXPERT_TILE;
            if (token >= T || expert >= E) continue;
            float sum = 0.0f;
#pragma unroll
            for (int part = 0; part < 8; part++) sum += partial[part][i / EXPERT_TILE][i % EXPERT_TILE];
            logits[(u64)token * E + expert] = sum + (bias ? bias[expert] : 0.0f);
        }
        __syncthreads();
    }
}

#define CHUNK 1024
#define MAX_EXPERTS 256
#define WARPS 32

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
// Grid: ceil(T / 8). Block: 256, a warp a token.
extern "C" __global__ void __launch_bounds__(256)
    choose(const float* __restrict__ logits, int* experts, float* weights, int T, int E, int k) {
    int token = blockIdx.x * 8 + (threadIdx.x >> 5);
    if (token < T) choose_token(logits, experts, weights, token, E, k);
}

// A block chooses for its own tokens.
template <bool F32, int M>
__device__ __forceinline__ void logits_and_choice(const bf16* __restrict__ x, const void* __restrict__ w,
                                                  const float* __restrict__ bias, float* logits, int* experts,
                                                  float* weights, int T, int D, int E, int k) {
    router_logits<F32, M>(x, w, bias, logits, T, D, E);
    int first = blockIdx.x * 16 * M, end = min(T, first + 16 * M);
    for (int token = first + (threadIdx.x >> 5); token < end; token += 8)
        choose_token(logits, experts, weights, token, E, k);
}

// x bf16 [T, D]; w [E, D]; bias f32 [E] or null; logits f32 [T, E]; experts and weights as `choose` has them. D a
// multiple of 32, any E. Grid: ceil(T / 32), or ceil(T / 16) of those for few tokens. Block: 256.
extern "C" __global__ void __launch_bounds__(256, 2)
    router_choice(const bf16* x, const bf16* w, const float* bias, float* logits, int* experts, float* weights, int T,
                  int D, int E, int k) {
    follow_closely();
    logits_and_choice<false, 2>(x, w, bias, logits, experts, weights, T, D, E, k);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    router_choice_few(const bf16* x, const bf16* w, const float* bias, float* logits, int* experts, float* weights,
                      int T, int D, int E, int k) {
    follow_closely();
    logits_and_choice<false, 1>(x, w, bias, logits, experts, weights, T, D, E, k);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    router_choice_f32(const bf16* x, const float* w, const float* bias, float* logits, int* experts, float* weights,
                      int T, int D, int E, int k) {
    follow_closely();
    logits_and_choice<true, 2>(x, w, bias, logits, experts, weights, T, D, E, k);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    router_choice_few_f32(const bf16* x, const float* w, const float* bias, float* logits, int* experts, float* weights,
                          int T, int D, int E, int k) {
    follow_closely();
    logits_and_choice<true, 1>(x, w, bias, logits, experts, weights, T, D, E, k);
}

// How often each expert occurs in each chunk of 1024 pairs. experts i32 [P]; counts i32 [ceil(P / 1024), E]. E <= 256.
// Grid: ceil(P / 1024). Block: 1024.
extern "C" __global__ void __launch_bounds__(1024)
    count_pairs(const int* __restrict__ experts, int* counts, int P, int E) {
    follow_closely();
    __shared__ int chosen[MAX_EXPERTS];
    for (int e = threadIdx.x; e < E; e += 1024) chosen[e] = 0;
    __syncthreads();
    int pair = blockIdx.x * CHUNK + threadIdx.x;
    if (pair < P) atomicAdd(&chosen[experts[pair]], 1);  // A count of integers is the same in any order.
    __syncthreads();
    for (int e = threadIdx.x; e < E; e += 1024) counts[blockIdx.x * E + e] = chosen[e];
}

// Stable sort of the pairs by expert: place of a pair = pairs of smaller experts + earlier pairs of its expert.
// experts i32 [P]; counts as `count_pairs` wrote it; pairs, places i32 [P]; offsets i32 [E + 1]. E <= 256.
// Grid: ceil(P / 1024), at least 1. Block: 1024.
extern "C" __global__ void __launch_bounds__(1024)
    sort_pairs(const int* __restrict__ experts, const int* __restrict__ counts, int* pairs, int* places, int* offsets,
               int P, int E) {
    follow_closely();
    __shared__ int before[MAX_EXPERTS], total[MAX_EXPERTS], by_warp[WARPS][MAX_EXPERTS];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, n_chunks = (P + CHUNK - 1) / CHUNK, chunk = blockIdx.x;
    // Counts of all chunks, and of those before this one: warps take chunks in turns, then one thread an expert sums.
    for (int part = 0; part < 2; part++) {
        int end = part ? chunk : n_chunks;
        for (int e = lane; e < E; e += 32) {
            int sum = 0;
            for (int c = warp; c < end; c += WARPS) sum += counts[c * E + e];
            by_warp[warp][e] = sum;
        }
        __syncthreads();
        for (int e = threadIdx.x; e < E; e += 1024) {
            int sum = 0;
            for (int w = 0; w < WARPS; w++) sum += by_warp[w][e];
            (part ? before : total)[e] = sum;
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        int sum = 0;
        for (int e = 0; e < E; e++) {
            before[e] += sum;
            if (chunk == 0) offsets[e] = sum;
            sum += total[e];
        }
        if (chunk == 0) offsets[E] = sum;
    }
    for (int e = lane; e < E; e += 32) by_warp[warp][e] = 0;
    __syncthreads();
    int pair = chunk * CHUNK + threadIdx.x, e = pair < P ? experts[pair] : -1;
    u32 same = __match_any_sync(FULL_WARP, e);
    int rank = __popc(same & ((1u << lane) - 1));
    if (e >= 0 && rank == 0) by_warp[warp][e] = __popc(same);
    __syncthreads();
    for (int i = threadIdx.x; i < E; i += 1024) {
        int sum = before[i];
        for (int w = 0; w < WARPS; w++) {
            int n = by_warp[w][i];
            by_warp[w][i] = sum;
            sum += n;
        }
    }
    __syncthreads();
    if (e < 0) return;
    int place = by_warp[warp][e] + rank;
    places[pair] = place;
    pairs[place] = pair;
}

#define FEW_CHUNKS (FEW_PAIRS / CHUNK)
static_assert(FEW_PAIRS % CHUNK == 0, "whole chunks");

// `count_pairs` and `sort_pairs` in one block. P <= FEW_PAIRS, E <= FEW_EXPERTS. Grid: 1. Block: 1024.
extern "C" __global__ void __launch_bounds__(1024)
    sort_few_pairs(const int* __restrict__ experts, int* pairs, int* places, int* offsets, int P, int E) {
    follow_closely();
    // Pairs of each expert in each run of 32, then those in the runs before.
    __shared__ unsigned short counts[FEW_CHUNKS * WARPS][FEW_EXPERTS];
    __shared__ int first[FEW_EXPERTS];
    static_assert(FEW_CHUNKS * WARPS == 4 * 32 && FEW_EXPERTS == 4 * 32, "four a lane");
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int i = threadIdx.x; i < FEW_CHUNKS * WARPS * FEW_EXPERTS; i += 1024) (&counts[0][0])[i] = 0;
    __syncthreads();
    int mine[FEW_CHUNKS], rank[FEW_CHUNKS];
#pragma unroll
    for (int c = 0; c < FEW_CHUNKS; c++) {
        int pair = c * CHUNK + threadIdx.x;
        mine[c] = pair < P ? experts[pair] : -1;
        u32 same = __match_any_sync(FULL_WARP, mine[c]);
        rank[c] = __popc(same & ((1u << lane) - 1));
        if (mine[c] >= 0 && rank[c] == 0) counts[c * WARPS + warp][mine[c]] = __popc(same);
    }
    __syncthreads();
    // A warp an expert, four runs a lane.
    for (int e = warp; e < E; e += WARPS) {
        int n[4], sum = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) n[i] = counts[4 * lane + i][e], sum += n[i];
        int before = sum;
#pragma unroll
        for (int offset = 1; offset < 32; offset <<= 1) {
            int other = __shfl_up_sync(FULL_WARP, before, offset);
            if (lane >= offset) before += other;
        }
        if (lane == 31) first[e] = before;
        before -= sum;
#pragma unroll
        for (int i = 0; i < 4; i++) counts[4 * lane + i][e] = before, before += n[i];
    }
    __syncthreads();
    // One warp, four experts a lane.
    if (warp == 0) {
        int n[4], sum = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) n[i] = 4 * lane + i < E ? first[4 * lane + i] : 0, sum += n[i];
        int before = sum;
#pragma unroll
        for (int offset = 1; offset < 32; offset <<= 1) {
            int other = __shfl_up_sync(FULL_WARP, before, offset);
            if (lane >= offset) before += other;
        }
        if (lane == 31) offsets[E] = before;
        before -= sum;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int e = 4 * lane + i;
            if (e < E) first[e] = before, offsets[e] = before;
            before += n[i];
        }
    }
    __syncthreads();
#pragma unroll
    for (int c = 0; c < FEW_CHUNKS; c++) {
        if (mine[c] < 0) continue;
        int pair = c * CHUNK + threadIdx.x, place = first[mine[c]] + counts[c * WARPS + warp][mine[c]] + rank[c];
        places[pair] = place;
        pairs[place] = pair;
    }
}

// weights[t] = softmax(logits[t, experts[t]]). logits f32 [T, E], experts i32 [T, k], weights f32 [T, k].
// The first expert is taken as the one with the largest logit. Grid: ceil(T / 256). Block: 256, a thread a token.
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
// weights, grad f32 [T, k]; experts i32 [T, k]; dlogits f32 [T, E]. Grid: ceil(T / 8). Block: 256, a warp a token.
extern "C" __global__ void expert_weights_backward(const float* __restrict__ weights, const int* __restrict__ experts,
                                                   const float* __restrict__ grad, float* dlogits, int T, int E,
                                                   int k) {
    u64 token = (u64)blockIdx.x * 8 + (threadIdx.x >> 5);
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
