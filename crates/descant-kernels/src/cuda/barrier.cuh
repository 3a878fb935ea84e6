// Barriers in shared memory at which threads arrive before they wait (mbarrier), as far as sm_80 has them, and named
// ones, at which some threads of a block meet.
#pragma once
#include "common.cuh"

__device__ __forceinline__ void barrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_arrive(u32 barrier) {
    asm volatile("{\n.reg .b64 unused;\nmbarrier.arrive.shared.b64 unused, [%0];\n}" ::"r"(barrier) : "memory");
}
// One arrival of a warp, when all its lanes are here: what they read may be overwritten, what they wrote be read.
__device__ __forceinline__ void barrier_arrive_warp(u32 barrier) {
    __syncwarp();
    if ((threadIdx.x & 31) == 0) barrier_arrive(barrier);
}
// Returns when the phase with this parity is complete; Hopper's barrier_wait sleeps meanwhile.
__device__ __forceinline__ void barrier_poll(u32 barrier, u32 parity) {
    u32 done;
    do
        asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    while (!done);
}
// Arrives when all copies of this thread so far have landed; one of the arrivals that the barrier expects.
__device__ __forceinline__ void barrier_arrive_copies(u32 barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
}
// Threads of one named barrier.
__device__ __forceinline__ void threads_sync(int name, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}
