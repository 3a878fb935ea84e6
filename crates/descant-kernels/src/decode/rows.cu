// What a step of generation does to the rows of its sequences between the products: the embedding, positions and the
// cache, routing, an adapter's part at the experts, and the next token. A block a row where nothing else is said; every
// sum has one order, and a row's result depends on that row alone.
#include "step.cuh"

// x[b] = table[ids[b]]; the table may lie in mapped host memory. x bf16 [B, D]. Grid: B. Block: 128.
extern "C" __global__ void __launch_bounds__(128) embed(const bf16* table, const int* ids, bf16* x, int D) {
    const uint4* from = (const uint4*)(table + (u64)ids[blockIdx.x] * D);
    for (int i = threadIdx.x; i < D / 8; i += 128) ((uint4*)(x + (u64)blockIdx.x * D))[i] = from[i];
}

// sum_r u[r] v[r], both bf16, R a multiple of 8.
__device__ __forceinline__ float low_rank(const bf16* u, const bf16* v, int R) {
    float sum = 0.0f;
    for (int r = 0; r < R; r += 8) {
        float a[8], b[8];
        unpack8(load16(u + r), a);
        unpack8(load16(v + r), b);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += a[j] * b[j];
    }
    return sum;
}

// Bias and low-rank part of queries, keys and values, rotary embedding, and the new rows of the cache.
// qkv f32 [B, (H + 2 n_kv) D]; bias bf16; u bf16 [B, R] and v bf16 [(H + 2 n_kv) D, R], R 0 for none; cos, sin f32 [*,
// D / 2] by position; slots, positions i32 [B]; q bf16 [B, H D]; keys, values bf16 [slots * capacity, n_kv D]. Grid:
// (ceil((H + 2 n_kv) D / 2 / 256), B). Block: 256, a thread a pair (i, i + D / 2).
extern "C" __global__ void __launch_bounds__(256)
    place(const float* qkv, const bf16* bias, const bf16* u, const bf16* v, const float* cos, const float* sin,
          const int* slots, const int* positions, bf16* q, bf16* keys, bf16* values, int H, int n_kv, int D, int R,
          int capacity) {
    const int item = blockIdx.x * 256 + threadIdx.x, b = blockIdx.y, half = D / 2, width = (H + 2 * n_kv) * D;
    next_may_start();
    wait_for_earlier();
    if (item >= width / 2) return;
    const int head = item / half, i = item % half, column = head * D + i, position = positions[b];
    float pair[2];
#pragma unroll
    for (int j = 0; j < 2; j++) {
        const int at = column + j * half;
        pair[j] = to_float(to_bf16(qkv[(u64)b * width + at] + to_float(bias[at]) +
                                   (R ? low_rank(u + b * R, v + (u64)at * R, R) : 0.0f)));
    }
    if (head < H + n_kv) {
        const float c = cos[(u64)position * half + i], s = sin[(u64)position * half + i];
        const float first = pair[0] * c - pair[1] * s, second = pair[1] * c + pair[0] * s;
        pair[0] = first, pair[1] = second;
    }
    const u64 row = ((u64)slots[b] * capacity + position) * n_kv * D;
    bf16* to = head < H          ? q + (u64)b * H * D + column
               : head < H + n_kv ? keys + row + column - H * D
                                 : values + row + column - (H + n_kv) * D;
    to[0] = to_bf16(pair[0]), to[half] = to_bf16(pair[1]);
}

#define MAX_EXPERTS 256
#define MAX_WIDTH 4096
#define ROUTE_WARPS (ROUTE_THREADS / 32)
#define EARLY 12  // vectors of a row in a lane: all of 2880
static_assert(ROUTE_THREADS == MAX_WIDTH / 8, "a thread has eight numbers of a row");

