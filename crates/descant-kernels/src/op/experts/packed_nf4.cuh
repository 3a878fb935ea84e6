// NF4 for packed_sm90.cu: the code of each 64 numbers of a line, which are those of a step or of a group's columns,
// becomes an f32 absmax, and a number is a level that is looked up, a product and a rounding; see nf4.cuh.
#pragma once
#include "packed_bf16.cuh"

// A group's packed weights are 64 lines of 32 bytes: columns by k forward, k by columns backward; behind those of all
// groups are the factors.
#define W_BYTES 2048
#define GROUP_FACTORS (64 * 4)  // f32 of 64 lines
#define PACKED_BYTES (GROUPS * (W_BYTES + GROUP_FACTORS))
#define COPIED_BYTES (GROUPS * W_BYTES)  // by tensor copies
#define SCALE_WARPS GROUPS
#define COPY_REGISTERS 56
#define REGISTERS 152
static_assert(WEIGHT_BOX == 64, "a group's lines");
#define AHEAD 4  // steps that scales are loaded ahead
#define RAW_STEP 512  // two words for each of 64 lines: the one that has its code, and its nested scale
#define RAW_BYTES (AHEAD * RAW_STEP)

// One thread: the packed weights of a step.
template <bool TRANSPOSED>
__device__ __forceinline__ void copy_packed(const Places& g, const TensorMap& w, const TensorMap&, const Tiles& tiles,
                                            int step, u32 to, u32 full) {
#pragma unroll
    for (int i = 0; i < GROUPS; i++)
        tensor_copy(to + i * W_BYTES, w, TRANSPOSED ? tiles.column / 2 + i * 32 : step * STEP / 2,
                    TRANSPOSED ? tiles.expert * g.n_in + step * STEP : tiles.expert * g.n_out + tiles.column + i * 64,
                    full);
}

// Which of its group's 64 columns a thread has: this one and the next. They are rows lane / 4 and 8 below of its
// warp's fragments; the order is ours to choose, and with this one gate and up meet in a thread, forward, and a thread
// finds its columns in what a transposed load gives it, backward.
template <bool TRANSPOSED> __device__ __forceinline__ int column_of_thread() {
    const int r = (threadIdx.x & 31) >> 2, warp = (threadIdx.x >> 5) & 3;
    return TRANSPOSED ? warp / 2 * 32 + r * 4 + warp % 2 * 2 : warp * 16 + r * 2;
}
template <bool TRANSPOSED> __device__ __forceinline__ int column_of_fragment(int half) {
    return column_of_thread<TRANSPOSED>() + half;
}
__device__ __forceinline__ void exchange(float*) {}
// A warp: 16 rows of its columns, of which a thread has eight sums, from `to` on in shared memory, in bf16.
template <bool TRANSPOSED> __device__ __forceinline__ void stage_rows(u32 to, int ld, int t, const float* y) {
    to += (t & 3) * 2 * ld + column_of_thread<TRANSPOSED>() * 2;
#pragma unroll
    for (int i = 0; i < 2; i++, y += 4) {
        shared_store(to + i * 8 * ld, to_bf16x2(y[0], y[2]));
        shared_store(to + (i * 8 + 1) * ld, to_bf16x2(y[1], y[3]));
    }
}

