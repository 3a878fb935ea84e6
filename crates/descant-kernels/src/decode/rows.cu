// What a step of generation does to the rows of its sequences between the products: the embedding, positions and the
// cache, routing, an adapter's part at the experts, and the next token. A block a row where nothing else is said; every
// sum has one order, and a row's result depends on that row alone.
#include "step.cuh"

#include "cache.cuh"

// x[b] = table[ids[b]]; the table may lie in mapped host memory. x bf16 [B, D]. Grid: B. Block: 128.
extern "C" __global__ void __launch_bounds__(128) embed(const bf16* table, const int* ids, bf16* x, int D) {
    const uint4* from = (const uint4*)(table + (u64)ids[blockIdx.x] * D);
    for (int i = threadIdx.x; i < D / 8; i += 128) ((uint4*)(x + (u64)blockIdx.x * D))[i] = from[i];
}

// sum of u[i] v[i] over eight numbers, bf16.
__device__ __forceinline__ float dot8(const float (&u)[8], uint4 v) {
    float w[8], sum = 0.0f;
    unpack8(v, w);
#pragma unroll
    for (int i = 0; i < 8; i++) sum += u[i] * w[i];
    return sum;
}

#define HELD 4  // pieces of an adapter's row that `place` has before the product before is done: all of rank 3 * 8

// Bias and low-rank part of queries, keys and values, rotary embedding, and the new rows of the cache.
// qkv f32 [B, (H + 2 n_kv) D]; bias bf16; u bf16 [B, R] and v bf16 [(H + 2 n_kv) D, R], R 0 for none; cos, sin f32 [*,
// D / 2] by position; slots, positions i32 [B]; pages, first_page i32 and keys, values bf16 [rows, n_kv D] as attend.cu
// has them; adapted i32 [B], 0 for rows without the low-rank part, set before the step begins; q bf16 [B, H D]. Grid:
// (ceil((H + 2 n_kv) D / 2 / 128), B). Block: 128, a thread a pair (i, i + D / 2), so small that one has room beside
// the product before.
template <bool ADAPTED>
__device__ __forceinline__ void place_rows(const float* qkv, const bf16* bias, const bf16* u, const bf16* v,
                                           const float* cos, const float* sin, const int* slots, const int* positions,
                                           const int* pages, const int* first_page, bf16* q, bf16* keys, bf16* values,
                                           int H, int n_kv, int D, int R, int window) {
    const int item = blockIdx.x * 128 + threadIdx.x, b = blockIdx.y, half = D / 2, width = (H + 2 * n_kv) * D;
    const int head = item / half, i = item % half, column = head * D + i;
    uint4 held[2][HELD];
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int r = 0; r < HELD; r++)
            if (ADAPTED && item < width / 2 && r * 8 < R) held[j][r] = load16(v + (u64)(column + j * half) * R + r * 8);
    next_may_start();
    wait_for_earlier();
    if (item >= width / 2) return;
    const int position = positions[b];
    float pair[2] = {};
#pragma unroll
    for (int r = 0; r < HELD; r++) {
        if (!ADAPTED || r * 8 >= R) break;
        float a[8];
        unpack8(load16(u + b * R + r * 8), a);
#pragma unroll
        for (int j = 0; j < 2; j++) pair[j] += dot8(a, held[j][r]);
    }
    for (int r = HELD * 8; ADAPTED && r < R; r += 8) {
        float a[8];
        unpack8(load16(u + b * R + r), a);
#pragma unroll
        for (int j = 0; j < 2; j++) pair[j] += dot8(a, load16(v + (u64)(column + j * half) * R + r));
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
        const int at = column + j * half;
        pair[j] = to_float(to_bf16(qkv[(u64)b * width + at] + to_float(bias[at]) + pair[j]));
    }
    if (head < H + n_kv) {
        const float c = cos[(u64)position * half + i], s = sin[(u64)position * half + i];
        const float first = pair[0] * c - pair[1] * s, second = pair[1] * c + pair[0] * s;
        pair[0] = first, pair[1] = second;
    }
    const u64 row = cache_row(pages + first_page[b], slots[b], position, window) * n_kv * D;
    bf16* to = head < H          ? q + (u64)b * H * D + column
               : head < H + n_kv ? keys + row + column - H * D
                                 : values + row + column - (H + n_kv) * D;
    to[0] = to_bf16(pair[0]), to[half] = to_bf16(pair[1]);
}

