// The way out of packed_sm90.cu: a tile's sums, which a thread has of two columns, become rows in shared memory and are
// stored in whole lines. It is the same for all packings, which is why it comes behind theirs.
#pragma once

static_assert(32 * ROW_LD <= STAGED_BYTES, "rows with h fit, too");

// The bias of the two columns of a thread's fragments.
template <bool TRANSPOSED> __device__ __forceinline__ u32 bias_of(const Places& g, const Tile& tile, int group) {
    u32 both = 0;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int column = tile.column + group * 64 + column_of_fragment<TRANSPOSED>(i);
        if (g.bias && column < g.n_out) both |= (u32)g.bias[(u64)tile.expert * g.n_out + column] << i * 16;
    }
    return both;
}

// A tile of at most N rows. WITH_H stores SwiGLU of the result as well.
template <int N, bool TRANSPOSED, bool WITH_H>
__device__ __forceinline__ void way_out(const Places& g, const Tile& tile, float (&acc)[N / 2], u32 bias,
                                        const ColumnFactors& of_columns, u32 shared, int group) {
    // As many rows at a time as there is room for.
    constexpr int AT_ONCE = WITH_H ? 32 : 64, LD = WITH_H ? ROW_LD : OUT_LD;
    const int t = thread_again() & 127, q = t & 3, start = tile.column + group * 64;
    const u32 staged = shared + STAGED + group * STAGED_BYTES;
    const int row = t / 8, n = start + t % 8 * 8;
    bf16* out = g.out + (u64)(tile.row + row) * g.n_out + n;
    const int left = n < g.n_out ? tile.n_rows - row : 0;
    const int mine = column_of_thread<TRANSPOSED>();
    const u32 to_h = staged + q * 2 * LD + 128 + mine, to_h8 = staged + q * 2 * LD + 192 + fp8_place(mine / 2);
#pragma unroll
    for (int part = 0; part < N; part += AT_ONCE) {
        threads_sync(1 + group, 128);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i += 16) {
            if (part + i >= N) break;
            float* y = &acc[(part + i) / 2];
            of_columns.finish(y, bias), of_columns.finish(y + 4, bias);
            stage_rows<TRANSPOSED>(staged + i * LD, LD, t, y);
            if (WITH_H) {
                // All of it, also what is not stored: questions cost more.
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float* z = y + j * 4;
                    exchange(z);
                    const float upper = swiglu(z[0], z[2], g.limit), lower = swiglu(z[1], z[3], g.limit);
                    const int at = (i + j * 8) * LD;
                    shared_store(to_h + at, to_bf16(upper));
                    shared_store(to_h + at + LD, to_bf16(lower));
                    if (H8_BYTES) {
                        const u32 codes = to_e4m3x2(upper * g.h8_scale, lower * g.h8_scale);
                        shared_store_byte(to_h8 + at, codes);
                        shared_store_byte(to_h8 + at + LD, codes >> 8);
                    }
                }
            }
        }
        threads_sync(1 + group, 128);
        if (!WITH_H || g.out)
#pragma unroll
            for (int i = 0; i < AT_ONCE && part + i < N; i += 16)
                if (part + i < left)
                    *(uint4*)(out + (u64)(part + i) * g.n_out) = shared_load16(staged + (row + i) * LD + t % 8 * 16);
        const int h_left = tile.n_rows - part, h_width = g.n_out / 2;
        const u64 place = tile.row + part;
        if (WITH_H && g.h) {
            const int h_row = t / 4, h_n = start / 2 + t % 4 * 8;
            if (h_row < h_left && h_n < h_width)
                *(uint4*)(g.h + (place + h_row) * h_width + h_n) =
                    shared_load16(staged + h_row * LD + 128 + t % 4 * 16);
        }
        if (WITH_H && H8_BYTES && g.h8 && t < 64) {
            const int h_row = t / 2, h_n = start / 2 + t % 2 * 16;
            if (h_row < h_left && h_n < h_width)
                *(uint4*)(g.h8 + (place + h_row) * h_width + h_n) =
                    shared_load16(staged + h_row * LD + 192 + t % 2 * 16);
        }
    }
}
