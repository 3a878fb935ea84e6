// Routing of a step, as kernels for all cards and for Hopper have it: see route() below. With TOGETHER the blocks of a
// row are a cluster, and its first block chooses as soon as it has their logits; else the last of them to finish does,
// and logits and counters lie in device memory.
#pragma once
#include "step.cuh"

#ifndef TOGETHER
#define TOGETHER 0
#endif
#if TOGETHER
#define KEYS ((BLOCKS * ROUTE_EXPERTS + 31) / 32)  // logits of a lane
#else
#define KEYS (MAX_EXPERTS / 32)
#endif
static_assert(MAX_EXPERTS % 32 == 0, "as many keys a lane");
#define SHARES (ROUTE_THREADS / 32 / ROUTE_EXPERTS)  // warps of an expert
#define PIECES (MAX_WIDTH / 8 / ROUTE_THREADS)
static_assert(MAX_WIDTH == PIECES * 8 * ROUTE_THREADS && SHARES * ROUTE_EXPERTS * 32 == ROUTE_THREADS,
              "whole pieces, warps");

// What `ordered` has made a key of.
__device__ __forceinline__ float from_ordered(u32 key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// The k largest of E logits, ties to the lower expert, and their softmax. A warp; lane i has the i-th.
__device__ __forceinline__ void choose(const float* logits, int E, int k, int& expert, float& weight) {
    const int lane = threadIdx.x & 31;
    u32 keys[KEYS];
#pragma unroll
    for (int j = 0; j < KEYS; j++) {
        const int e = j * 32 + lane;
        // Above what is taken, whatever bits a NaN has: no expert is chosen twice.
        keys[j] = e < E ? max(ordered(TOGETHER ? logits[e] : __ldcg(logits + e)), 1u) : 0;
    }
    expert = 0;
    float value = 0.0f, largest = 0.0f;
#pragma unroll 1
    for (int slot = 0; slot < k; slot++) {
        u32 best = 0, first = MAX_EXPERTS;
#pragma unroll
        for (int j = 0; j < KEYS; j++) best = max(best, keys[j]);
        const u32 top = __reduce_max_sync(FULL_WARP, best);
#pragma unroll
        for (int j = KEYS - 1; j >= 0; j--)
            if (keys[j] == top) first = j * 32 + lane;
        first = __reduce_min_sync(FULL_WARP, first);
#pragma unroll
        for (int j = 0; j < KEYS; j++)
            if (first == j * 32 + lane) keys[j] = 0;
        if (slot == 0) largest = from_ordered(top);
        if (lane == slot) expert = first, value = from_ordered(top);
    }
    const float p = lane < k ? expf(value - largest) : 0.0f;
    weight = p / warp_sum(p);
}

// The end of attention and the choice of experts: middle = x + bias + attention's product + its low-rank part; its
// norm; the router's logits, some experts a block at a time, and the choice. product
// f32 [B, D]; x bf16 [B, D]; bias bf16 [D]; u bf16 [B, R], v bf16 [D, R], R 0 for none; norm f32 [D]; router bf16 or,
// with FINE, f32 [E, D]; router_bias f32 [E]; middle, normed bf16 [B, D]; logits f32 [B, E]; experts i32 and weights
// f32 [B, k]; adapted i32 [B], 0 for rows without low-rank part and FINE router, set before the step begins; pairs,
// places i32 [k] and offsets i32 [E + 1] are written where there is one row; counters u32 [B], zero, and zero again on
// return; neither they nor logits are used with TOGETHER. D a multiple of 8 up to MAX_WIDTH, E at most MAX_EXPERTS, k
// at most 8. Grid: (blocks of a row, B). Dynamic shared memory: ROUTE_EXPERTS rows of the router,
// once or twice as `buffers` says, the norm, the bias, and, where `staged` says so, v.
template <bool FINE, bool ADAPTED>
__device__ __forceinline__ void route(const float* product, const bf16* x, const bf16* bias, const bf16* u,
                                      const bf16* v, const float* norm, const u8* router, const float* router_bias,
                                      bf16* middle, bf16* normed, float* logits, int* experts, float* weights,
                                      int* pairs, int* places, int* offsets, u32* counters, int D, int E, int k, int R,
                                      int staged, int at_once, float epsilon, u8* routers, bf16* row) {
    const int buffers = TOGETHER ? 1 : at_once;  // together, a block has one group
    __shared__ float parts[ROUTE_THREADS / 32], shares[ROUTE_THREADS / 32], of_bias[2][ROUTE_EXPERTS];
#if TOGETHER
    __shared__ float all_logits[MAX_EXPERTS];
    cluster_arrive();
#endif
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, b = blockIdx.y, own = warp / SHARES, share = warp % SHARES;
    const int row_bytes = D * (FINE ? 4 : 2);
    // What is frozen comes while the product before is still at work: the router's rows, the norm, and, to where it can
    // be read soon, this block's part of the factor.
    const u8* const by = routers + buffers * ROUTE_EXPERTS * row_bytes;
    auto stage = [&](int group, int buffer) {
        const int expert = group * ROUTE_EXPERTS + own, to = buffer * ROUTE_EXPERTS + own;
        if (share == 0 && lane == 0 && expert < E) of_bias[buffer][own] = router_bias[expert];
#pragma unroll 1
        for (int i = share * 32 + lane; expert < E && i < row_bytes / 16; i += SHARES * 32)
            copy_async16(shared_address(routers) + to * row_bytes + i * 16, router + (u64)expert * row_bytes + i * 16);
        copy_commit();
    };
#pragma unroll 1
    for (int i = 0; i < buffers; i++) stage(blockIdx.x + i * gridDim.x, i);
#pragma unroll 1
    for (int i = t; i < D / 4; i += ROUTE_THREADS) copy_async16(shared_address(by) + i * 16, (const u8*)norm + i * 16);
    const u8* const added = by + D * 4;
#pragma unroll 1
    for (int i = t; i < D / 8; i += ROUTE_THREADS) copy_async16(shared_address(added) + i * 16, bias + i * 8);
    copy_commit();
    // The factor comes to where it can be read soon, or, if there is room, to shared memory: each thread's own pieces.
    const u8* const factor = added + D * 2;
    if (ADAPTED && staged)
#pragma unroll 1
        for (int p = t; p < D / 8; p += ROUTE_THREADS)
#pragma unroll 1
            for (int j = 0; j < R; j++)
                copy_async16(shared_address(factor) + (j * (D / 8) + p) * 16, v + (u64)p * 8 * R + j * 8);
    else if (ADAPTED)
#pragma unroll 1
        for (int at = (blockIdx.x * ROUTE_THREADS + t) * 128; at < D * R * 2; at += gridDim.x * ROUTE_THREADS * 128)
            prefetch((const u8*)v + at);
    copy_commit();
    next_may_start();
    wait_for_earlier();
    copy_wait<0>();
#if TOGETHER
    cluster_wait();  // all blocks have begun
#endif
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
            // Piece r of column j of these eight.
            const u8* from = staged ? factor + (r * (D / 8) + p) * 16 : (const u8*)(v + (u64)p * 8 * R + r * 8);
            const int apart = staged ? R / 8 * (D / 8) * 16 : R * 2;
            float a[8];
            unpack8(load16(u + b * R + r * 8), a);
#pragma unroll
            for (int j = 0; j < 8; j++) low[j] += dot8(a, load16(from + j * apart));
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
    int buffer = 0;
#pragma unroll 1
    for (int group = blockIdx.x; group * ROUTE_EXPERTS < E; group += gridDim.x) {
        const int expert = group * ROUTE_EXPERTS + own;
        if (!TOGETHER && group >= gridDim.x) {
            if (buffers > 1)
                copy_wait<1>();
            else
                copy_wait<0>();
            __syncthreads();
        }
        float logit = 0.0f;
#pragma unroll 1
        for (int p = share * 32 + lane; expert < E && p < D / 8; p += SHARES * 32) {
            float a[8], w[8];
            unpack8(*(const uint4*)(row + p * 8), a);
            const u8* from = routers + (buffer * ROUTE_EXPERTS + own) * row_bytes;
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
#if TOGETHER
            cluster_store(shared_address(all_logits + expert), 0, logit + of_bias[buffer][own]);
#else
            __stcg(logits + b * E + expert, logit + of_bias[buffer][own]);
#endif
        }
        // Nobody reads these rows any more.
        if (!TOGETHER && gridDim.x * ROUTE_EXPERTS < E)
            stage(group + buffers * gridDim.x, buffer), buffer ^= buffers - 1;
    }
#if TOGETHER
    cluster_sync();
    if (blockIdx.x > 0 || warp > 0) return;
    const float* const of_row = all_logits;
#else
    __threadfence();
    __syncthreads();
    if (warp > 0) return;
    u32 before = 0;
    if (lane == 0) before = atomicAdd(counters + b, 1);
    if (__shfl_sync(FULL_WARP, before, 0) != gridDim.x - 1) return;
    __threadfence();
    if (lane == 0) counters[b] = 0;
    const float* const of_row = logits + b * E;
#endif
    int mine;
    float weight;
    choose(of_row, E, k, mine, weight);
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

#ifndef CLUSTER
#define CLUSTER
#endif
// A kernel, and what it does with its arguments and its shared memory.
#define ROUTE_KERNEL(name, blocks, ...)                                                                               \
    extern "C" __global__ void CLUSTER __launch_bounds__(ROUTE_THREADS, blocks)                                       \
        name(const float* product, const bf16* x, const bf16* bias, const bf16* u, const bf16* v, const float* norm,  \
             const void* router, const void* fine_router, const float* router_bias, const int* adapted, bf16* middle, \
             bf16* normed, float* logits, int* experts, float* weights, int* pairs, int* places, int* offsets,        \
             u32* counters, int D, int E, int k, int R, int staged, int buffers, float epsilon) {                     \
        extern __shared__ __align__(16) u8 routers[];                                                                 \
        __shared__ __align__(16) bf16 row[MAX_WIDTH];                                                                 \
        __VA_ARGS__                                                                                                   \
    }
#define ROUTE(is_fine, is_adapted, router, columns, staged)                                                           \
    route<is_fine, is_adapted>(product, x, bias, u, v, norm, (const u8*)router, router_bias, middle, normed, logits,  \
                               experts, weights, pairs, places, offsets, counters, D, E, k, columns, staged, buffers, \
                               epsilon, routers, row)
// Without an adapter, with one at the output, and with one at the router too.
ROUTE_KERNEL(route_rows, 4, ROUTE(false, false, router, 0, 0);)
ROUTE_KERNEL(route_adapted, 3, const int columns = adapted[blockIdx.y] ? R : 0;
             ROUTE(false, true, router, columns, staged);)
ROUTE_KERNEL(route_fine, 3, if (adapted[blockIdx.y]) ROUTE(true, true, fine_router, R, staged);
             else ROUTE(false, false, router, 0, 0);)
