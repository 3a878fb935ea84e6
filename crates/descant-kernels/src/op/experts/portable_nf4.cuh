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

// Where the weights of a tile come from, and their factors.
template <bool TRANSPOSED> struct Source {
    // From a copy to the next: lines, or columns.
    static constexpr int NEXT = TRANSPOSED ? THREADS / PIECES : THREADS / 2;
    const u8* weights;
    u32 w_from[W_COPIES], w_to;
    // Of the scales that come next, and of those that are on their way.
    Scales scales;
    u32 s_from, shift;
    float offset;
    bool there;
    u32 f_to, raw, tables;

    static __device__ __forceinline__ int wide(const Problem& g) { return (TRANSPOSED ? g.n_out : g.n_in) / 32; }
    static __device__ __forceinline__ int lines(const Problem& g) { return TRANSPOSED ? g.n_in : g.n_out; }
    static __device__ __forceinline__ int last(const Problem& g) { return (g.n_in + STEP - 1) / STEP - 1; }
    // Forward [half of 32][column as above][16 bytes], backward [line][block of 32][16 bytes].
    static __device__ __forceinline__ int line() { return threadIdx.x / PIECES; }
    static __device__ __forceinline__ int half() { return threadIdx.x >> 3 & 1; }
    // A thread has the scales of a column, forward, of a line and two blocks of 32 columns, backward. Factors of a line
    // are where the four threads of a quad find theirs beside each other.
    static __device__ __forceinline__ int scale_line() { return TRANSPOSED ? threadIdx.x / PAIRS : threadIdx.x; }

    __device__ __forceinline__ Source(const Problem&, u32 shared) {
        const int t = threadIdx.x, s_line = scale_line(), pair = TRANSPOSED ? t % PAIRS : 0;
        w_to = shared + A_BYTES +
               (TRANSPOSED ? swizzled(line(), t % PIECES) : half() * (COLUMNS * 16) + ((t >> 4) * 8 + (t & 7)) * 16);
        const u32 factors = shared + BESIDE, place = (s_line >> 1 & 3) * 16 + (s_line >> 3) * 2 + (s_line & 1);
        f_to = factors + (TRANSPOSED ? pair * 64 + place : t) * 4;
        raw = factors + 2 * FACTOR_BYTES + t * 8, tables = shared + TABLES;
    }
    __device__ __forceinline__ void go(const Problem& g, const Tile& tile) {
        const int t = threadIdx.x, wide = Source::wide(g), lines = Source::lines(g);
        const int column = tile.column + (t >> 6) * 32 + (t & 7) * 4 + (t >> 4 & 3);
#pragma unroll
        for (int i = 0; i < W_COPIES; i++)
            w_from[i] = TRANSPOSED ? min(tile.column / 32 + t % PIECES, wide - 1)
                                   : (u32)min(column + i * NEXT, lines - 1) * wide;
        weights = g.blocks + (u64)tile.expert * lines * wide * 16;
    }
    // The same for the scales, which come a step earlier.
    __device__ __forceinline__ void go_scales(const Problem& g, const Tile& tile) {
        const int t = threadIdx.x, wide = Source::wide(g), lines = Source::lines(g);
        there = tile.n_rows > 0;
        if (!there) return;
        s_from =
            TRANSPOSED ? min(tile.column / 32 + t % PAIRS * 2, wide - 1) : (u32)min(tile.column + t, lines - 1) * wide;
        scales = scales_of(g.scales, g.tables, tile.expert, g.n_experts, (u32)(lines * wide) / 2);
    }
    // Lines and blocks behind the last come again: they meet zeros.
    __device__ __forceinline__ void fetch(const Problem& g, int step, u32 stage, int i, bool wanted) const {
        const int wide = Source::wide(g);
        const u32 at = TRANSPOSED ? (u32)min(step * STEP + line() + i * NEXT, lines(g) - 1) * wide + w_from[i]
                                  : w_from[i] + min(step * 2 + half(), wide - 1);
        copy_weights(w_to + stage + i * (NEXT * (TRANSPOSED ? 128 : 16)), weights + (u64)at * 16, wanted);
    }
    __device__ __forceinline__ void fetch_scales(const Problem&, int, u32, bool) const {}
    // The code of this thread's block among those of its matrix.
    __device__ __forceinline__ u32 scale_at(const Problem& g, int step) const {
        step = min(step, last(g));
        const u32 at =
            TRANSPOSED ? (u32)min(step * STEP + scale_line(), lines(g) - 1) * wide(g) + s_from : s_from + step * 2;
        return at / 2;
    }
    // Of a step, into one of two places.
    __device__ __forceinline__ void fetch_raw(const Problem& g, int step, int place) {
        const u32 at = scale_at(g, step), to = raw + place * RAW_BYTES;
        copy_word(to, scales.codes + ((scales.first + at) & ~3u), there);
        copy_word(to + 4, scales.nested + at / 256, there);
        shift = ((scales.first + at) & 3) * 8, offset = scales.offset;
    }
    __device__ __forceinline__ void store_factor(int place, u32 code, float nested, float offset) const {
        shared_store(f_to + place * FACTOR_BYTES, __float_as_uint(absmax_of(code, nested, offset, tables)));
    }
    // The scales of the first two steps, and the third's on their way; the block meets afterwards.
    __device__ __forceinline__ void begin(const Problem& g) {
#pragma unroll
        for (int step = 0; step < 2; step++) {
            const u32 at = scale_at(g, step);
            store_factor(step, load_byte(scales.codes + scales.first + at), scales.nested[at / 256], scales.offset);
        }
        fetch_raw(g, 2, 0);
    }
    // Those of two steps further, which have come; and those of `step`, one more, on their way.
    __device__ __forceinline__ void go_on(const Problem& g, u32 turn, int step) {
        const u32 from = raw + (turn & 1) * RAW_BYTES;
        store_factor(turn & 1, shared_load(from) >> shift & 0xff, __uint_as_float(shared_load(from + 4)), offset);
        fetch_raw(g, step, (turn + 1) & 1);
    }
};

// The weights of a warp's columns, from a stage.
template <bool TRANSPOSED> struct Weights {
    u32 f_mine, w_mine, levels;

    __device__ __forceinline__ Weights(const Part& part, u32 shared) {
        const int lane = threadIdx.x & 31, r = lane >> 2, q = lane & 3;
        w_mine = shared + A_BYTES + (TRANSPOSED ? swizzled(lane, part.group) : (part.group * 32 + r) * 16);
        f_mine = shared + BESIDE + (TRANSPOSED ? (part.group >> 1) * 64 + q * 16 : part.group * 32 + r * 4) * 4;
        levels = levels_of_lane(shared + TABLES);
    }
    // Of a stage and the step's turn.
    __device__ __forceinline__ void load(Unit& unit, u32 turn, u32 stage, int h) const {
        if (TRANSPOSED) load_matrices_transposed(unit.words, w_mine + stage + h * (32 * 128));
        if (!TRANSPOSED && h == 1) return;
        const u32 from = f_mine + (turn & 1) * FACTOR_BYTES;
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
    // A thread stores eight columns.
    static constexpr int APART = 4;
    static __device__ __forceinline__ int first() { return (threadIdx.x & 3) * 8; }
    // A thread's sums of a row, two of each block, in the order of these columns.
    static __device__ __forceinline__ void sort(float (&x)[8]) {
        const float y[8] = {x[0], x[2], x[4], x[6], x[1], x[3], x[5], x[7]};
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = y[i];
    }
    static __device__ __forceinline__ void exchange(uint4&) {}
};