// Apart, because what an adapter takes in registers would be taken without one too.
extern "C" __global__ void __launch_bounds__(128)
    place(const float* qkv, const bf16* bias, const bf16* u, const bf16* v, const float* cos, const float* sin,
          const int* slots, const int* positions, const int* pages, const int* first_page, const int* adapted, bf16* q,
          bf16* keys, bf16* values, int H, int n_kv, int D, int R, int window) {
    place_rows<false>(qkv, bias, u, v, cos, sin, slots, positions, pages, first_page, q, keys, values, H, n_kv, D, R,
                      window);
}
extern "C" __global__ void __launch_bounds__(128)
    place_adapted(const float* qkv, const bf16* bias, const bf16* u, const bf16* v, const float* cos, const float* sin,
                  const int* slots, const int* positions, const int* pages, const int* first_page, const int* adapted,
                  bf16* q, bf16* keys, bf16* values, int H, int n_kv, int D, int R, int window) {
    if (adapted[blockIdx.y])
        place_rows<true>(qkv, bias, u, v, cos, sin, slots, positions, pages, first_page, q, keys, values, H, n_kv, D, R,
                         window);
    else
        place_rows<false>(qkv, bias, u, v, cos, sin, slots, positions, pages, first_page, q, keys, values, H, n_kv, D,
                          R, window);
}

#define MAX_EXPERTS 256
#define MAX_WIDTH 4096
#define ROUTE_WARPS (ROUTE_THREADS / 32)  // experts of a block
#define PIECES (MAX_WIDTH / 8 / ROUTE_THREADS)
static_assert(MAX_WIDTH == PIECES * 8 * ROUTE_THREADS && ROUTE_THREADS % 32 == 0, "whole warps, whole pieces");

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
// norm; the router's logits, a block for each few experts, and of each row the last of these blocks chooses. product
// f32 [B, D]; x bf16 [B, D]; bias bf16 [D]; u bf16 [B, R], v bf16 [D, R], R 0 for none; norm f32 [D]; router bf16 or,
// with FINE, f32 [E, D]; router_bias f32 [E]; middle, normed bf16 [B, D]; logits f32 [B, E]; experts i32 and weights
// f32 [B, k]; adapted i32 [B], 0 for rows without low-rank part and FINE router, set before the step begins;
// pairs, places i32 [k] and offsets i32 [E + 1] are written where there is one row; counters u32 [B], zero,
// and zero again on return. D a multiple of 8 up to 4096, E at most 256, k at most 8. Grid: (ceil(E / ROUTE_WARPS), B).
// Dynamic shared memory: ROUTE_WARPS rows of the router and, where it is staged, v.
template <bool FINE, bool ADAPTED>
__device__ __forceinline__ void route(const float* product, const bf16* x, const bf16* bias, const bf16* u,
                                      const bf16* v, const float* norm, const u8* router, const float* router_bias,
                                      bf16* middle, bf16* normed, float* logits, int* experts, float* weights,
                                      int* pairs, int* places, int* offsets, u32* counters, int D, int E, int k, int R,
                                      float epsilon, bool is_staged, u8* routers, bf16* row) {
    __shared__ float parts[ROUTE_WARPS];
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, b = blockIdx.y, expert = blockIdx.x * ROUTE_WARPS + warp;
    const int row_bytes = D * (FINE ? 4 : 2);
    // What is frozen comes while the product before is still at work: the factor's rows of this thread's numbers, each
    // piece where its neighbours read other banks, and the router's row of this warp.
    u8* const factors = routers + ROUTE_WARPS * row_bytes;
    auto factor_at = [&](int p, int piece) { return (u64)p * 8 * R * 2 + (is_staged ? piece ^ (p & 7) : piece) * 16; };
    if (ADAPTED && is_staged) {
        for (int p = t; p < D / 8; p += ROUTE_THREADS)
            for (int i = 0; i < R; i++)
                copy_async16(shared_address(factors + factor_at(p, i)), (const u8*)v + (u64)p * 8 * R * 2 + i * 16);
    }
    copy_commit();
    if (expert < E) {
        const u32 to = shared_address(routers) + warp * row_bytes;
        for (int i = lane; i < row_bytes / 16; i += 32)
            copy_async16(to + i * 16, router + (u64)expert * row_bytes + i * 16);
    }
    copy_commit();
    const float of_bias = expert < E ? router_bias[expert] : 0.0f;
    uint4 added[PIECES];
#pragma unroll
    for (int i = 0; i < PIECES; i++)
        if (t + i * ROUTE_THREADS < D / 8) added[i] = load16(bias + (t + i * ROUTE_THREADS) * 8);
    next_may_start();
    wait_for_earlier();
    if (ADAPTED) copy_wait<1>();
    uint4 made[PIECES];
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        const int p = t + i * ROUTE_THREADS;
        if (p >= D / 8) break;
        float add[8], residual[8], low[8] = {};
        for (int r = 0; ADAPTED && r < R / 8; r++) {
            float a[8];
            unpack8(load16(u + b * R + r * 8), a);
            const u8* from = is_staged ? factors : (const u8*)v;
#pragma unroll
            for (int j = 0; j < 8; j++) low[j] += dot8(a, *(const uint4*)(from + factor_at(p, j * (R / 8) + r)));
        }
        unpack8(added[i], add);
        unpack8(load16(x + (u64)b * D + p * 8), residual);
        const float4* from = (const float4*)(product + (u64)b * D + p * 8);
        const float4 one = from[0], other = from[1];
        float f[8] = {one.x, one.y, one.z, one.w, other.x, other.y, other.z, other.w};
#pragma unroll
        for (int j = 0; j < 8; j++) {
            f[j] = to_float(to_bf16(f[j] + add[j] + residual[j] + low[j]));
            sum += f[j] * f[j];
        }
        made[i] = pack8(f);
        if (blockIdx.x == 0) store16(middle + (u64)b * D + p * 8, made[i]);
    }
    sum = warp_sum(sum);
    if (lane == 0) parts[warp] = sum;
    __syncthreads();
    sum = 0.0f;