// Orders floats as unsigned integers; -0 counts as 0, so that a tie is a tie.
__device__ __forceinline__ u32 ordered(float x) {
    u32 bits = __float_as_uint(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// sum over D of eight numbers at a time, a warp.
template <typename F> __device__ __forceinline__ float dot(const bf16* x, int D, F eight) {
    float sum = 0.0f;
#pragma unroll 6
    for (int i = threadIdx.x & 31; i < D / 8; i += 32) {
        float a[8], w[8];
        unpack8(load16(x + i * 8), a);
        eight(i, w);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += a[j] * w[j];
    }
    return warp_sum(sum);
}

// The end of attention and the choice of experts: middle = x + bias + attention's product + its low-rank part; its
// norm; the router's logits; the k largest, ties to the lower expert, and their softmax; rows by A of the chosen
// experts' first pair. product f32 [B, D]; x bf16 [B, D]; bias bf16 [D]; u bf16 [B, R], v bf16 [D, R], R 0 for none;
// norm f32 [D]; router bf16 or, with FINE, f32 [E, D]; router_bias f32 [E]; middle, normed bf16 [B, D]; experts i32 and
// weights f32 [B, k]; pairs, places i32 [k] and offsets i32 [E + 1] are written where there is one row. a bf16 [E,
// rank, D] or null; expert_u bf16 [B k, RANK]. D a multiple of 8 up to 4096, E at most 256, k at most 8. Grid: B.
template <bool FINE>
__device__ __forceinline__ void route(const float* product, const bf16* x, const bf16* bias, const bf16* u,
                                      const bf16* v, const float* norm, const void* router, const float* router_bias,
                                      bf16* middle, bf16* normed, int* experts, float* weights, int* pairs, int* places,
                                      int* offsets, const bf16* a, bf16* expert_u, int D, int E, int k, int R, int rank,
                                      int RANK, float epsilon) {
    __shared__ __align__(16) bf16 row[MAX_WIDTH];
    __shared__ float logits[MAX_EXPERTS], biases[MAX_EXPERTS];
    __shared__ float scratch[32];
    __shared__ int chosen[8];
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, b = blockIdx.x;
    float f[8] = {}, sum = 0.0f;
    const bool has = t < D / 8;
    // The router's rows of this warp come while the product before is still at work: those of the first two experts.
    uint4 early[2][EARLY] = {};
    const bool is_early = !FINE && D <= EARLY * 256;
    if (is_early) {
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int j = 0; j < EARLY; j++) {
                const int e = warp + i * ROUTE_WARPS, at = lane + j * 32;
                if (e < E && at < D / 8) early[i][j] = load16((const bf16*)router + (u64)e * D + at * 8);
            }
    }
    float add[8] = {}, by[8] = {};
    if (has) {
        unpack8(load16(bias + t * 8), add);
        ((float4*)by)[0] = ((const float4*)norm)[t * 2], ((float4*)by)[1] = ((const float4*)norm)[t * 2 + 1];
    }
    for (int e = t; e < E; e += ROUTE_THREADS) biases[e] = router_bias[e];
    next_may_start();
    wait_for_earlier();
    if (has) {
        float residual[8];
        unpack8(load16(x + (u64)b * D + t * 8), residual);
        const float4* from = (const float4*)(product + (u64)b * D + t * 8);
        const float4 one = from[0], other = from[1];
        const float made[8] = {one.x, one.y, one.z, one.w, other.x, other.y, other.z, other.w};
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float low = R ? low_rank(u + b * R, v + (u64)(t * 8 + j) * R, R) : 0.0f;
            f[j] = to_float(to_bf16(made[j] + add[j] + residual[j] + low));
            sum += f[j] * f[j];
        }
        store16(middle + (u64)b * D + t * 8, pack8(f));
    }
    const float scale = rsqrtf(block_sum(sum, scratch) / D + epsilon);
    if (has) {
#pragma unroll
        for (int j = 0; j < 8; j++) f[j] = f[j] * scale * by[j];
        const uint4 packed = pack8(f);
        *(uint4*)(row + t * 8) = packed;
        store16(normed + (u64)b * D + t * 8, packed);
    }
    __syncthreads();
    int done = 0;
    if (is_early) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int e = warp + i * ROUTE_WARPS;
            float sum = 0.0f;
#pragma unroll
            for (int j = 0; j < EARLY; j++) {
                const int at = lane + j * 32;
                if (at >= D / 8) break;
                float a[8], w[8];
                unpack8(*(const uint4*)(row + at * 8), a);
                unpack8(early[i][j], w);
#pragma unroll
                for (int n = 0; n < 8; n++) sum += a[n] * w[n];
            }
            sum = warp_sum(sum);
            if (lane == 0 && e < E) logits[e] = sum + biases[e];
        }
        done = 2 * ROUTE_WARPS;
    }
    for (int e = warp + done; e < E; e += ROUTE_WARPS) {
        const float logit = dot(row, D, [&](int i, float* w) {
            if (FINE) {
                const float4* from = (const float4*)((const float*)router + (u64)e * D + i * 8);
                ((float4*)w)[0] = from[0], ((float4*)w)[1] = from[1];
            } else {
                unpack8(load16((const bf16*)router + (u64)e * D + i * 8), w);
            }
        });
        if (lane == 0) logits[e] = logit + biases[e];
    }
    __syncthreads();
    if (warp == 0) {
        u64 keys[MAX_EXPERTS / 32];
#pragma unroll
        for (int j = 0; j < MAX_EXPERTS / 32; j++) {
            const int e = j * 32 + lane;
            keys[j] = e < E ? (u64)ordered(logits[e]) << 32 | (u32)(MAX_EXPERTS - e) : 0;
        }
        int mine = 0;
        for (int slot = 0; slot < k; slot++) {
            u64 best = 0;
#pragma unroll
            for (int j = 0; j < MAX_EXPERTS / 32; j++) best = keys[j] > best ? keys[j] : best;
#pragma unroll
            for (int offset = 16; offset > 0; offset >>= 1) {
                const u64 other = __shfl_xor_sync(FULL_WARP, best, offset);
                best = other > best ? other : best;
            }
#pragma unroll
            for (int j = 0; j < MAX_EXPERTS / 32; j++) keys[j] = keys[j] == best ? 0 : keys[j];
            if (lane == slot) mine = MAX_EXPERTS - (int)(u32)best;
        }
        const float value = logits[mine], largest = __shfl_sync(FULL_WARP, value, 0);
        const float p = lane < k ? expf(value - largest) : 0.0f, all = warp_sum(p);
        if (lane < k) experts[b * k + lane] = mine, weights[b * k + lane] = p / all, chosen[lane] = mine;
    }
    __syncthreads();
    // One token's pairs are sorted here: no two are of one expert.
    if (gridDim.x == 1) {
        for (int e = t; e <= E; e += ROUTE_THREADS) {
            int before = 0;
            for (int i = 0; i < k; i++) before += chosen[i] < e;
            offsets[e] = before;
        }
        if (t < k) {
            int place = 0;
            for (int i = 0; i < k; i++) place += chosen[i] < chosen[t];
            pairs[place] = t, places[t] = place;
        }
    }
    if (!a) return;
    for (int i = warp; i < k * RANK; i += ROUTE_WARPS) {
        const int slot = i / RANK, r = i % RANK;
        float sum = 0.0f;
        if (r < rank) {
            const bf16* of = a + ((u64)chosen[slot] * rank + r) * D;
            sum = dot(row, D, [&](int i, float* w) { unpack8(load16(of + i * 8), w); });
        }
        if (lane == 0) expert_u[(u64)(b * k + slot) * RANK + r] = to_bf16(sum);
    }
}

