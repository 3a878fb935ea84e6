// MXFP4 for packed.cu, in the order of tiles: a step's tiles and scales are copied as they lie, ldmatrix gives a thread
// the numbers of two blocks of 8 columns, and a number is a mask, two shifts at most and a product; see mxfp4.cuh.
#pragma once
#include "packed.cuh"

#define SCALES_BYTES (COLUMNS * STEP / 32)  // behind the weights of a stage
#define BESIDE_BYTES 0
static_assert(TILE_BYTES == 128 && STEP == 4 * TILE, "a step has four tiles of k");

// Of 32 of the inner dimension: words of two tiles of 16 columns, two of k each, and factors of two words of scales.
struct Unit {
    u32 words[4];
    u32 by[4];
};

// A stage has tiles [16 bands of 16 columns][4 of k], backward [4 bands of 16 of k][16 of columns], and their scales.
// Forward every other band has its pieces of 16 bytes two further, modulo four, so that a matrix can have rows of two
// tiles from different banks.
template <bool TRANSPOSED> struct Order {
    static constexpr int ACROSS = TRANSPOSED ? COLUMNS / TILE : STEP / TILE;
    static constexpr int PIECES = ACROSS * TILE_BYTES / 16;  // of 16 bytes in a band's part
    static constexpr int SCALE_PIECES = ACROSS / 2;
    static constexpr int SCALES = COLUMNS * STEP / 2;  // behind the tiles
};

// Where the weights of a tile come from: pieces of 16 bytes, W_COPIES of weights and one of scales a thread.
template <bool TRANSPOSED> struct Source : Order<TRANSPOSED> {
    using Order<TRANSPOSED>::PIECES;
    using Order<TRANSPOSED>::SCALE_PIECES;
    using Order<TRANSPOSED>::SCALES;
    u32 at[W_COPIES], s_at, w_to;  // the first step's pieces
    int until[W_COPIES], scales_until;  // how many steps they are inside of the inner dimension

    static __device__ __forceinline__ int bands(const Problem& g) { return (TRANSPOSED ? g.n_in : g.n_out) / TILE; }
    static __device__ __forceinline__ int tiles(const Problem& g) { return (TRANSPOSED ? g.n_out : g.n_in) / TILE; }
    // Of piece i of this thread.
    static __device__ __forceinline__ int band_of(int i) { return (threadIdx.x + i * THREADS) / PIECES; }
    static __device__ __forceinline__ int tile_of(int i) { return (threadIdx.x + i * THREADS) % PIECES / 8; }
    static __device__ __forceinline__ int scale_band() { return threadIdx.x / SCALE_PIECES; }
    static __device__ __forceinline__ int scale_block() { return threadIdx.x % SCALE_PIECES; }

    __device__ __forceinline__ Source(const Problem& g, u32 shared)
        : w_to(shared + A_BYTES + (threadIdx.x ^ (TRANSPOSED ? 0 : band_of(0) % 2 * 2)) * 16) {
        auto steps = [&](int tile) { return (g.n_in / TILE + STEP / TILE - 1 - tile) / (STEP / TILE); };
#pragma unroll
        for (int i = 0; i < W_COPIES; i++) until[i] = steps(TRANSPOSED ? band_of(i) : tile_of(i));
        scales_until = threadIdx.x < SCALES_BYTES / 16 ? steps(TRANSPOSED ? scale_band() : scale_block() * 2) : 0;
    }
    // Bands or tiles of columns behind the last come again: those sums are not stored.
    __device__ __forceinline__ void go(const Problem& g, const Tile& tile) {
        const int bands = Source::bands(g), tiles = Source::tiles(g), first = tile.column / TILE;
        const u32 line = tile.expert * bands;
#pragma unroll
        for (int i = 0; i < W_COPIES; i++) {
            const u32 band = TRANSPOSED ? band_of(i) : min(first + band_of(i), bands - 1);
            const u32 column = TRANSPOSED ? min(first + tile_of(i), tiles - 1) : tile_of(i);
            at[i] = ((line + band) * tiles + column) * 8 + threadIdx.x % 8;
        }
        const u32 band = TRANSPOSED ? scale_band() : min(first + scale_band(), bands - 1);
        const u32 block = TRANSPOSED ? min(first / 2 + scale_block(), tiles / 2 - 1) : scale_block();
        s_at = (line + band) * (tiles / 2) + block;
    }
    // Behind the inner dimension nothing comes: rows are zero there, and what lies there from before is finite.
    __device__ __forceinline__ void fetch(const Problem& g, int step, u32 stage, int i, bool wanted) const {
        const u32 from = at[i] + step * (STEP / TILE * 8) * (TRANSPOSED ? tiles(g) : 1);
        copy_weights(w_to + stage + i * (THREADS * 16), g.blocks + (u64)from * 16, wanted && step < until[i]);
    }
    __device__ __forceinline__ void fetch_scales(const Problem& g, int step, u32 stage, bool wanted) const {
        const u32 from = s_at + step * (TRANSPOSED ? STEP / TILE * (tiles(g) / 2) : STEP / 32);
        copy_weights(w_to + stage + SCALES, g.scales + (u64)from * SCALE_PIECE, wanted && step < scales_until);
    }
    // Scales come with the weights.
    __device__ __forceinline__ void begin(const Problem&) {}
    __device__ __forceinline__ void go_scales(const Problem&, const Tile&) {}
    __device__ __forceinline__ void go_on(const Problem&, u32, int) {}
};

