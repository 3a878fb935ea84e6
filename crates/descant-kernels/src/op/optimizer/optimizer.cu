// Gradient norm, clipping and AdamW of all trainable tensors in one launch, with f32 or 8-bit moments; accumulation;
// tensors into one piece and back.
//
// The tensors come as a table in the kernel's parameters, so that nothing is copied or kept on the device for it. Work
// is cut into chunks of CHUNK elements; sums have one order whatever the grid. Every product and sum is rounded by
// itself, as in plain tensor operations, so that the results are those of reference.rs. The norm stays on the device:
// an update reads it, and does nothing but copy when it is not a finite number.
//
// 8-bit moments, as bitsandbytes keeps them (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization"):
// blocks of MOMENT_BLOCK elements, each with its largest magnitude; a code is the nearest of 256 numbers, a signed map
// for the first moment and an unsigned one for the second. Other than there, a second moment that is not zero never
// becomes zero: with a zero denominator one step without gradient could move a weight by any amount.
#include "common.cuh"

static_assert(CHUNK == 16 * THREADS, "sixteen elements a thread");
static_assert(MOMENT_BLOCK == 32 * 8 && THREADS == MOMENT_BLOCK, "a warp a block, a thread a number of the maps");
static_assert((SUM_THREADS & (SUM_THREADS - 1)) == 0, "halves add up");

struct Entry {
    u64 param, out;          // f32; `out` may be `param`
    u64 grad;                // f32
    u64 first, second;       // moments: f32, or codes u8
    u64 scale1, scale2;      // f32, one a block; 8-bit form only
    u32 n, first_chunk;      // elements, and the chunks of the tensors before
};
struct Table {
    u32 count, chunks;
    Entry entries[MAX_TENSORS];
};
static_assert(sizeof(Entry) == ENTRY_BYTES && sizeof(Table) == TABLE_BYTES, "as the host writes them");

__device__ __forceinline__ const Entry& entry_of(const Table& table, u32 chunk) {
    int low = 0, high = table.count - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (table.entries[middle].first_chunk <= chunk)
            low = middle;
        else
            high = middle - 1;
    }
    return table.entries[low];
}

__device__ __forceinline__ bool aligned(u64 p) { return (p & 15) == 0; }

// Four floats at i, as far as the tensor reaches; zeros beyond.
__device__ __forceinline__ void load4(u64 p, u32 i, u32 n, float* f) {
    const float* from = (const float*)p + i;
    if (i + 4 <= n && aligned(p)) {
        *(float4*)f = *(const float4*)from;
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++) f[j] = i + j < n ? from[j] : 0.0f;
    }
}
__device__ __forceinline__ void store4(u64 p, u32 i, u32 n, const float* f) {
    float* to = (float*)p + i;
    if (i + 4 <= n && aligned(p)) {
        *(float4*)to = *(const float4*)f;
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (i + j < n) to[j] = f[j];
    }
}

// partials[first + c] = sum of squares of chunk c of the gradients. Grid: any, at most table.chunks. Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
    square_sums(const __grid_constant__ Table table, float* partials, u32 first) {
    __shared__ float scratch[32];
    for (u32 chunk = blockIdx.x; chunk < table.chunks; chunk += gridDim.x) {
        const Entry& e = entry_of(table, chunk);
        u32 base = (chunk - e.first_chunk) * CHUNK + threadIdx.x * 4;
        float f[4][4], sum = 0.0f;
#pragma unroll
        for (int i = 0; i < 4; i++) load4(e.grad, base + i * THREADS * 4, e.n, f[i]);
#pragma unroll
        for (int i = 0; i < 16; i++) sum += f[i / 4][i % 4] * f[i / 4][i % 4];
        sum = block_sum(sum, scratch);
        if (threadIdx.x == 0) partials[first + chunk] = sum;
    }
}

// flags[m] = 1 where matrix m has an element other than zero, else 0. n: elements of a matrix. Grid: matrices. Block:
// THREADS.
extern "C" __global__ void __launch_bounds__(THREADS) any_nonzero(const float* grad, float* flags, u64 n) {
    const float* matrix = grad + blockIdx.x * n;
    bool any = false;
    for (u64 i = threadIdx.x; i < n; i += THREADS) any |= matrix[i] != 0.0f;
    any = __syncthreads_or(any);
    if (threadIdx.x == 0) flags[blockIdx.x] = any ? 1.0f : 0.0f;
}

// norm[0] = sqrt(sum of partials), in f64. Grid: 1. Block: SUM_THREADS.
extern "C" __global__ void __launch_bounds__(SUM_THREADS) norm_of_sums(const float* partials, float* norm, u32 n) {
    __shared__ double sums[SUM_THREADS];
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < n; i += SUM_THREADS) sum += partials[i];
    sums[threadIdx.x] = sum;
    for (int half = SUM_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) norm[0] = (float)sqrt(sums[0]);
}

