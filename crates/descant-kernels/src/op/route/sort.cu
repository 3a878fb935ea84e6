// The stable sort of (token, slot) pairs by expert.
//
// No atomics that decide an order: a pair's place is the number of pairs before it, counted by ballots within a chunk
// of pairs and by sums over the chunks before. Index arrays are i32.
#include "sort.cuh"
#include "step.cuh"

#define WARPS 32
static_assert(CHUNK == 32 * WARPS, "a pair a thread");

// How often each expert occurs in each chunk of pairs. experts i32 [P]; counts i32 [ceil(P / CHUNK), E]. E <=
// MAX_EXPERTS. Grid: ceil(P / CHUNK). Block: CHUNK.
extern "C" __global__ void __launch_bounds__(CHUNK)
    count_pairs(const int* __restrict__ experts, int* counts, int P, int E) {
    follow_closely();
    __shared__ int chosen[MAX_EXPERTS];
    for (int e = threadIdx.x; e < E; e += CHUNK) chosen[e] = 0;
    __syncthreads();
    int pair = blockIdx.x * CHUNK + threadIdx.x;
    if (pair < P) atomicAdd(&chosen[experts[pair]], 1);  // A count of integers is the same in any order.
    __syncthreads();
    for (int e = threadIdx.x; e < E; e += CHUNK) counts[blockIdx.x * E + e] = chosen[e];
}

// Stable sort of the pairs by expert: place of a pair = pairs of smaller experts + earlier pairs of its expert.
// experts i32 [P]; counts as `count_pairs` wrote it; pairs, places i32 [P]; offsets i32 [E + 1]. E <= MAX_EXPERTS.
// Grid: ceil(P / CHUNK), at least 1. Block: CHUNK.
extern "C" __global__ void __launch_bounds__(CHUNK)
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
        for (int e = threadIdx.x; e < E; e += CHUNK) {
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
    for (int i = threadIdx.x; i < E; i += CHUNK) {
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

// `count_pairs` and `sort_pairs` in one block. P <= FEW_PAIRS, E <= FEW_EXPERTS. Grid: 1. Block: CHUNK.
extern "C" __global__ void __launch_bounds__(CHUNK)
    sort_few_pairs(const int* __restrict__ experts, int* pairs, int* places, int* offsets, int P, int E) {
    static_assert(FEW_PAIRS % CHUNK == 0, "whole chunks");
    follow_closely();
    sort_in_block<FEW_PAIRS / CHUNK, FEW_EXPERTS, CHUNK>(experts, pairs, places, offsets, P, E, [] {});
}
