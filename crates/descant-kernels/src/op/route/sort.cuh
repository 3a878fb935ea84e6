// The stable sort of few pairs by expert in one block: for training, and for a step of generation.
#pragma once
#include "common.cuh"

// For at most CHUNKS pairs a thread, of at most EXPERTS experts. Arguments as `sort_pairs` of sort.cu has them; `wait`
// comes before they are read.
template <int CHUNKS, int EXPERTS, int BLOCK, class Wait>
__device__ __forceinline__ void sort_in_block(const int* __restrict__ experts, int* pairs, int* places, int* offsets,
                                              int P, int E, Wait wait) {
    constexpr int RUNS = BLOCK / 32, OF_LANE = EXPERTS / 32;
    static_assert(BLOCK == 1024 && EXPERTS % 32 == 0, "a run of each chunk for each lane, and as many experts");
    // Pairs of each expert in each run of 32, then those in the runs before; with two columns more, so that lanes which
    // read one column of their rows read different banks.
    __shared__ unsigned short counts[CHUNKS * RUNS][EXPERTS + 2];
    __shared__ int first[EXPERTS];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int i = threadIdx.x; i < CHUNKS * RUNS * (EXPERTS + 2); i += BLOCK) (&counts[0][0])[i] = 0;
    wait();
    __syncthreads();
    int mine[CHUNKS], rank[CHUNKS];
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int pair = c * BLOCK + threadIdx.x;
        mine[c] = pair < P ? experts[pair] : -1;
        u32 same = __match_any_sync(FULL_WARP, mine[c]);
        rank[c] = __popc(same & ((1u << lane) - 1));
        if (mine[c] >= 0 && rank[c] == 0) counts[c * RUNS + warp][mine[c]] = __popc(same);
    }
    __syncthreads();
    // A warp an expert.
    for (int e = warp; e < E; e += RUNS) {
        int n[CHUNKS], sum = 0;
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) n[i] = counts[CHUNKS * lane + i][e], sum += n[i];
        int before = warp_running_sum(sum);
        if (lane == 31) first[e] = before;
        before -= sum;
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) counts[CHUNKS * lane + i][e] = before, before += n[i];
    }
    __syncthreads();
    // One warp, OF_LANE experts a lane.
    if (warp == 0) {
        int n[OF_LANE], sum = 0;
#pragma unroll
        for (int i = 0; i < OF_LANE; i++) n[i] = OF_LANE * lane + i < E ? first[OF_LANE * lane + i] : 0, sum += n[i];
        int before = warp_running_sum(sum);
        if (lane == 31) offsets[E] = before;
        before -= sum;
#pragma unroll
        for (int i = 0; i < OF_LANE; i++) {
            int e = OF_LANE * lane + i;
            if (e < E) first[e] = before, offsets[e] = before;
            before += n[i];
        }
    }
    __syncthreads();
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        if (mine[c] < 0) continue;
        int pair = c * BLOCK + threadIdx.x, place = first[mine[c]] + counts[c * RUNS + warp][mine[c]] + rank[c];
        places[pair] = place;
        pairs[place] = pair;
    }
}
