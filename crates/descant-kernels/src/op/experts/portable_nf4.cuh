// NF4 for packed.cu, as lines: the code of each 64 numbers of a line comes a step earlier and becomes an f32 absmax,
// and a number is a level that is looked up, a product and a rounding; see nf4.cuh.
//
// Which column of a block of 8 is which is ours to choose: n of block j is column 4n + j of the warp's 32. Then a
// transposed load of packed lines gives a thread its columns, backward, and the sums of a thread are eight neighbors of
// a row in either direction, which it stores without help.
#pragma once
#include "packed.cuh"

#define PIECES (COLUMNS / 32)  // of 16 bytes in a tile's part of a packed line, backward
#define PAIRS (COLUMNS / 64)  // of 32-wide blocks there
#define SCALES_BYTES 0  // they do not come with the weights
#define FACTOR_BYTES (COLUMNS * 4)  // of a step
#define RAW_BYTES (THREADS * 8)  // two words a thread
#define BESIDE_BYTES (2 * FACTOR_BYTES + 2 * RAW_BYTES)
static_assert(THREADS == 64 * PAIRS && PIECES == 8,
              "a thread has a column, or a line and two blocks; a line is 128 bytes");

// Of 32 of the inner dimension: the words of two lines, backward, and the factors.
struct Unit {
    u32 words[4];
    float by[8];
};

