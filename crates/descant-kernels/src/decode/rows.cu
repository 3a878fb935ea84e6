// What a step of generation does to the rows of its sequences between the products: the embedding, the order of
// experts, an adapter's part at them, and the next token. A block a row where nothing else is said; every sum has one
// order, and a row's result depends on that row alone.
#include "order.cuh"
#include "sort.cuh"
#include "step.cuh"

static_assert(ROW_THREADS % 32 == 0 && CHOICE_THREADS == 8 * 32, "whole warps, and eight that choose");
static_assert(NORM_THREADS == PARTS * 32, "a warp a part of the sum");
static_assert(MOST_PAIRS == 32 * 32, "a warp for each lane of one");

// x[b] = table[ids[b]]; the table may lie in mapped host memory. x bf16 [B, D]. Grid: B. Block: ROW_THREADS.
extern "C" __global__ void __launch_bounds__(ROW_THREADS) embed(const bf16* table, const int* ids, bf16* x, int D) {
    const uint4* from = (const uint4*)(table + (u64)ids[blockIdx.x] * D);
    for (int i = threadIdx.x; i < D / 8; i += ROW_THREADS) ((uint4*)(x + (u64)blockIdx.x * D))[i] = from[i];
}

// The norm before a product, in the order in which `thin.cu` sums it. x, y bf16 [B, K]; weight f32 [K]. Grid: B. Block:
// NORM_THREADS.
extern "C" __global__ void __launch_bounds__(NORM_THREADS)
    norm_rows(const bf16* x, const float* weight, bf16* y, int K, float epsilon) {
    __shared__ float parts[PARTS];
    const int t = threadIdx.x;
    const u8* const row = (const u8*)(x + (u64)blockIdx.x * K);
    follow_closely();
    const float sum = part_of_square(row, t >> 5, t & 31, K);
    if ((t & 31) == 0) parts[t >> 5] = sum;
    __syncthreads();
    const float scale = norm_scale(parts, K, epsilon);
    for (int i = t; i < K / 8; i += NORM_THREADS)
        ((uint4*)(y + (u64)blockIdx.x * K))[i] = normed8(load16(row + i * 16), scale, (const float4*)weight + 2 * i);
}

// At most MOST_PAIRS pairs sorted by expert, in the order of their numbers within an expert. Arguments as `sort_pairs`
// of op/route/sort.cu has them. Grid: 1. Block: MOST_PAIRS.
extern "C" __global__ void __launch_bounds__(MOST_PAIRS)
    sort_few(const int* experts, int* pairs, int* places, int* offsets, int P, int E) {
    next_may_start();
    sort_in_block<1, MAX_EXPERTS, MOST_PAIRS>(experts, pairs, places, offsets, P, E, [] { wait_for_earlier(); });
}

#define LOW_PARTS (LOW_THREADS / 32 / LOW_RANKS)  // warps of a row of A
static_assert(LOW_PARTS * LOW_RANKS * 32 == LOW_THREADS, "whole warps");
#define LOW_PIECES ((MAX_WIDTH / 8 + LOW_PARTS * 32 - 1) / (LOW_PARTS * 32))

// Rows by A of the expert of each place: x[place] gives u[place], or, with `top_k`, the row of the place's pair that of
// the pair. x bf16 [*, D]; a bf16 [E, rank, D]; experts i32 [P] by pair; pairs i32 [P]; adapted i32 [P / k], 0 for rows
// that get zeros; u bf16 [P, RANK]; `early`: the experts were chosen before the kernel before began, so that A may come
// while it is still at work. D a multiple of 8 up to MAX_WIDTH. Columns of u beyond the grid's stay as they are. Grid:
// (P, columns / LOW_RANKS). Block: LOW_THREADS.
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

#define SLOTS 4

