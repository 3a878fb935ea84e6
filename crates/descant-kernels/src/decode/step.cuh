// How kernels follow each other: on Hopper and later the next one may start before this one ends, brings what
// does not depend on it, and waits before it reads or writes anything that others do (programmatic dependent launch).
#pragma once
#include "common.cuh"

// To be called by every thread, whose work before it reads frozen weights alone.
__device__ __forceinline__ void wait_for_earlier() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void next_may_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}
// Both, for kernels that have nothing to bring before: only their launch is hidden.
__device__ __forceinline__ void follow_closely() {
    wait_for_earlier();
    next_may_start();
}
