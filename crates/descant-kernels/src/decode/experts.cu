// Products of a step's rows with packed experts: bound by the packed bytes of those that are chosen.
//
//   out[place, n] = sum_k A[row(place), k] W[e][n, k]      + bias[e, n] + sum_r u[., r] v[e, n, r], then SwiGLU where
//   asked
//
// for the places offsets[e]..offsets[e + 1] of expert e. As in few.cu the weights are the left operand of mma.sync and
// go from device memory to registers; here a CTA has neighbouring tiles of 16 columns, so that the rows of an expert
// stay in shared memory, and the weights of the next tile are on their way while one is multiplied. Eight warps share
// out k, and their sums are added in order of the warps: a row's result depends on that row alone.
//
// Rows of u are by pair where `pairs` is given, else by place; u and v have RANK columns. Other arguments as in
// grouped.cu. Launch: any grid; dynamic shared memory for ROWS rows.
#include "grouped.cuh"
#include "mma.cuh"
#include "step.cuh"

#ifndef RANK
#define RANK RANK_WIDTH
#endif
#define WARPS 8
#define ROWS TILE_ROWS
#define COLUMNS 16
static_assert(THREADS == 32 * WARPS && ROWS == 8, "eight warps, and the rows of a right operand");
#define AHEAD 3  // chunks of a warp that are loaded together: all of 2880