// The numbers of one step, each rounded from f64 by the host: beta, 1 - beta, sqrt(1 - beta2^t), epsilon,
// 1 - rate * decay, rate / (1 - beta1^t).
struct Step {
    double max_norm;
    float beta1, rest1, beta2, rest2, correction2, epsilon, keep, rate;
};
static_assert(sizeof(Step) == UPDATE_BYTES, "as the host writes it");

// What the gradients are multiplied by; false where nothing may be updated. `norm` null: no clipping.
__device__ __forceinline__ bool clip(const float* norm, double max_norm, float& factor) {
    factor = 1.0f;
    if (!norm) return true;
    float value = *norm;
    if (!(fabsf(value) <= 3.4028235e38f)) return false;
    double wanted = max_norm / ((double)value + 1e-6);
    factor = wanted < 1.0 ? (float)wanted : 1.0f;
    return true;
}

__device__ __forceinline__ void moments(float g, float& first, float& second, const Step& s) {
    first = __fadd_rn(__fmul_rn(first, s.beta1), __fmul_rn(g, s.rest1));
    second = __fadd_rn(__fmul_rn(second, s.beta2), __fmul_rn(__fmul_rn(g, g), s.rest2));
}
__device__ __forceinline__ float updated(float p, float first, float second, const Step& s) {
    float denominator = __fadd_rn(__fdiv_rn(__fsqrt_rn(second), s.correction2), s.epsilon);
    return __fsub_rn(__fmul_rn(p, s.keep), __fmul_rn(__fdiv_rn(first, denominator), s.rate));
}

// One AdamW step with f32 moments. norm f32 [1] or null. Grid: any, at most table.chunks. Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
    adamw(const __grid_constant__ Table table, const float* norm, const __grid_constant__ Step step) {
    float factor;
    bool live = clip(norm, step.max_norm, factor);
    for (u32 chunk = blockIdx.x; chunk < table.chunks; chunk += gridDim.x) {
        const Entry& e = entry_of(table, chunk);
        if (!live && e.out == e.param) continue;
        u32 base = (chunk - e.first_chunk) * CHUNK + threadIdx.x * 4;
#pragma unroll 2
        for (int i = 0; i < 4; i++) {
            u32 at = base + i * THREADS * 4;
            if (at >= e.n) break;
            float p[4], g[4], m[4], v[4];
            load4(e.param, at, e.n, p);
            if (live) {
                load4(e.grad, at, e.n, g);
                load4(e.first, at, e.n, m);
                load4(e.second, at, e.n, v);
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    moments(__fmul_rn(g[j], factor), m[j], v[j], step);
                    p[j] = updated(p[j], m[j], v[j], step);
                }
                store4(e.first, at, e.n, m);
                store4(e.second, at, e.n, v);
            }
            store4(e.out, at, e.n, p);
        }
    }
}

// Point `index` of `parts` + 1 that divide [0.1, 1] evenly, as torch's linspace rounds it.
__device__ __forceinline__ float boundary(int index, int parts) {
    float step = __fdiv_rn(1.0f - 0.1f, (float)parts);
    return index < (parts + 1) / 2 ? __fmaf_rn(step, (float)index, 0.1f)
                                   : __fmaf_rn(-step, (float)(parts - index), 1.0f);
}
// Positive entry `p` of a map whose lowest decade, 1e-6, has `lowest` parts and each further one twice as many.
__device__ float map_entry(int p, int lowest) {
    const float units[7] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
    int decade = 31 - __clz(p / lowest + 1), parts = lowest << decade, part = p - lowest * ((1 << decade) - 1);
    return __fmul_rn(units[decade], __fmul_rn(__fadd_rn(boundary(part, parts), boundary(part + 1, parts)), 0.5f));
}
// Code 0..255 to its number: signed -1 < ... < 0 (code 127) < ... < 1, unsigned 0 (code 0) < ... < 1 (code 255).
__device__ float signed_entry(int code) {
    if (code == 255) return 1.0f;
    return code == 127 ? 0.0f : code > 127 ? map_entry(code - 128, 1) : -map_entry(126 - code, 1);
}
__device__ float unsigned_entry(int code) { return code == 0 ? 0.0f : code == 255 ? 1.0f : map_entry(code - 1, 2); }

// Code of the nearest number of a map: how many of the 255 middles between neighbours lie below x.
__device__ __forceinline__ int nearest(const float* middles, float x) {
    int code = 0;
#pragma unroll
    for (int bit = 128; bit > 0; bit >>= 1) code += x > middles[code + bit - 1] ? bit : 0;
    return code;
}

