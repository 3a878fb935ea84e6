// MXFP4 and rows in 8 bits for packed_sm90.cu: a step is 128 numbers of the sum, rows are e4m3 in the order of fp8.cuh
// with a factor each, and a weight becomes e5m2, exactly.
//
// e5m2 is the upper byte of an f16, so a weight is a mask, a shift, a product of f16, and its upper byte. Its factor is
// relative to the largest scale of those that a column of the result meets, which the host looked up (`references`): a
// number times 2^(s - reference + 1), for scales that are at most 2^16 below their reference. Sums are scaled by their
// rows' factors before the low-rank step, and by their columns' on the way out.
//
// Shapes: `a` a map of e4m3 [P, n_in] in boxes of 128 x ROW_BOX with 128-byte swizzle, n_in a multiple of 64. `scales`
// are the references, u8 [E, n_out], backward [E, n_out / 32], at least LEAST_REFERENCE; `tables` the factors of rows,
// f32 [P], or null: then all have fixed_factor. h8 e4m3 [P, n_out / 2] or null: h times h8_scale.
#pragma once
#include "packed_tiles.cuh"

#define STAGES 5
#define H8_BYTES 32
#define FINE_WIDTHS false  // 16 rows less cost little next to decoding
#define RAW_BYTES (ROWS * 4)  // the factors of a tile's rows
#define MORE_PARAMETERS , u8 *h8, float fixed_factor, float h8_scale
#define MORE_ARGUMENTS h8, fixed_factor, h8_scale
static_assert(SUM_STEP == 128, "128 bytes of a row");

// What a thread keeps of a tile.
struct Words {
    u32 off[2];  // see taken_off(), of the columns of its fragments
    u32 keep;  // all bits, or none in a half step that is beyond the sum
};

// The numbers of two u16 of a tile as pairs of f16, times 2^-14; see mxfp4.cuh.
__device__ __forceinline__ void spread_f16(u32 word, u32 (&out)[4]) {
    out[0] = ((word << 3) & 0x0e000e00u) | (word & 0x80008000u);
    out[1] = ((word << 6) & 0x0e000e00u) | ((word << 3) & 0x80008000u);
    out[2] = ((word << 9) & 0x0e000e00u) | ((word << 1) & 0x80008000u);
    out[3] = (word & 0x0e000e00u) | ((word << 2) & 0x80008000u);
}
__device__ __forceinline__ u32 multiply_f16x2(u32 a, u32 b) {
    u32 y;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
    return y;
}
// The upper bytes of two pairs.
__device__ __forceinline__ u32 upper_bytes(u32 x, u32 y) { return __byte_perm(x, y, 0x7531); }

// A reference as what is taken off the exponents of a pair of factors: scales are larger by 126 in the order of tiles,
// and that of the reference becomes 2^15, which is 30 in an f16.
__device__ __forceinline__ u32 taken_off(u32 reference) { return (reference + 126 - 30) * 0x04000400u; }
// And back.
__device__ __forceinline__ u32 taken_from(u32 off) { return (off >> 10 & 0xff) - (126 - 30); }
// Two bytes of a word of scales as factors; selector as for factors().
__device__ __forceinline__ u32 factors_f16(u32 word, u32 selector, u32 off, u32 keep) {
    return (__byte_perm(word, 0, selector) * 1024 - off) & keep;
}
// Of a column of the result.
template <bool TRANSPOSED> __device__ __forceinline__ u32 reference_of(const Places& g, const Tile& tile, int column) {
    if (column >= g.n_out) return LEAST_REFERENCE;
    const u64 at = (u64)tile.expert * g.n_out + column;
    return load_byte(g.scales + (TRANSPOSED ? at / 32 : at));
}

template <bool TRANSPOSED>
__device__ __forceinline__ void begin_tile(const Places& g, const Tile& tile, u32 shared, int group, Words& words) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int column = tile.column + group * 64 + column_of_fragment<TRANSPOSED>(i);
        words.off[i] = taken_off(reference_of<TRANSPOSED>(g, tile, column));
    }
    words.keep = ~0u;
    const float* factors = g.tables;
    for (int row = threadIdx.x & 127; row < ROWS; row += 128) {
        const u32 to = shared + RAW + group * RAW_BYTES + row * 4;
        const bool valid = row < tile.n_rows;
        if (factors)
            copy_async4(to, factors + (valid ? tile.row + row : tile.row), valid);
        else
            shared_store(to, __float_as_uint(g.fixed_factor));
    }
    copy_commit();  // what scale_sums() waits for
}
// What lies beyond n_in may be another expert's, whose factors may be no numbers here.
__device__ __forceinline__ void begin_last_step(const Places& g, Words& words) {
    words.keep = g.n_in % SUM_STEP ? 0 : ~0u;
}
template <int N> __device__ __forceinline__ void product_of_weights(float (&acc)[N / 2], const u32 (&x)[4], u64 rows) {
    product_fp8<N>(acc, x, rows);
}