// The weights of a warp's columns, from a stage.
template <bool TRANSPOSED> struct Weights : Order<TRANSPOSED> {
    using Order<TRANSPOSED>::ACROSS;
    using Order<TRANSPOSED>::SCALE_PIECES;
    using Order<TRANSPOSED>::SCALES;
    u32 w_mine, s_mine, select;

    __device__ __forceinline__ Weights(const Part& part, u32 shared) {
        const int lane = threadIdx.x & 31, matrix = lane >> 3;
        // Forward a matrix has four rows of either of two tiles of columns: which ones makes a thread's sums neighbors.
        const int of_k = matrix % 2, n = lane & 7, row = (n >> 1 & 1) * 4 + matrix / 2 * 2 + n % 2;
        const int of_column = part.group * 2 + (TRANSPOSED ? matrix / 2 : n / 4);
        w_mine = shared + A_BYTES + (TRANSPOSED ? n : row ^ n / 4 * 2) * 16 +
                 (TRANSPOSED ? of_k * ACROSS + of_column : of_column * ACROSS + of_k) * TILE_BYTES;
        s_mine = shared + A_BYTES + SCALES +
                 (TRANSPOSED ? part.group * SCALE_PIECE + (lane & 3) * 4
                             : (part.group * 2 + lane / 16) * SCALE_PIECES * SCALE_PIECE + (lane >> 3 & 1) * 8);
        select = TRANSPOSED ? 0x4140 : 0x4040 + (lane >> 2 & 1) * 0x0101;
    }
    __device__ __forceinline__ void load(Unit& unit, u32, u32 stage, int h) const {
        const u32 from = w_mine + stage + h * (TRANSPOSED ? 2 * ACROSS : 2) * TILE_BYTES;
        if (TRANSPOSED)
            load_matrices_transposed(unit.words, from);
        else
            load_matrices(unit.words, from);
        u32 scales[2];
        if (TRANSPOSED) {
#pragma unroll
            for (int i = 0; i < 2; i++)
                scales[i] = shared_load(s_mine + stage + (h * 2 + i) * SCALE_PIECES * SCALE_PIECE);
        } else {
            float two[2];
            shared_load8(s_mine + stage + h * SCALE_PIECE, two);
            scales[0] = __float_as_uint(two[0]), scales[1] = __float_as_uint(two[1]);
        }
#pragma unroll
        for (int i = 0; i < 2; i++)
            unit.by[i * 2] = factors(scales[i], select), unit.by[i * 2 + 1] = factors(scales[i], select + 0x0202);
    }
    // `c`: which 16 of the step's 64; `j`: which block of 8 columns of the group's 4.
    __device__ __forceinline__ void decode(const Unit& unit, u32, int c, int j, u32 (&x)[2]) const {
        u32 y[4];
        spread(unit.words[j / 2 * 2 + c % 2], y);
        if (TRANSPOSED) {
            // Rows of a tile are of k, columns are columns.
            x[0] = multiply_bf16x2(y[j % 2 * 2], unit.by[c % 2 * 2]);
            x[1] = multiply_bf16x2(y[j % 2 * 2 + 1], unit.by[c % 2 * 2 + 1]);
        } else {
            x[0] = multiply_bf16x2(y[j % 2], unit.by[j]);
            x[1] = multiply_bf16x2(y[j % 2 + 2], unit.by[j]);
        }
    }
    // Which of the group's 32 columns is n of block j.
    static __device__ __forceinline__ int column(int j, int n) {
        return TRANSPOSED ? j * 8 + n : n / 4 * 16 + j % 2 * 8 + (n >> 1 & 1) * 4 + j / 2 * 2 + n % 2;
    }
    // A thread stores two runs of four columns, 8 apart: where the first begins.
    static constexpr int APART = 8;
    static __device__ __forceinline__ int first() {
        const int q = threadIdx.x & 3;
        return TRANSPOSED ? q % 2 * 16 + q / 2 * 4 : q / 2 * 16 + q % 2 * 4;
    }
    // A thread's sums of a row, two of each block, in the order of these columns. Backward they lie in the threads of a
    // pair: each gives the other what it has of the other's tile, see exchange.
    static __device__ __forceinline__ void sort(float (&x)[8]) {
        const float y[8] = {x[0], x[1], x[4], x[5], x[2], x[3], x[6], x[7]};
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = y[i];
    }
    // The same numbers as bf16.
    static __device__ __forceinline__ void exchange(uint4& x) {
        if (!TRANSPOSED) return;
        const bool odd = threadIdx.x & 1;
        const u32 first = __shfl_xor_sync(FULL_WARP, odd ? x.x : x.y, 1),
                  second = __shfl_xor_sync(FULL_WARP, odd ? x.z : x.w, 1);
        x = odd ? make_uint4(first, x.y, second, x.w) : make_uint4(x.x, first, x.z, second);
    }
};