// One AdamW step with 8-bit moments: codes u8 [n], scales f32 [ceil(n / MOMENT_BLOCK)]; a warp takes a block.
// Grid: any, at most table.chunks. Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
    adamw8(const __grid_constant__ Table table, const float* norm, const __grid_constant__ Step step) {
    __shared__ float map1[256], map2[256], middles1[256], middles2[256];
    map1[threadIdx.x] = signed_entry(threadIdx.x);
    map2[threadIdx.x] = unsigned_entry(threadIdx.x);
    __syncthreads();
    if (threadIdx.x < 255) {
        middles1[threadIdx.x] = __fmul_rn(__fadd_rn(map1[threadIdx.x], map1[threadIdx.x + 1]), 0.5f);
        middles2[threadIdx.x] = __fmul_rn(__fadd_rn(map2[threadIdx.x], map2[threadIdx.x + 1]), 0.5f);
    }
    __syncthreads();
    float factor;
    bool live = clip(norm, step.max_norm, factor);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (u32 chunk = blockIdx.x; chunk < table.chunks; chunk += gridDim.x) {
        const Entry& e = entry_of(table, chunk);
        if (!live && e.out == e.param) continue;
        for (int i = 0; i < 2; i++) {
            u32 start = (chunk - e.first_chunk) * CHUNK + (i * (THREADS / 32) + warp) * MOMENT_BLOCK,
                at = start + lane * 8;
            if (start >= e.n) break;
            float p[8], g[8], m[8], v[8];
            load4(e.param, at, e.n, p), load4(e.param, at + 4, e.n, p + 4);
            if (live) {
                load4(e.grad, at, e.n, g), load4(e.grad, at + 4, e.n, g + 4);
                u8 *codes1 = (u8*)e.first + at, *codes2 = (u8*)e.second + at;
                float *scale1 = (float*)e.scale1 + start / MOMENT_BLOCK,
                      *scale2 = (float*)e.scale2 + start / MOMENT_BLOCK;
                float old1 = *scale1, old2 = *scale2, top1 = 0.0f, top2 = 0.0f;
                bool whole = at + 8 <= e.n && ((e.first | e.second) & 7) == 0;
                u8 c1[8], c2[8];
                if (whole) {
                    *(u64*)c1 = *(const u64*)codes1, *(u64*)c2 = *(const u64*)codes2;
                } else {
#pragma unroll
                    for (int j = 0; j < 8; j++)
                        c1[j] = at + j < e.n ? codes1[j] : 127, c2[j] = at + j < e.n ? codes2[j] : 0;
                }
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    m[j] = __fmul_rn(map1[c1[j]], old1), v[j] = __fmul_rn(map2[c2[j]], old2);
                    moments(__fmul_rn(g[j], factor), m[j], v[j], step);
                    if (at + j < e.n) top1 = fmaxf(top1, fabsf(m[j])), top2 = fmaxf(top2, v[j]);
                    p[j] = updated(p[j], m[j], v[j], step);
                }
                top1 = warp_max(top1), top2 = warp_max(top2);
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    c1[j] = top1 > 0.0f ? nearest(middles1, __fdiv_rn(m[j], top1)) : 127;
                    c2[j] = top2 > 0.0f ? nearest(middles2, __fdiv_rn(v[j], top2)) : 0;
                    if (v[j] > 0.0f && c2[j] == 0) c2[j] = 1;
                }
                if (whole) {
                    *(u64*)codes1 = *(const u64*)c1, *(u64*)codes2 = *(const u64*)c2;
                } else {
#pragma unroll
                    for (int j = 0; j < 8; j++)
                        if (at + j < e.n) codes1[j] = c1[j], codes2[j] = c2[j];
                }
                if (lane == 0) *scale1 = top1, *scale2 = top2;
            }
            store4(e.out, at, e.n, p), store4(e.out, at + 4, e.n, p + 4);
        }
    }
}

// out = param + grad for every tensor of the table: a micro-batch's gradients added to those before, in place where out
// is param. Grid: any, at most table.chunks. Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS) accumulate(const __grid_constant__ Table table) {
    for (u32 chunk = blockIdx.x; chunk < table.chunks; chunk += gridDim.x) {
        const Entry& e = entry_of(table, chunk);
        u32 base = (chunk - e.first_chunk) * CHUNK + threadIdx.x * 4;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u32 at = base + i * THREADS * 4;
            if (at >= e.n) break;
            float p[4], g[4];
            load4(e.param, at, e.n, p), load4(e.grad, at, e.n, g);
#pragma unroll
            for (int j = 0; j < 4; j++) p[j] = __fadd_rn(p[j], g[j]);
            store4(e.out, at, e.n, p);
        }
    }
}

// out = grad for every tensor of the table: tensors into one piece and back. Grid: any, at most table.chunks.
// Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS) copy(const __grid_constant__ Table table) {
    for (u32 chunk = blockIdx.x; chunk < table.chunks; chunk += gridDim.x) {
        const Entry& e = entry_of(table, chunk);
        u32 base = (chunk - e.first_chunk) * CHUNK + threadIdx.x * 4;
        for (int i = 0; i < 4; i++) {
            u32 at = base + i * THREADS * 4;
            if (at >= e.n) break;
            float f[4];
            load4(e.grad, at, e.n, f);
            store4(e.out, at, e.n, f);
        }
    }
}