#pragma unroll
    for (int w = 0; w < ROUTE_WARPS; w++) sum += parts[w];
    const float scale = rsqrtf(sum / D + epsilon);
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        const int p = t + i * ROUTE_THREADS;
        if (p >= D / 8) break;
        const float4 one = ((const float4*)norm)[p * 2], other = ((const float4*)norm)[p * 2 + 1];
        const float by[8] = {one.x, one.y, one.z, one.w, other.x, other.y, other.z, other.w};
        float f[8];
        unpack8(made[i], f);
#pragma unroll
        for (int j = 0; j < 8; j++) f[j] = f[j] * scale * by[j];
        const uint4 packed = pack8(f);
        *(uint4*)(row + p * 8) = packed;
        if (blockIdx.x == 0) store16(normed + (u64)b * D + p * 8, packed);
    }
    copy_wait<0>();
    __syncthreads();
    if (expert < E) {
        float logit = 0.0f;
        for (int p = lane; p < D / 8; p += 32) {
            float a[8], w[8];
            unpack8(*(const uint4*)(row + p * 8), a);
            const u8* from = routers + warp * row_bytes;
            if (FINE)
                ((float4*)w)[0] = ((const float4*)from)[p * 2], ((float4*)w)[1] = ((const float4*)from)[p * 2 + 1];
            else
                unpack8(((const uint4*)from)[p], w);
#pragma unroll
            for (int j = 0; j < 8; j++) logit += a[j] * w[j];
        }
        logit = warp_sum(logit);
        if (lane == 0) __stcg(logits + b * E + expert, logit + of_bias);
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
    for (int i = 0; i < k; i++) place += __shfl_sync(FULL_WARP, mine, i) < mine;
    if (lane < k) pairs[place] = lane, places[lane] = place;
    for (int e = lane; e - lane <= E; e += 32) {
        int earlier = 0;
        for (int i = 0; i < k; i++) earlier += __shfl_sync(FULL_WARP, mine, i) < e;
        if (e <= E) offsets[e] = earlier;
    }
}