// A warp: the scales of a group's 64 lines, lines `lane` and `lane + 32` in a lane.
template <bool TRANSPOSED>
__device__ __forceinline__ void scale(const Places& g, u32 shared, int group) {
    const int lane = threadIdx.x & 31, steps = steps_of(g);
    const int wide = TRANSPOSED ? g.n_out / 64 : g.n_in / 64, lines = TRANSPOSED ? g.n_in : g.n_out;
    const u32 raw = shared + RAW + group * RAW_BYTES + lane * 4, tables = shared + TABLES;
    Ring<STAGES> ring(1);
    auto publish = [&]() {
        barrier_arrive_warp(shared + FULL + ring.stage * 8);
        ring.next();
    };
    Tiles tiles;
    while (tiles.next(shared + WALK, g.n_experts, g.n_out)) {
        const Scales scales = scales_of(g.scales, g.tables, tiles.expert, g.n_experts, (u32)(lines * wide));
        const int first_line = lane + (TRANSPOSED ? 0 : tiles.column + group * 64);
        const int first_block = TRANSPOSED ? tiles.column / 64 + group : 0;
        // A line's block among those of its matrix.
        auto at = [&](int step, int i) {
            const int line = first_line + i * 32 + (TRANSPOSED ? step * STEP : 0),
                      block = first_block + (TRANSPOSED ? 0 : step);
            return line < lines && block < wide ? (u32)line * wide + block : ~0u;
        };
        auto load = [&](int step) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const u32 block = step < steps ? at(step, i) : ~0u, to = raw + step % AHEAD * RAW_STEP + i * 128;
                const bool valid = block != ~0u;
                copy_async4(to, scales.codes + (valid ? (scales.first + block) & ~3u : 0), valid);
                copy_async4(to + 256, scales.nested + (valid ? block / 256 : 0), valid);
            }
            copy_commit();
        };
        for (int d = 0; d < AHEAD - 1; d++) load(d);
        for (int step = 0; step < steps; step++) {
            load(step + AHEAD - 1);
            copy_wait<AHEAD - 1>();
            float absmax[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const u32 block = at(step, i), from = raw + step % AHEAD * RAW_STEP + i * 128;
                const u32 code = shared_load(from) >> ((scales.first + block) & 3) * 8 & 0xff;
                absmax[i] = absmax_of(code, __uint_as_float(shared_load(from + 256)), scales.offset, tables);
                // What lies outside is zero: minus one times nothing.
                if (block == ~0u) absmax[i] = 0.0f;
            }
            barrier_wait(shared + EMPTY + ring.stage * 8, ring.parity);
            const u32 to = shared + ring.stage * STAGE + A_BYTES + GROUPS * W_BYTES + group * GROUP_FACTORS + lane * 4;
            shared_store(to, __float_as_uint(absmax[0]));
            shared_store(to + 128, __float_as_uint(absmax[1]));
            publish();
        }
        if (g.v) {
            barrier_wait(shared + EMPTY + ring.stage * 8, ring.parity);
            publish();
        }
    }
    // The stage that says that there is no tile left.
    barrier_wait(shared + EMPTY + ring.stage * 8, ring.parity);
    publish();
}

// Nothing is kept from the first half of a step for the second.
struct Words {};
// The fragments of one half of the 64 elements of the inner dimension, twice 16.
// Forward: byte q of each word of two lines is what this thread (q = lane % 4) multiplies: two elements.
__device__ __forceinline__ void decode_lines(u32 tables, u32 weights, u32 factors, int half, u32 (&x)[2][4]) {
    const int lane = threadIdx.x & 31, line = column_of_thread<false>();
    const u32 from = weights + line * 32, swap = (line & 4) << 2, select = (lane & 3) | ((lane & 3) + 4) << 4;
    const u32 levels = levels_of_lane(tables);
    float absmax[2];
    shared_load8(factors + line * 4, absmax);
#pragma unroll
    for (int l = 0; l < 2; l++) {
        const uint4 words = shared_load16(from + l * 32 + ((half * 16) ^ swap));
        const u32 bytes =
            __byte_perm(__byte_perm(words.x, words.y, select), __byte_perm(words.z, words.w, select), 0x5410);
        const u32 low = low_nibbles(bytes), high = high_nibbles(bytes);
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[i / 2][i % 2 * 2 + l] =
                numbers(level_of(low, pick(i), levels), level_of(high, pick(i), levels), absmax[l], absmax[l]);
    }
}
// Backward: a transposed load gives each thread four columns of two lines; it and the thread of the next warp share
// them.
__device__ __forceinline__ void decode_columns(u32 tables, u32 weights, u32 factors, int half, u32 (&x)[2][4]) {
    const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3, side = warp / 2, byte = warp % 2;
    const u32 swap = ((side * 16) ^ ((lane & 4) << 2)), levels = levels_of_lane(tables);
    const u32 first = pick(byte), second = first << 16;
    factors += (lane & 3) * 8;
    u32 units[4];
    load_matrices_transposed(units, weights + (half * 32 + lane) * 32 + swap);
#pragma unroll
    for (int m = 0; m < 4; m++) {
        const int place = m % 2 * 2;
        const u32 low = low_nibbles(units[m]), high = high_nibbles(units[m]);
        float absmax[2];
        shared_load8(factors + (half * 4 + m) * 32, absmax);
        x[m / 2][place] = numbers(level_of(low, first, levels), level_of(low, second, levels), absmax[0], absmax[1]);
        x[m / 2][place + 1] =
            numbers(level_of(high, first, levels), level_of(high, second, levels), absmax[0], absmax[1]);
    }
}
template <bool TRANSPOSED>
__device__ __forceinline__ void decode(u32 tables, u32 packed, int group, int half, Words&, u32 (&x)[2][4]) {
    const u32 weights = packed + group * W_BYTES, factors = packed + GROUPS * W_BYTES + group * GROUP_FACTORS;
    if (TRANSPOSED)
        decode_columns(tables, weights, factors, half, x);
    else
        decode_lines(tables, weights, factors, half, x);
}