// out[b] = middle[b] + sum over slots i of weights[b, i] y[places[b, i]], in order of the slots. y bf16 [P, D]; weights
// f32 and places i32 [B, k]; middle, out bf16 [B, D]. Grid: (ceil(D / 8 / ROW_THREADS), B). Block:
// ROW_THREADS.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    add_experts(const bf16* y, const float* weights, const int* places, const bf16* middle, bf16* out, int D, int k) {
    const int i = blockIdx.x * ROW_THREADS + threadIdx.x, b = blockIdx.y;
    next_may_start();
    wait_for_earlier();
    if (i >= D / 8) return;
    const uint4 residual = load16(middle + (u64)b * D + i * 8);
    float sum[8];
    unpack8(residual, sum);
#pragma unroll 1
    for (int first = 0; first < k; first += SLOTS) {
        // So many are on their way together.
        int at[SLOTS];
        float by[SLOTS];
        uint4 rows[SLOTS];
#pragma unroll
        for (int s = 0; s < SLOTS; s++)
            if (first + s < k) at[s] = places[b * k + first + s], by[s] = weights[b * k + first + s];
#pragma unroll
        for (int s = 0; s < SLOTS; s++)
            if (first + s < k) rows[s] = load16(y + (u64)at[s] * D + i * 8);
#pragma unroll
        for (int s = 0; s < SLOTS; s++) {
            if (first + s >= k) break;
            float f[8];
            unpack8(rows[s], f);
#pragma unroll
            for (int j = 0; j < 8; j++) sum[j] += by[s] * f[j];
        }
    }
    store16(out + (u64)b * D + i * 8, pack8(sum));
}

// The largest logit of each row, ties to the lower id, as op/pick/pick.cu has it, among several blocks: the largest of
// (value, -id) as one number. A logit that is not a number is never the largest, but in the first place.
// logits bf16 [B, V], V a multiple of 8; best u64 [B], zero, which `advance` reads and makes zero again.
// Grid: (parts of a row, B). Block: CHOICE_THREADS.
extern "C" __global__ void __launch_bounds__(CHOICE_THREADS) likeliest(const bf16* logits, u64* best, int V) {
    __shared__ u64 found[8];
    const int t = threadIdx.x, lane = t & 31, per = (V / 8 + gridDim.x - 1) / gridDim.x;
    const int first = blockIdx.x * per, end = min(V / 8, first + per);
    const bf16* row = logits + (u64)blockIdx.y * V;
    next_may_start();
    wait_for_earlier();
    float largest = __uint_as_float(0xff800000u);
    int id = min(first, V / 8 - 1) * 8;
    for (int i = first + t; i < end; i += CHOICE_THREADS) {
        float f[8];
        unpack8(load16(row + 8 * i), f);
#pragma unroll
        for (int j = 0; j < 8; j++)
            if (f[j] > largest) largest = f[j], id = 8 * i + j;
    }
    u32 value = ordered(largest);
    if (first == 0 && t == 0) {
        const float x = to_float(row[0]);
        if (x != x) value = 0xffffffffu, id = 0;
    }
    auto of_warp = [](u32 value, u32 order) {
        const u32 top = __reduce_max_sync(FULL_WARP, value);
        return (u64)top << 32 | __reduce_max_sync(FULL_WARP, value == top ? order : 0);
    };
    u64 mine = of_warp(value, ~(u32)id);
    if (lane == 0) found[t >> 5] = mine;
    __syncthreads();
    if (t >= 32) return;
    mine = lane < 8 ? found[lane] : 0;
    mine = of_warp((u32)(mine >> 32), (u32)mine);
    if (lane == 0) atomicMax(best + blockIdx.y, mine);
}

// Continues with the next token: ids[b] = that of best[b], positions[b] + 1, and the id to where the host reads it.
// best u64 [B], as `likeliest` wrote it; told i32 [B, stride], the first of each, in mapped host memory. Grid: 1.
// Block: CHOICE_THREADS.
extern "C" __global__ void __launch_bounds__(CHOICE_THREADS)
    advance(u64* best, int* ids, int* positions, int* told, int B, int stride) {
    wait_for_earlier();
    for (int b = threadIdx.x; b < B; b += CHOICE_THREADS) {
        const int id = (int)~(u32)best[b];
        ids[b] = id, positions[b] += 1, told[b * stride] = id, best[b] = 0;
    }
}