template <bool TRANSPOSED> struct Weights {
    // From a copy to the next: lines, or columns.
    static constexpr int NEXT = TRANSPOSED ? THREADS / PIECES : THREADS / 2;
    const u8* weights;
    Scales scales;
    int steps, lines, wide, w_line, w_block, s_line;
    u32 w_from[W_COPIES], w_to, s_from, f_to, f_mine, w_mine, raw, tables, levels;

    __device__ __forceinline__ Weights(const Problem& g, const Tiles& tile, u32 shared) {
        const int t = threadIdx.x, lane = t & 31, warp = t >> 5, r = lane >> 2, q = lane & 3;
        steps = steps_of(g), wide = (TRANSPOSED ? g.n_out : g.n_in) / 32, lines = TRANSPOSED ? g.n_in : g.n_out;
        // Forward [half of 32][column as above][16 bytes], backward [line][block of 32][16 bytes].
        const int half = t >> 3 & 1, w_column = (t >> 6) * 32 + (t & 7) * 4 + (t >> 4 & 3), piece = t % PIECES;
        w_line = t / PIECES;
        w_to = shared + A_BYTES +
               (TRANSPOSED ? swizzled(w_line, piece) : half * (COLUMNS * 16) + ((t >> 4) * 8 + (t & 7)) * 16);
        w_block = TRANSPOSED ? min(tile.column / 32 + piece, wide - 1) : half;
        if (!TRANSPOSED)
#pragma unroll
            for (int i = 0; i < W_COPIES; i++)
                w_from[i] = (u32)min(tile.column + w_column + i * NEXT, lines - 1) * wide;
        weights = g.blocks + (u64)tile.expert * lines * wide * 16;
        w_mine = shared + A_BYTES + (TRANSPOSED ? swizzled(lane, warp) : (warp * 32 + r) * 16);
        // A thread has the scales of a column, forward, of a line and two blocks of 32 columns, backward. Factors of a
        // line are where the four threads of a quad find theirs beside each other.
        s_line = TRANSPOSED ? t / PAIRS : t;
        const int pair = TRANSPOSED ? t % PAIRS : 0;
        s_from = TRANSPOSED ? min(tile.column / 32 + pair * 2, wide - 1) : (u32)min(tile.column + t, lines - 1) * wide;
        const u32 place = TRANSPOSED ? (s_line >> 1 & 3) * 16 + (s_line >> 3) * 2 + (s_line & 1) : t;
        scales = scales_of(g.scales, g.tables, tile.expert, g.n_experts, (u32)(lines * wide) / 2);
        const u32 factors = shared + BESIDE;
        f_to = factors + (TRANSPOSED ? (pair * 64 + place) * 4 : place * 4);
        f_mine = factors + (TRANSPOSED ? ((warp >> 1) * 64 + q * 16) * 4 : (warp * 32 + r * 4) * 4);
        raw = factors + 2 * FACTOR_BYTES + t * 8, tables = shared + TABLES, levels = levels_of_lane(tables);
    }
    __device__ __forceinline__ void fetch(int step, u32 stage, int i, bool wanted) const {
        const u32 at = TRANSPOSED ? (u32)min(step * STEP + w_line + i * NEXT, lines - 1) * wide + w_block
                                  : w_from[i] + min(step * 2 + w_block, wide - 1);
        copy_weights(w_to + stage + i * (NEXT * (TRANSPOSED ? 128 : 16)), weights + (u64)at * 16, wanted);
    }
    // The code of this thread's block among those of its matrix.
    __device__ __forceinline__ u32 scale_at(int step) const {
        return (TRANSPOSED ? (u32)min(step * STEP + s_line, lines - 1) * wide + s_from : s_from + step * 2) / 2;
    }
    __device__ __forceinline__ void fetch_scales(int step, bool wanted) const {
        const u32 at = scale_at(step), to = raw + (step & 1) * RAW_BYTES;
        copy_word(to, scales.codes + ((scales.first + at) & ~3u), wanted);
        copy_word(to + 4, scales.nested + at / 256, wanted);
    }
    __device__ __forceinline__ void store_factor(int step, u32 code, float nested) const {
        const float absmax = absmax_of(code, nested, scales.offset, tables);
        shared_store(f_to + (step & 1) * FACTOR_BYTES, __float_as_uint(absmax));
    }
    // The scales of the first two steps, and the third's on their way; the block meets afterwards.
    __device__ __forceinline__ void begin() const {
#pragma unroll
        for (int step = 0; step < 2; step++) {
            const u32 at = scale_at(min(step, steps - 1));
            store_factor(step, load_byte(scales.codes + scales.first + at), scales.nested[at / 256]);
        }
        fetch_scales(2, 2 < steps);
    }
    // Those of two steps further, which have come; and the next ones on their way.
    __device__ __forceinline__ void go_on(int step) const {
        const u32 from = raw + (step & 1) * RAW_BYTES, at = scale_at(step + 2);
        store_factor(step + 2, shared_load(from) >> ((scales.first + at) & 3) * 8 & 0xff,
                     __uint_as_float(shared_load(from + 4)));
        fetch_scales(step + 3, step + 3 < steps);
    }
    __device__ __forceinline__ void load(Unit& unit, int step, u32 stage, int h) const {
        if (TRANSPOSED) load_matrices_transposed(unit.words, w_mine + stage + h * (32 * 128));
        if (!TRANSPOSED && h == 1) return;
        const u32 from = f_mine + (step & 1) * FACTOR_BYTES;
        const uint4 x = shared_load16(from + (TRANSPOSED ? h * 32 : 0)),
                    y = TRANSPOSED ? shared_load16(from + h * 32 + 16) : x;
        const u32 all[8] = {x.x, x.y, x.z, x.w, y.x, y.y, y.z, y.w};
#pragma unroll
        for (int i = 0; i < 8; i++) unit.by[i] = __uint_as_float(all[i]);
    }
    // `c`: which 16 of the step's 64; `j`: which block of 8 columns of the warp's 4.
    __device__ __forceinline__ void decode(const Unit& unit, u32 stage, int c, int j, u32 (&x)[2]) const {
        if (TRANSPOSED) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const u32 word = unit.words[c % 2 * 2 + i];
                const u32 four = j % 2 ? high_nibbles(word) : low_nibbles(word);
                const int line = (c % 2 * 2 + i) * 2;
                x[i] = numbers(level_of(four, pick(j / 2), levels), level_of(four, pick(j / 2 + 2), levels),
                               unit.by[line], unit.by[line + 1]);
            }
        } else {
            const int q = threadIdx.x & 3;
            float two[2];
            shared_load8(w_mine + stage + c / 2 * (COLUMNS * 16) + j * 128 + c % 2 * 8, two);
            const u32 bytes = __byte_perm(__float_as_uint(two[0]), __float_as_uint(two[1]), q | (q + 4) << 4);
            const u32 low = low_nibbles(bytes), high = high_nibbles(bytes);
#pragma unroll
            for (int i = 0; i < 2; i++)
                x[i] = numbers(level_of(low, pick(i), levels), level_of(high, pick(i), levels), unit.by[j], unit.by[j]);
        }
    }
    // Which of the warp's 32 columns is n of block j.
    static __device__ __forceinline__ int column(int j, int n) { return n * 4 + j; }
    // A thread's sums of a row, two of each block, become those of columns 8q to 8q + 7, q = lane % 4.
    static __device__ __forceinline__ void neighbours(float (&x)[8]) {
        const float y[8] = {x[0], x[2], x[4], x[6], x[1], x[3], x[5], x[7]};
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = y[i];
    }
};
