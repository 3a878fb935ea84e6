// MXFP4 for packed_sm90.cu: the scale of each 32 numbers becomes a bf16 factor, and a number is two shifts, two masks
// and a product; see mxfp4.cuh.
#pragma once
#include "packed_sm90.cuh"

#define AHEAD 8  // steps that scales are loaded ahead
#define RAW_BYTES (AHEAD * 256)  // a word for each of 64 lines
// A group's factors are [2 halves of 32 bytes' elements][64 lines], twice.
#define FACTORS 256
static_assert(GROUP_FACTORS == 2 * FACTORS + 16, "both, and whether the second ones are needed");

// A warp: the scales of a group's 64 lines, lines `lane` and `lane + 32` in a lane.
template <bool TRANSPOSED>
__device__ __forceinline__ void scale(const Places& g, u32 shared, const int* offsets, int group) {
    const int lane = threadIdx.x & 31, steps = steps_of(g);
    const int wide = TRANSPOSED ? g.n_out / 32 : g.n_in / 32, lines = TRANSPOSED ? g.n_in : g.n_out;
    const u32 raw = shared + RAW + group * RAW_BYTES + lane * 4;
    Ring<STAGES> ring(1);
    auto publish = [&]() {
        barrier_arrive_warp(shared + FULL + ring.stage * 8);
        ring.next();
    };
    Tiles tiles;
    for (int tile = blockIdx.x; tiles.go(tile, offsets, g.n_experts, g.n_out); tile += gridDim.x) {
        const int first_line = lane + (TRANSPOSED ? 0 : tiles.column + group * 64);
        const int first_block = TRANSPOSED ? tiles.column / 32 + group * 2 : 0;
        const u32 matrix = (u32)tiles.expert * lines * wide;
        // Where a line's scales begin, in both halves; they are in one word where rows have an even number of them.
        auto at = [&](int step, int i) {
            const int line = first_line + i * 32 + (TRANSPOSED ? step * STEP : 0),
                      block = first_block + (TRANSPOSED ? 0 : step * 2);
            return line < lines && block < wide ? matrix + (u32)line * wide + block : ~0u;
        };
        auto load = [&](int step) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const u32 from = step < steps ? at(step, i) : ~0u, to = raw + (step % AHEAD * 64 + i * 32) * 4;
                if (wide % 2 == 0)
                    copy_async4(to, g.scales + (from == ~0u ? 0 : from & ~3u), from != ~0u);
                else if (from != ~0u)
                    shared_store(to, g.scales[from] | (u32)g.scales[from + (from % wide + 1 < wide)] << 8);
            }
            copy_commit();
        };
        for (int d = 0; d < AHEAD - 1; d++) load(d);
        for (int step = 0; step < steps; step++) {
            load(step + AHEAD - 1);
            copy_wait<AHEAD - 1>();
            u32 four = 0;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const u32 from = at(step, i), word = shared_load(raw + (step % AHEAD * 64 + i * 32) * 4);
                const u32 both = wide % 2 == 0 && from % 4 == 2 ? word >> 16 : word & 0xffff;
                four |= (from == ~0u ? 0 : both) << i * 16;
            }
            barrier_wait(shared + EMPTY + ring.stage * 8, ring.parity);
            const u32 to = shared + ring.stage * STAGE + A_BYTES + GROUPS * W_BYTES + group * GROUP_FACTORS + lane * 2;
            bool more = false;
#pragma unroll
            for (int i = 0; i < 4; i++) more |= (four >> i * 8 & 0xff) > 128;
            more = __any_sync(FULL_WARP, more);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const BlockScale by = block_scale(four >> i * 8 & 0xff);
                const u32 place = to + i % 2 * 128 + i / 2 * 64;
                shared_store(place, (bf16)by.first);
                if (more) shared_store(place + FACTORS, (bf16)by.second);
            }
            if (lane == 0) shared_store(to + 2 * FACTORS, (u32)more);
            publish();
        }
        if (g.v) {
            barrier_wait(shared + EMPTY + ring.stage * 8, ring.parity);
            publish();
        }
    }
}

// The fragments of 64 elements of the inner dimension, four times 16, still to be multiplied; and their factors.
// Forward: byte q of each word of two lines is what this thread (q = lane % 4) multiplies: two elements.
__device__ __forceinline__ void read_lines(u32 weights, u32 factors, u32 (&x)[4][4], u32 (&by)[4][4]) {
    const int lane = threadIdx.x & 31, line = column_of_thread<false>();
    const u32 from = weights + line * 32, swap = (line & 4) << 2, select = 0x4440 | (lane & 3);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint4 first = shared_load16(from + ((half * 16) ^ swap)),
                    second = shared_load16(from + 32 + ((half * 16) ^ swap));
        const u32 pair = shared_load(factors + half * 128 + line * 2);
        const u32 words[2][4] = {{first.x, first.y, first.z, first.w}, {second.x, second.y, second.z, second.w}};
        const u32 factor[2] = {__byte_perm(pair, 0, 0x1010), __byte_perm(pair, 0, 0x3232)};
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int l = 0; l < 2; l++) {
                const u32 byte = __byte_perm(words[l][i], 0, select);
                const int chunk = half * 2 + i / 2, place = i % 2 * 2 + l;
                x[chunk][place] = ((byte * 0x40040u) & 0x01c001c0u) | ((byte * 0x1001000u) & 0x80008000u);
                by[chunk][place] = factor[l];
            }
        }
    }
}
// Backward: a transposed load gives each thread four columns of two lines; it and the thread of the next warp share
// them.
__device__ __forceinline__ void read_columns(u32 weights, u32 factors, u32 (&x)[4][4], u32 (&by)[4][4]) {
    const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3, half = warp / 2, shift = warp % 2 * 8;
    const u32 swap = ((half * 16) ^ ((lane & 4) << 2));
    factors += half * 128 + (lane & 3) * 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        u32 units[4];
        load_matrices_transposed(units, weights + (i * 32 + lane) * 32 + swap);
#pragma unroll
        for (int m = 0; m < 4; m++) {
            const int chunk = i * 2 + m / 2, place = m % 2 * 2;
            const u32 t = units[m] >> shift, factor = shared_load(factors + (i * 4 + m) * 16);
            x[chunk][place] = ((t * 64) & 0x01c001c0u) | ((t * 4096) & 0x80008000u);
            x[chunk][place + 1] = ((t * 4) & 0x01c001c0u) | ((t * 256) & 0x80008000u);
            by[chunk][place] = by[chunk][place + 1] = factor;
        }
    }
}
template <bool TRANSPOSED>
__device__ __forceinline__ void decode(u32, u32 weights, u32 factors, u32 (&x)[4][4]) {
    u32 by[4][4];
    auto read = [&](u32 factors, u32(&x)[4][4]) {
        if (TRANSPOSED)
            read_columns(weights, factors, x, by);
        else
            read_lines(weights, factors, x, by);
    };
    read(factors, x);
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) x[j][i] = multiply_bf16x2(x[j][i], by[j][i]);
    if (shared_load(factors + 2 * FACTORS)) {
        u32 unused[4][4];
        read(factors + FACTORS, unused);
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) x[j][i] = multiply_bf16x2(x[j][i], by[j][i]);
    }
}