// The fragments of one half of a step, twice 32 of the sum.
template <bool TRANSPOSED>
__device__ __forceinline__ void decode(u32, u32 packed, int group, int half, const Words& w, u32 (&x)[2][4]) {
    const int lane = threadIdx.x & 31, tile = group * 4 + ((threadIdx.x >> 5) & 3), q = lane & 3;
    const u32 keep = half ? w.keep : ~0u;
    u32 words[4], y[4];
    if (TRANSPOSED) {
        const u32 band = packed + (half * 4 + (lane >> 3)) * BAND_BYTES(true);
        load_matrices_transposed(words, band + tile * TILE_BYTES + (lane & 7) * 16);
        const u32 from = packed + TILES_BYTES + tile / 2 * SCALE_PIECE + q * 4;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const u32 scales = shared_load(from + (half * 4 + j) * BAND_SCALES(true));
            const u32 upper = factors_f16(scales, 0x4140, w.off[0], keep),
                      lower = factors_f16(scales, 0x4342, w.off[0], keep);
            spread_f16(words[j], y);
            // Rows of a tile are of the inner dimension here, and columns are those of the result.
            x[j / 2][j % 2 * 2] = upper_bytes(multiply_f16x2(y[0], upper), multiply_f16x2(y[1], lower));
            x[j / 2][j % 2 * 2 + 1] = upper_bytes(multiply_f16x2(y[2], upper), multiply_f16x2(y[3], lower));
        }
    } else {
        load_matrices(words, packed + tile * BAND_BYTES(false) + half * 4 * TILE_BYTES + lane * 16);
        const u32 from = packed + TILES_BYTES + tile * BAND_SCALES(false) + (lane >> 3) * 4;
        const u32 select = 0x4040 + (lane >> 2 & 1) * 0x0101;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const u32 scales = shared_load(from + (half * 2 + j / 2) * SCALE_PIECE);
            const u32 upper = factors_f16(scales, select, w.off[0], keep),
                      lower = factors_f16(scales, select + 0x0202, w.off[1], keep);
            spread_f16(words[j], y);
            x[j / 2][j % 2 * 2] = upper_bytes(multiply_f16x2(y[0], upper), multiply_f16x2(y[2], upper));
            x[j / 2][j % 2 * 2 + 1] = upper_bytes(multiply_f16x2(y[1], lower), multiply_f16x2(y[3], lower));
        }
    }
}

// The sums of a tile times its rows' factors.
template <int N> __device__ __forceinline__ void scale_sums(float (&acc)[N / 2], u32 shared, int group) {
    copy_wait<0>();
    threads_sync(1 + group, 128);
    const u32 from = shared + RAW + group * RAW_BYTES + (threadIdx.x & 3) * 8;
#pragma unroll
    for (int i = 0; i < N / 8; i++) {
        float f[2];
        shared_load8(from + i * 32, f);
        acc[i * 4] *= f[0], acc[i * 4 + 1] *= f[1], acc[i * 4 + 2] *= f[0], acc[i * 4 + 3] *= f[1];
    }
}
// A pair of v of the low-rank step, which adds to sums that are still to be multiplied with 2^(reference - 128).
__device__ __forceinline__ u32 pair_of_v(u32 pair, int half, const Words& w) {
    return multiply_bf16x2(pair, (255 - taken_from(w.off[half])) * 0x00800080u);
}
// Of the two columns of a thread's fragments.
struct ColumnFactors {
    float factors[2];
    __device__ __forceinline__ explicit ColumnFactors(const Words& w) {
#pragma unroll
        for (int i = 0; i < 2; i++) factors[i] = __uint_as_float((taken_from(w.off[i]) - 1) << 23);
    }
    __device__ __forceinline__ void finish(float* y, u32 bias) const {
        y[0] = y[0] * factors[0] + low_float(bias), y[1] = y[1] * factors[0] + low_float(bias);
        y[2] = y[2] * factors[1] + high_float(bias), y[3] = y[3] * factors[1] + high_float(bias);
    }
};
