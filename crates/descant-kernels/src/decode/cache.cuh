// Where a layer's cache has the keys and values of a sequence: in pages that its table names, or, where there is a
// window, in a ring of as many rows as the window has.
#pragma once
#include "common.cuh"

// The row of a position. pages: the sequence's own table.
__device__ __forceinline__ u64 cache_row(const int* pages, int slot, int position, int window) {
    if (window > 0) return (u64)slot * window + position % window;
    return (u64)pages[position / PAGE] * PAGE + position % PAGE;
}

// The rows of n consecutive positions from `first` on, which lie in two runs: those before `turn` behind `low`, the
// others behind `high`. Without a window `first` begins a page and n is at most two pages; with one, n is at most the
// window.
struct CacheRows {
    u64 low, high;
    int turn;
    __device__ __forceinline__ CacheRows(const int* pages, int slot, int first, int n, int window) {
        if (window > 0) {
            const int at = first % window;
            low = (u64)slot * window + at, high = (u64)slot * window, turn = window - at;
        } else {
            pages += first / PAGE;
            low = (u64)pages[0] * PAGE, high = n > PAGE ? (u64)pages[1] * PAGE : 0, turn = PAGE;
        }
    }
    __device__ __forceinline__ u64 row(int k) const { return k < turn ? low + k : high + k - turn; }
};