extern "C" __global__ void __launch_bounds__(ROUTE_THREADS)
    route_rows(const float* product, const bf16* x, const bf16* bias, const bf16* u, const bf16* v, const float* norm,
               const void* router, const float* router_bias, bf16* middle, bf16* normed, int* experts, float* weights,
               int* pairs, int* places, int* offsets, const bf16* a, bf16* expert_u, int D, int E, int k, int R,
               int rank, int RANK, int fine, float epsilon) {
    if (fine)
        route<true>(product, x, bias, u, v, norm, router, router_bias, middle, normed, experts, weights, pairs, places,
                    offsets, a, expert_u, D, E, k, R, rank, RANK, epsilon);
    else
        route<false>(product, x, bias, u, v, norm, router, router_bias, middle, normed, experts, weights, pairs, places,
                     offsets, a, expert_u, D, E, k, R, rank, RANK, epsilon);
}

// Pairs of at most 1024 sorted by expert, in the order of their numbers within an expert, as route.cu's sort.
// experts i32 [P]; pairs, places i32 [P]; offsets i32 [E + 1]. Grid: 1. Block: 1024.
extern "C" __global__ void __launch_bounds__(1024)
    sort_few(const int* experts, int* pairs, int* places, int* offsets, int P, int E) {
    __shared__ int all[1024];
    __shared__ int starts[MAX_EXPERTS + 1];
    const int t = threadIdx.x;
    const int mine = t < P ? experts[t] : -1;
    all[t] = mine;
    if (t <= E) starts[t] = 0;
    __syncthreads();
    // A count of integers is the same in any order.
    if (t < P) atomicAdd(&starts[mine + 1], 1);
    __syncthreads();
    if (t == 0)
        for (int e = 0; e < E; e++) starts[e + 1] += starts[e];
    __syncthreads();
    if (t < P) {
        int place = starts[mine];
        for (int i = 0; i < t; i++) place += all[i] == mine;
        pairs[place] = t, places[t] = place;
    }
    if (t <= E) offsets[t] = starts[t];
}