// A tile: rows of one expert, and the first of its columns.
struct Tile {
    int expert, row, n_rows, column;
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    step_experts(const bf16* a, const int* pairs, const u8* blocks, const u8* scales, const float* tables,
                 const bf16* bias, const bf16* u, const bf16* v, const int* expert_offsets, bf16* out, bf16* h,
                 int a_ld, int top_k, int n_experts, int n_out, int n_in, float limit) {
    extern __shared__ __align__(16) u8 staged[];
    __shared__ int offsets[MAX_EXPERTS + 1];
    __shared__ __align__(16) float sums[2][WARPS][COLUMNS][8];
    // Of a tile and of the next: biases, and an adapter's factor of its columns.
    __shared__ __align__(16) bf16 biases[2][COLUMNS];
    __shared__ __align__(16) bf16 factors[2][COLUMNS * RANK];
    __shared__ __align__(16) bf16 low_rank[ROWS][RANK];
    __shared__ __align__(16) u32 table_words[TABLE_BYTES / 4 + 1];
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, g = lane >> 2, q = lane & 3;
    const u32 looked_up = shared_address(table_words);
    wait_for_earlier();
    // Here and not before: who starts early may read the choice of experts.
    next_may_start();
    for (int i = t; i <= n_experts; i += THREADS) offsets[i] = expert_offsets[i];
    fill_tables(tables, looked_up);
    __syncthreads();
    const int chunks = (n_in + CHUNK - 1) / CHUNK, of_columns = (n_out + COLUMNS - 1) / COLUMNS;

    int all = 0;
    for (int e = 0; e < n_experts; e++) all += (offsets[e + 1] - offsets[e] + ROWS - 1) / ROWS;
    all *= of_columns;
    const int begin = (int)((long long)all * blockIdx.x / gridDim.x);
    int left = (int)((long long)all * (blockIdx.x + 1) / gridDim.x) - begin;
    if (left == 0) return;
    Tile tile;
    {
        int groups = begin / of_columns, e = 0;
        for (;; e++) {
            const int here = (offsets[e + 1] - offsets[e] + ROWS - 1) / ROWS;
            if (groups < here) break;
            groups -= here;
        }
        const int row = offsets[e] + groups * ROWS;
        tile = {e, row, min(ROWS, offsets[e + 1] - row), begin % of_columns * COLUMNS};
    }
    auto following = [&](Tile of) {
        of.column += COLUMNS;
        if (of.column < n_out) return of;
        of.column = 0, of.row += of.n_rows;
        while (of.row >= offsets[of.expert + 1]) of.expert++;
        of.n_rows = min(ROWS, offsets[of.expert + 1] - of.row);
        return of;
    };
    // What a tile's end reads, so that nobody waits for it there.
    auto load_end = [&](const Tile& of, int buffer) {
        const u64 column = (u64)of.expert * n_out + of.column;
        const int count = min(COLUMNS, n_out - of.column);
        if (bias && t < count / 2) copy_async4(shared_address(&biases[buffer][t * 2]), bias + column + t * 2);
        for (int i = t; u && i < count * RANK / 8; i += THREADS)
            copy_async16(shared_address(&factors[buffer][i * 8]), v + column * RANK + i * 8);
        copy_commit();
    };
    auto scales_at = [&](const Tile& of) {
        return scales_of(scales, tables, of.expert, n_experts, (u32)(n_out * (n_in / 32)) / 2);
    };
    auto load = [&](const Tile& of, int first, Chunk(&all)[AHEAD]) {
        const u64 column = (u64)of.expert * n_out + of.column;
#pragma unroll
        for (int i = 0; i < AHEAD; i++) all[i] = load_chunk(blocks, scales_at(of), column, n_in, first + i * WARPS);
    };
    // Where a staged row has its piece p of 16 bytes.
    auto piece = [&](int row, int p) { return staged + row * n_in * 2 + place_of_piece(row, p) * 16; };
    int staged_row = -1, buffer = 0;
    auto multiply = [&](const Tile& of, const Tile& next, Chunk(&all)[AHEAD]) {
        if (staged_row != of.row) {
            __syncthreads();
            for (int i = t; i < of.n_rows * (n_in / 8); i += THREADS) {
                const int row = i / (n_in / 8), p = i % (n_in / 8), place = of.row + row;
                const u64 from = (u64)(pairs ? pairs[place] / top_k : place) * a_ld + p * 8;
                copy_async16(shared_address(piece(row, p)), a + from);
            }
            for (int i = t; u && i < of.n_rows * (RANK / 8); i += THREADS) {
                const int row = i / (RANK / 8), p = i % (RANK / 8), place = of.row + row;
                const u64 from = (u64)(pairs ? pairs[place] : place) * RANK + p * 8;
                copy_async16(shared_address(&low_rank[row][p * 8]), u + from);
            }
            copy_commit();
            copy_wait<0>();
            __syncthreads();
            staged_row = of.row;
        }
        const Scales places = scales_at(of);
        float acc[4] = {};
        for (int first = warp; first < chunks; first += WARPS * AHEAD) {
            if (first != warp) load(of, first, all);
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                const int chunk = first + i * WARPS;
                if (chunk >= chunks) break;
#pragma unroll
                for (int unit = 0; unit < 2; unit++) {
                    u32 left[4][4];
                    decode_unit(all[i], unit, places, looked_up, left);
                    // A row that is not there makes a column of sums that nobody reads; what lies beyond k is zero in
                    // the rows.
                    const int p = pieces_of_unit(chunk, unit);
                    uint4 x = make_uint4(0, 0, 0, 0), y = x;
                    if (p * 8 < n_in) x = *(const uint4*)piece(g, p), y = *(const uint4*)piece(g, p + 1);
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        u32 b0, b1;
                        right_of(j, x, y, b0, b1);
                        multiply16(acc, left[j], b0, b1);
                    }
                }
            }
        }
        *(float2*)&sums[buffer][warp][g][q * 2] = make_float2(acc[0], acc[1]);
        *(float2*)&sums[buffer][warp][g + 8][q * 2] = make_float2(acc[2], acc[3]);
        copy_wait<0>();
        __syncthreads();
        // Nobody reads what the tile before had there any more.
        load_end(next, buffer ^ 1);
        // A thread makes two neighbouring columns of one row.
        const int row = t >> 3, n = of.column + (t & 7) * 2;
        if (t < ROWS * 8 && row < of.n_rows && n < n_out) {
            float x = 0.0f, y = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) {
                x += sums[buffer][w][(t & 7) * 2][row];
                y += sums[buffer][w][(t & 7) * 2 + 1][row];
            }
            const u64 place = of.row + row;
            if (u) {
                const u32* by = (const u32*)low_rank[row];
                const u32* at = (const u32*)&factors[buffer][(t & 7) * 2 * RANK];
                float dx = 0.0f, dy = 0.0f;
#pragma unroll 8
                for (int i = 0; i < RANK / 2; i++) {
                    const u32 l = by[i], rx = at[i], ry = at[i + RANK / 2];
                    dx += low_float(l) * low_float(rx) + high_float(l) * high_float(rx);
                    dy += low_float(l) * low_float(ry) + high_float(l) * high_float(ry);
                }
                x += dx, y += dy;
            }
            if (bias) {
                const u32 b = *(const u32*)&biases[buffer][(t & 7) * 2];
                x += low_float(b), y += high_float(b);
            }
            if (out) *(u32*)(out + place * n_out + n) = to_bf16x2(x, y);
            if (h) h[place * (n_out / 2) + n / 2] = to_bf16(swiglu(x, y, limit));
        }
        buffer ^= 1;
    };

    Chunk here[AHEAD], there[AHEAD];
    load(tile, warp, here);
    load_end(tile, 0);
    while (true) {
        Tile next = tile;
        if (left > 1) next = following(tile), load(next, warp, there);
        multiply(tile, next, here);
        if (--left == 0) break;
        tile = next;
        if (left > 1) next = following(tile), load(next, warp, here);
        multiply(tile, next, there);
        if (--left == 0) break;
        tile = next;
    }
}