// Without an adapter at the output and the router, and with.
extern "C" __global__ void __launch_bounds__(ROUTE_THREADS, 8)
    route_rows(const float* product, const bf16* x, const bf16* bias, const bf16* u, const bf16* v, const float* norm,
               const void* router, const void* fine_router, const float* router_bias, const int* adapted, bf16* middle,
               bf16* normed, float* logits, int* experts, float* weights, int* pairs, int* places, int* offsets,
               u32* counters, int D, int E, int k, int R, float epsilon, int is_staged) {
    extern __shared__ __align__(16) u8 routers[];
    __shared__ __align__(16) bf16 row[MAX_WIDTH];
    route<false, false>(product, x, bias, u, v, norm, (const u8*)router, router_bias, middle, normed, logits, experts,
                        weights, pairs, places, offsets, counters, D, E, k, R, epsilon, is_staged, routers, row);
}
extern "C" __global__ void __launch_bounds__(ROUTE_THREADS, 6)
    route_adapted(const float* product, const bf16* x, const bf16* bias, const bf16* u, const bf16* v,
                  const float* norm, const void* router, const void* fine_router, const float* router_bias,
                  const int* adapted, bf16* middle, bf16* normed, float* logits, int* experts, float* weights,
                  int* pairs, int* places, int* offsets, u32* counters, int D, int E, int k, int R, float epsilon,
                  int is_staged) {
    extern __shared__ __align__(16) u8 routers[];
    __shared__ __align__(16) bf16 row[MAX_WIDTH];
    if (!adapted[blockIdx.y])
        route<false, false>(product, x, bias, u, v, norm, (const u8*)router, router_bias, middle, normed, logits,
                            experts, weights, pairs, places, offsets, counters, D, E, k, R, epsilon, false, routers,
                            row);
    else if (fine_router)
        route<true, true>(product, x, bias, u, v, norm, (const u8*)fine_router, router_bias, middle, normed, logits,
                          experts, weights, pairs, places, offsets, counters, D, E, k, R, epsilon, is_staged, routers,
                          row);
    else
        route<false, true>(product, x, bias, u, v, norm, (const u8*)router, router_bias, middle, normed, logits,
                           experts, weights, pairs, places, offsets, counters, D, E, k, R, epsilon, is_staged, routers,
                           row);
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

// Rows by A of the expert of each place: x[place] gives u[place], or, with `top_k`, the row of the place's pair that of
// the pair. x bf16 [*, D]; a bf16 [E, rank, D]; experts i32 [P] by pair; pairs i32 [P]; adapted i32 [P / k], 0 for rows
// that get zeros; u bf16 [P, RANK]. Grid: P. Block: 256.
extern "C" __global__ void __launch_bounds__(256)
    expert_rows(const bf16* x, const bf16* a, const int* experts, const int* pairs, const int* adapted, bf16* u, int D,
                int rank, int RANK, int k, int top_k) {
    const int place = blockIdx.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    wait_for_earlier();
    // Here and not before: who starts early may read the choice of experts.
    next_may_start();
    const int pair = pairs[place];
    if (!adapted[pair / k]) rank = 0;
    const bf16* row = x + (u64)(top_k ? pair / top_k : place) * D;
    const bf16* of = a + (u64)experts[pair] * rank * D;
    for (int r = warp; r < RANK; r += 8) {
        float sum = 0.0f;
#pragma unroll 12
        for (int i = lane; r < rank && i < D / 8; i += 32) {
            float f[8], w[8];
            unpack8(load16(row + i * 8), f);
            unpack8(load16(of + (u64)r * D + i * 8), w);
#pragma unroll
            for (int j = 0; j < 8; j++) sum += f[j] * w[j];
        }
        sum = warp_sum(sum);
        if (lane == 0) u[(u64)(top_k ? pair : place) * RANK + r] = to_bf16(sum);
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
// chosen f32 [B], as best_tokens wrote it; told i32 [B, stride], the first of each, in mapped host memory. Grid: 1.
// Block: 256.
extern "C" __global__ void __launch_bounds__(256)
    advance(const float* chosen, int* ids, int* positions, int* told, int B, int stride) {
    for (int b = threadIdx.x; b < B; b += 256) {
        const int id = (int)chosen[b];
        ids[b] = id, positions[b] += 1, told[b * stride] = id;
    }
}
