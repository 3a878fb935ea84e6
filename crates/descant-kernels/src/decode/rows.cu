// What a step of generation does to the rows of its sequences between the products: the embedding, routing, an
// adapter's part at the experts, and the next token. A block a row where nothing else is said; every sum has one order,
// and a row's result depends on that row alone.
#include "step.cuh"

// x[b] = table[ids[b]]; the table may lie in mapped host memory. x bf16 [B, D]. Grid: B. Block: 128.
extern "C" __global__ void __launch_bounds__(128) embed(const bf16* table, const int* ids, bf16* x, int D) {
    const uint4* from = (const uint4*)(table + (u64)ids[blockIdx.x] * D);
    for (int i = threadIdx.x; i < D / 8; i += 128) ((uint4*)(x + (u64)blockIdx.x * D))[i] = from[i];
}

#define MAX_EXPERTS 256
#define SHARES (ROUTE_THREADS / 32 / ROUTE_EXPERTS)  // warps of an expert
#define PIECES (MAX_WIDTH / 8 / ROUTE_THREADS)
static_assert(MAX_WIDTH == PIECES * 8 * ROUTE_THREADS && SHARES * ROUTE_EXPERTS * 32 == ROUTE_THREADS,
              "whole pieces, warps");

// Orders floats as unsigned integers; -0 counts as 0, so that a tie is a tie.
__device__ __forceinline__ u32 ordered(float x) {
    u32 bits = __float_as_uint(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float from_ordered(u32 key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// The k largest of E logits, ties to the lower expert, and their softmax. A warp; lane i has the i-th.
__device__ __forceinline__ void choose(const float* logits, int E, int k, int& expert, float& weight) {
    const int lane = threadIdx.x & 31;
    u32 keys[MAX_EXPERTS / 32];
#pragma unroll
    for (int j = 0; j < MAX_EXPERTS / 32; j++) {
        const int e = j * 32 + lane;
        // Above what is taken, whatever bits a NaN has: no expert is chosen twice.
        keys[j] = e < E ? max(ordered(__ldcg(logits + e)), 1u) : 0;
    }
    expert = 0;
    float value = 0.0f, largest = 0.0f;
#pragma unroll 1
    for (int slot = 0; slot < k; slot++) {
        u32 best = 0, first = MAX_EXPERTS;
#pragma unroll
        for (int j = 0; j < MAX_EXPERTS / 32; j++) best = max(best, keys[j]);
        const u32 top = __reduce_max_sync(FULL_WARP, best);
#pragma unroll
        for (int j = MAX_EXPERTS / 32 - 1; j >= 0; j--)
            if (keys[j] == top) first = j * 32 + lane;
        first = __reduce_min_sync(FULL_WARP, first);
#pragma unroll
        for (int j = 0; j < MAX_EXPERTS / 32; j++)
            if (first == j * 32 + lane) keys[j] = 0;
        if (slot == 0) largest = from_ordered(top);
        if (lane == slot) expert = first, value = from_ordered(top);
    }
    const float p = lane < k ? expf(value - largest) : 0.0f;
    weight = p / warp_sum(p);
}

// The end of attention and the choice of experts: middle = x + bias + attention's product + its low-rank part; its
// norm; the router's logits, some experts a block at a time, and of each row the last of its blocks chooses. product
// f32 [B, D]; x bf16 [B, D]; bias bf16 [D]; u bf16 [B, R], v bf16 [D, R], R 0 for none; norm f32 [D]; router bf16 or,
// with FINE, f32 [E, D]; router_bias f32 [E]; middle, normed bf16 [B, D]; logits f32 [B, E]; experts i32 and weights
// f32 [B, k]; adapted i32 [B], 0 for rows without low-rank part and FINE router, set before the step begins; pairs,
// places i32 [k] and offsets i32 [E + 1] are written where there is one row; counters u32 [B], zero, and zero again on
// return. D a multiple of 8 up to MAX_WIDTH, E at most MAX_EXPERTS, k at most
// 8. Grid: (blocks of a row, B). Dynamic shared memory: ROUTE_EXPERTS rows of the router, the norm and the
// bias.
template <bool FINE, bool ADAPTED>
__device__ __forceinline__ void route(const float* product, const bf16* x, const bf16* bias, const bf16* u,
                                      const bf16* v, const float* norm, const u8* router, const float* router_bias,
                                      bf16* middle, bf16* normed, float* logits, int* experts, float* weights,
                                      int* pairs, int* places, int* offsets, u32* counters, int D, int E, int k, int R,
                                      float epsilon, u8* routers, bf16* row) {
    __shared__ float parts[ROUTE_THREADS / 32], shares[ROUTE_THREADS / 32], of_bias[ROUTE_EXPERTS];
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, b = blockIdx.y, own = warp / SHARES, share = warp % SHARES;
    const int row_bytes = D * (FINE ? 4 : 2);
    // What is frozen comes while the product before is still at work: the router's rows, the norm, and, to where it can
    // be read soon, this block's part of the factor.
    const u8* const by = routers + ROUTE_EXPERTS * row_bytes;
    auto stage = [&](int group) {
        const int expert = group * ROUTE_EXPERTS + own;
        if (share == 0 && lane == 0 && expert < E) of_bias[own] = router_bias[expert];
#pragma unroll 1
        for (int i = share * 32 + lane; expert < E && i < row_bytes / 16; i += SHARES * 32)
            copy_async16(shared_address(routers) + own * row_bytes + i * 16, router + (u64)expert * row_bytes + i * 16);
        copy_commit();
    };
    stage(blockIdx.x);
#pragma unroll 1
    for (int i = t; i < D / 4; i += ROUTE_THREADS) copy_async16(shared_address(by) + i * 16, (const u8*)norm + i * 16);
    const u8* const added = by + D * 4;
#pragma unroll 1
    for (int i = t; i < D / 8; i += ROUTE_THREADS) copy_async16(shared_address(added) + i * 16, bias + i * 8);
    copy_commit();
    if (ADAPTED)
#pragma unroll 1
        for (int at = (blockIdx.x * ROUTE_THREADS + t) * 128; at < D * R * 2; at += gridDim.x * ROUTE_THREADS * 128)
            prefetch((const u8*)v + at);
    next_may_start();
    wait_for_earlier();
    copy_wait<0>();
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        const int p = t + i * ROUTE_THREADS;
        if (p >= D / 8) break;
        float add[8], residual[8], low[8] = {};
        const uint4 stream = load16(x + (u64)b * D + p * 8);
        const float4* from = (const float4*)(product + (u64)b * D + p * 8);
        const float4 one = from[0], other = from[1];
#pragma unroll 1
        for (int r = 0; ADAPTED && r < R / 8; r++) {
            float a[8];
            unpack8(load16(u + b * R + r * 8), a);
#pragma unroll
            for (int j = 0; j < 8; j++) low[j] += dot8(a, load16(v + (u64)(p * 8 + j) * R + r * 8));
        }
        unpack8(((const uint4*)added)[p], add);
        unpack8(stream, residual);
        float f[8] = {one.x, one.y, one.z, one.w, other.x, other.y, other.z, other.w};
#pragma unroll
        for (int j = 0; j < 8; j++) {
            f[j] = to_float(to_bf16(f[j] + add[j] + residual[j] + low[j]));
            sum += f[j] * f[j];
        }
        const uint4 made = pack8(f);
        *(uint4*)(row + p * 8) = made;
        if (blockIdx.x == 0) store16(middle + (u64)b * D + p * 8, made);
    }
    sum = warp_sum(sum);
    if (lane == 0) parts[warp] = sum;
    __syncthreads();
    sum = 0.0f;
#pragma unroll
    for (int w = 0; w < ROUTE_THREADS / 32; w++) sum += parts[w];
    const float scale = rsqrtf(sum / D + epsilon);
#pragma unroll 1
    for (int p = t; p < D / 8; p += ROUTE_THREADS) {
        const float4 one = ((const float4*)by)[p * 2], other = ((const float4*)by)[p * 2 + 1];
        const float times[8] = {one.x, one.y, one.z, one.w, other.x, other.y, other.z, other.w};
        float f[8];
        unpack8(*(const uint4*)(row + p * 8), f);
#pragma unroll
        for (int j = 0; j < 8; j++) f[j] = f[j] * scale * times[j];
        const uint4 packed = pack8(f);
        *(uint4*)(row + p * 8) = packed;
        if (blockIdx.x == 0) store16(normed + (u64)b * D + p * 8, packed);
    }
    __syncthreads();
#pragma unroll 1
    for (int group = blockIdx.x; group * ROUTE_EXPERTS < E; group += gridDim.x) {
        const int expert = group * ROUTE_EXPERTS + own;
        if (group >= gridDim.x) {
            stage(group);
            copy_wait<0>();
            __syncthreads();
        }
        float logit = 0.0f;
#pragma unroll 1
        for (int p = share * 32 + lane; expert < E && p < D / 8; p += SHARES * 32) {
            float a[8], w[8];
            unpack8(*(const uint4*)(row + p * 8), a);
            const u8* from = routers + own * row_bytes;
            if (FINE)
                ((float4*)w)[0] = ((const float4*)from)[p * 2], ((float4*)w)[1] = ((const float4*)from)[p * 2 + 1];
            else
                unpack8(((const uint4*)from)[p], w);
#pragma unroll
            for (int j = 0; j < 8; j++) logit += a[j] * w[j];
        }
        logit = warp_sum(logit);
        if (lane == 0) shares[warp] = logit;
        __syncthreads();
        if (share == 0 && lane == 0 && expert < E) {
#pragma unroll 1
            for (int s = 1; s < SHARES; s++) logit += shares[warp + s];
            __stcg(logits + b * E + expert, logit + of_bias[own]);
        }
    }
    __threadfence();
    __syncthreads();
    if (warp > 0) return;
    u32 before = 0;
    if (lane == 0) before = atomicAdd(counters + b, 1);
    if (__shfl_sync(FULL_WARP, before, 0) != gridDim.x - 1) return;
    __threadfence();
    int mine;
    float weight;
    choose(logits + b * E, E, k, mine, weight);
    if (lane == 0) counters[b] = 0;
    if (lane < k) experts[b * k + lane] = mine, weights[b * k + lane] = weight;
    // One token's pairs are sorted here: no two are of one expert.
    if (gridDim.y > 1) return;
    int place = 0;
#pragma unroll 1
    for (int i = 0; i < k; i++) place += __shfl_sync(FULL_WARP, mine, i) < mine;
    if (lane < k) pairs[place] = lane, places[lane] = place;
#pragma unroll 1
    for (int e = lane; e - lane <= E; e += 32) {
        int earlier = 0;
#pragma unroll 1
        for (int i = 0; i < k; i++) earlier += __shfl_sync(FULL_WARP, mine, i) < e;
        if (e <= E) offsets[e] = earlier;
    }
}

// Without an adapter, with one at the output, and with one at the router too.
extern "C" __global__ void __launch_bounds__(ROUTE_THREADS, 4)
    route_rows(const float* product, const bf16* x, const bf16* bias, const bf16* u, const bf16* v, const float* norm,
               const void* router, const void* fine_router, const float* router_bias, const int* adapted, bf16* middle,
               bf16* normed, float* logits, int* experts, float* weights, int* pairs, int* places, int* offsets,
               u32* counters, int D, int E, int k, int R, float epsilon) {
    extern __shared__ __align__(16) u8 routers[];
    __shared__ __align__(16) bf16 row[MAX_WIDTH];
    route<false, false>(product, x, bias, u, v, norm, (const u8*)router, router_bias, middle, normed, logits, experts,
                        weights, pairs, places, offsets, counters, D, E, k, 0, epsilon, routers, row);
}
extern "C" __global__ void __launch_bounds__(ROUTE_THREADS, 4)
    route_adapted(const float* product, const bf16* x, const bf16* bias, const bf16* u, const bf16* v,
                  const float* norm, const void* router, const void* fine_router, const float* router_bias,
                  const int* adapted, bf16* middle, bf16* normed, float* logits, int* experts, float* weights,
                  int* pairs, int* places, int* offsets, u32* counters, int D, int E, int k, int R, float epsilon) {
    extern __shared__ __align__(16) u8 routers[];
    __shared__ __align__(16) bf16 row[MAX_WIDTH];
    const int columns = adapted[blockIdx.y] ? R : 0;
    route<false, true>(product, x, bias, u, v, norm, (const u8*)router, router_bias, middle, normed, logits, experts,
                       weights, pairs, places, offsets, counters, D, E, k, columns, epsilon, routers, row);
}
extern "C" __global__ void __launch_bounds__(ROUTE_THREADS, 3)
    route_fine(const float* product, const bf16* x, const bf16* bias, const bf16* u, const bf16* v, const float* norm,
               const void* router, const void* fine_router, const float* router_bias, const int* adapted, bf16* middle,
               bf16* normed, float* logits, int* experts, float* weights, int* pairs, int* places, int* offsets,
               u32* counters, int D, int E, int k, int R, float epsilon) {
    extern __shared__ __align__(16) u8 routers[];
    __shared__ __align__(16) bf16 row[MAX_WIDTH];
    if (adapted[blockIdx.y])
        route<true, true>(product, x, bias, u, v, norm, (const u8*)fine_router, router_bias, middle, normed, logits,
                          experts, weights, pairs, places, offsets, counters, D, E, k, R, epsilon, routers, row);
    else
        route<false, false>(product, x, bias, u, v, norm, (const u8*)router, router_bias, middle, normed, logits,
                            experts, weights, pairs, places, offsets, counters, D, E, k, 0, epsilon, routers, row);
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

#define LOW_PARTS (LOW_THREADS / 32 / LOW_RANKS)  // warps of a row of A
static_assert(LOW_PARTS * LOW_RANKS * 32 == LOW_THREADS, "whole warps");
#define LOW_PIECES ((MAX_WIDTH / 8 + LOW_PARTS * 32 - 1) / (LOW_PARTS * 32))

// Rows by A of the expert of each place: x[place] gives u[place], or, with `top_k`, the row of the place's pair that of
// the pair. x bf16 [*, D]; a bf16 [E, rank, D]; experts i32 [P] by pair; pairs i32 [P]; adapted i32 [P / k], 0 for rows
// that get zeros; u bf16 [P, RANK]; `early`: the experts were chosen before the kernel before began, so that A may come
// while it is still at work. D a multiple of 8 up to MAX_WIDTH. Grid: (P, RANK / LOW_RANKS). Block:
// LOW_THREADS.
extern "C" __global__ void __launch_bounds__(LOW_THREADS)
    expert_rows(const bf16* x, const bf16* a, const int* experts, const int* pairs, const int* adapted, bf16* u, int D,
                int rank, int RANK, int k, int top_k, int early) {
    __shared__ float parts[LOW_RANKS][LOW_PARTS];
    const int place = blockIdx.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31, part = warp % LOW_PARTS;
    const int r = blockIdx.y * LOW_RANKS + warp / LOW_PARTS, from = part * 32 + lane;
    // Who starts early may read the choice of experts: not before it is there.
    if (early) next_may_start();
    if (!early) wait_for_earlier(), next_may_start();
    const int pair = pairs[place];
    const bool is_there = r < rank && adapted[pair / k];
    const bf16* of = a + ((u64)experts[pair] * rank + r) * D;
    uint4 factor[LOW_PIECES];
#pragma unroll
    for (int i = 0; i < LOW_PIECES; i++) {
        const int p = from + i * LOW_PARTS * 32;
        if (is_there && p < D / 8) factor[i] = load16(of + p * 8);
    }
    if (early) wait_for_earlier();
    const bf16* row = x + (u64)(top_k ? pair / top_k : place) * D;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < LOW_PIECES; i++) {
        const int p = from + i * LOW_PARTS * 32;
        if (!is_there || p >= D / 8) break;
        float f[8];
        unpack8(load16(row + p * 8), f);
        sum += dot8(f, factor[i]);
    }
    sum = warp_sum(sum);
    if (lane == 0) parts[warp / LOW_PARTS][part] = sum;
    __syncthreads();
    if (part > 0 || lane > 0) return;
    sum = 0.0f;
#pragma unroll
    for (int i = 0; i < LOW_PARTS; i++) sum += parts[warp / LOW_PARTS][i];
    u[(u64)(top_k ? pair : place) * RANK + r] = to_bf16(sum);
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

// Continues with the next token: ids[b] = chosen[b], positions[b] + 1, and the id to where the host reads it.
// chosen f32 [B], as best_tokens wrote it; told i32 [B, stride], the first of each, in mapped host memory. Grid: 1.
// Block: 256.
extern "C" __global__ void __launch_bounds__(256)
    advance(const float* chosen, int* ids, int* positions, int* told, int B, int stride) {
    for (int b = threadIdx.x; b < B; b += 256) {
        const int id = (int)chosen[b];
        ids[b] = id, positions[b] += 1, told[b * stride] = id;
    }
}