// u[place] = inner[place] by A of the place's expert. inner bf16 [P, I]; a bf16 [E, rank, I]; experts i32 [P] by pair;
// pairs i32 [P]; u bf16 [P, RANK]. Grid: P. Block: 256.
extern "C" __global__ void __launch_bounds__(256) expert_rows(const bf16* inner, const bf16* a, const int* experts,
                                                              const int* pairs, bf16* u, int I, int rank, int RANK) {
    const int place = blockIdx.x, warp = threadIdx.x >> 5;
    next_may_start();
    wait_for_earlier();
    const bf16* of = a + (u64)experts[pairs[place]] * rank * I;
    for (int r = warp; r < RANK; r += 8) {
        float sum = 0.0f;
        if (r < rank)
            sum = dot(inner + (u64)place * I, I, [&](int i, float* w) { unpack8(load16(of + (u64)r * I + i * 8), w); });
        if ((threadIdx.x & 31) == 0) u[(u64)place * RANK + r] = to_bf16(sum);
    }
}

// out[b] = middle[b] + sum over slots i of weights[b, i] y[places[b, i]], in order of the slots. y bf16 [P, D]; weights
// f32 and places i32 [B, k]; middle, out bf16 [B, D]. Grid: (ceil(D / 8 / 128), B). Block: 128.
extern "C" __global__ void __launch_bounds__(128)
    add_experts(const bf16* y, const float* weights, const int* places, const bf16* middle, bf16* out, int D, int k) {
    const int i = blockIdx.x * 128 + threadIdx.x, b = blockIdx.y;
    next_may_start();
    wait_for_earlier();
    if (i >= D / 8) return;
    float sum[8];
    unpack8(load16(middle + (u64)b * D + i * 8), sum);
    for (int slot = 0; slot < k; slot++) {
        float f[8];
        unpack8(load16(y + (u64)places[b * k + slot] * D + i * 8), f);
        const float weight = weights[b * k + slot];
#pragma unroll
        for (int j = 0; j < 8; j++) sum[j] += weight * f[j];
    }
    store16(out + (u64)b * D + i * 8, pack8(sum));
}

// Goes on to the next token: ids[b] = chosen[b], positions[b] + 1, and the id to where the host reads it.
// chosen f32 [B], as best_tokens wrote it; told i32 [B] in mapped host memory. Grid: 1. Block: 256.
extern "C" __global__ void __launch_bounds__(256)
    advance(const float* chosen, int* ids, int* positions, int* told, int B) {
    for (int b = threadIdx.x; b < B; b += 256) {
        const int id = (int)chosen[b];
        ids[b] = id, positions[b] += 1, told[b] = id;
    }
}
