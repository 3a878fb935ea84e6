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

template <bool TRANSPOSED> struct Weights {
    // A stage's tiles are [16 bands of 16 columns][4 of k], backward [4 bands of 16 of k][16 of columns].
    static constexpr int ACROSS = TRANSPOSED ? COLUMNS / TILE : STEP / TILE;
    static constexpr int PIECES = ACROSS * TILE_BYTES / 16;  // of 16 bytes in a band's part
    static constexpr int SCALE_PIECES = ACROSS / 2;
    static constexpr int SCALES = COLUMNS * STEP / 2;  // behind the tiles
    const u8 *weights, *scales;
    int bands, tiles, band, tile_at;
    u32 w_to, w_mine, s_mine, select;

    __device__ __forceinline__ Weights(const Problem& g, const Tiles& tile, u32 shared) {
        const int t = threadIdx.x, lane = t & 31, warp = t >> 5, matrix = lane >> 3;
        bands = (TRANSPOSED ? g.n_in : g.n_out) / TILE, tiles = (TRANSPOSED ? g.n_out : g.n_in) / TILE;
        weights = g.blocks + (u64)tile.expert * bands * tiles * TILE_BYTES;
        scales = g.scales + (u64)tile.expert * bands * tiles * (SCALE_PIECE / 2);
        band = TRANSPOSED ? 0 : tile.column / TILE, tile_at = TRANSPOSED ? tile.column / TILE : 0;
        w_to = shared + A_BYTES + t * 16;
        // Four tiles: of two columns, two of k each.
        const int of_column = warp * 2 + matrix / 2, of_k = matrix % 2;
        w_mine = shared + A_BYTES + (lane & 7) * 16 +
                 (TRANSPOSED ? of_k * ACROSS + of_column : of_column * ACROSS + of_k) * TILE_BYTES;
        s_mine = shared + A_BYTES + SCALES +
                 (TRANSPOSED ? warp * SCALE_PIECE + (lane & 3) * 4
                             : warp * 2 * SCALE_PIECES * SCALE_PIECE + (lane >> 3) * 4);
        select = TRANSPOSED ? 0x4140 : 0x4040 + (lane >> 2 & 1) * 0x0101;
    }
    // Bands and tiles behind the last come again: those sums are not stored, or meet zeros.
    __device__ __forceinline__ void fetch(int step, u32 stage, int i, bool wanted) const {
        const int p = threadIdx.x + i * THREADS, in_band = p % PIECES;
        const int of_band = min(band + (TRANSPOSED ? step * (STEP / TILE) : 0) + p / PIECES, bands - 1);
        const int of_tile = min(tile_at + (TRANSPOSED ? 0 : step * (STEP / TILE)) + in_band / 8, tiles - 1);
        const u32 at = ((u32)of_band * tiles + of_tile) * 8 + in_band % 8;
        copy_weights(w_to + stage + i * (THREADS * 16), weights + (u64)at * 16, wanted);
        if (i == 0 && p < SCALES_BYTES / 16) {
            const int s_band = min(band + (TRANSPOSED ? step * (STEP / TILE) : 0) + p / SCALE_PIECES, bands - 1);
            const int block =
                min(tile_at / 2 + (TRANSPOSED ? 0 : step * (STEP / 32)) + p % SCALE_PIECES, tiles / 2 - 1);
            copy_weights(w_to + stage + SCALES, scales + ((u64)s_band * (tiles / 2) + block) * SCALE_PIECE, wanted);
        }
    }
    __device__ __forceinline__ void begin() const {}
    __device__ __forceinline__ void go_on(int) const {}
    __device__ __forceinline__ void load(Unit& unit, int, u32 stage, int h) const {
        const u32 from = w_mine + stage + h * (TRANSPOSED ? 2 * ACROSS : 2) * TILE_BYTES;
        if (TRANSPOSED)
            load_matrices_transposed(unit.words, from);
        else
            load_matrices(unit.words, from);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            // Backward of two bands of k, forward of one block of k and two bands of columns.
            const u32 word = shared_load(
                s_mine + stage + (TRANSPOSED ? (h * 2 + i) * SCALE_PIECES : i * SCALE_PIECES + h) * SCALE_PIECE);
            unit.by[i * 2] = factors(word, select), unit.by[i * 2 + 1] = factors(word, select + 0x0202);
        }
    }
    // `c`: which 16 of the step's 64; `j`: which block of 8 columns of the warp's 4.
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
    // Which of the warp's 32 columns is n of block j.
    static __device__ __forceinline__ int column(int j, int n) { return j * 8 + n; }
    // A thread's sums of a row, two of each block, become those of columns 8q to 8q + 7, q = lane % 4: the four threads
    // of a row exchange them.
    static __device__ __forceinline__ void neighbours(float (&x)[8]) {
#pragma unroll
        for (int distance = 1; distance <= 2; distance *= 2) {
            const bool upper = threadIdx.x & distance;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                // Numbers of two blocks that are as far apart as the threads.
                float& low = x[(distance == 1 ? i / 2 * 2 : i / 2) * 2 + i % 2];
                float& high = x[(distance == 1 ? i / 2 * 2 + 1 : i / 2 + 2) * 2 + i % 2];
                const float other = __shfl_xor_sync(FULL_WARP, upper ? low : high, distance);
                if (upper)
                    low = other;
                else
                    high = other;
            }
        }
    }
};
