// The grouped product for few rows an expert, as in generation: bound by the packed bytes, so nothing but they matters.
//
// The weights are the left operand of mma.sync and go from device memory to registers, never through shared memory: a
// lane holds 16 bytes of each of its two rows' numbers at once, and the order of k is permuted on both sides alike, as
// the packing says (mxfp4.cuh, nf4.cuh). A CTA makes 16 columns for up to 32 rows of one expert; its eight warps share
// out k, and their sums are added in order of the warps.
//
// Arguments as in grouped.cu, forward only. Launch: grid = BLOCKS x multiprocessors, no dynamic shared memory.
#include "grouped.cuh"
#include "mma.cuh"

#define WARPS 8
#define ROWS 32
#define COLUMNS 16
static_assert(THREADS == 32 * WARPS, "eight warps");
#define AHEAD 2  // chunks of a warp that are loaded together: with three there are not enough registers

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    experts_forward_few(const bf16* a, const int* pairs, const u8* blocks, const u8* scales, const float* tables,
                        const bf16* bias, const bf16* u, const bf16* v, const int* expert_offsets, bf16* out, bf16* h,
                        int a_ld, int top_k, int n_experts, int n_out, int n_in, float limit) {
    __shared__ int offsets[MAX_EXPERTS + 1];
    __shared__ float2 sums[WARPS][ROWS / 8][COLUMNS][4];
    __shared__ u32 table_words[TABLE_BYTES / 4 + 1];
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, g = lane >> 2, q = lane & 3;
    const u32 looked_up = shared_address(table_words);
    for (int i = t; i <= n_experts; i += THREADS) offsets[i] = expert_offsets[i];
    fill_tables(tables, looked_up);
    __syncthreads();
    const int chunks = (n_in + CHUNK - 1) / CHUNK;

    Walk<ROWS, COLUMNS> walk;
    for (int tile = blockIdx.x; walk.go(tile, offsets, n_experts, n_out); tile += gridDim.x) {
        const Scales places = scales_of(scales, tables, walk.expert, n_experts, (u32)(n_out * (n_in / 32)) / 2);
        const u64 column = (u64)walk.expert * n_out + walk.column;
        u32 rows[ROWS / 8];  // offsets in 16 bytes
#pragma unroll
        for (int i = 0; i < ROWS / 8; i++) {
            int place = walk.row + i * 8 + g;
            rows[i] = ~0u;
            if (i * 8 + g < walk.n_rows) rows[i] = (u32)(pairs ? pairs[place] / top_k : place) * (u32)(a_ld / 8);
        }
        float acc[ROWS / 8][4] = {};
        for (int first = warp; first < chunks; first += WARPS * AHEAD) {
            Chunk all[AHEAD];
#pragma unroll
            for (int i = 0; i < AHEAD; i++) all[i] = load_chunk(blocks, places, column, n_in, first + i * WARPS);
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                const int chunk = first + i * WARPS;
                if (chunk >= chunks) break;
#pragma unroll
                for (int unit = 0; unit < 2; unit++) {
                    u32 left[4][4];
                    decode_unit(all[i], unit, places, looked_up, left);
                    const int piece = pieces_of_unit(chunk, unit);
#pragma unroll
                    for (int r = 0; r < ROWS / 8; r++) {
                        if (r * 8 >= walk.n_rows) break;
                        uint4 x = make_uint4(0, 0, 0, 0), y = x;
                        if (rows[r] != ~0u && piece * 8 < n_in) {
                            x = ((const uint4*)a)[(u64)rows[r] + piece];
                            y = ((const uint4*)a)[(u64)rows[r] + piece + 1];
                        }
#pragma unroll
                        for (int j = 0; j < 4; j++) {
                            u32 b0, b1;
                            right_of(j, x, y, b0, b1);
                            multiply16(acc[r], left[j], b0, b1);
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS / 8; r++) {
            sums[warp][r][g][q] = make_float2(acc[r][0], acc[r][1]);
            sums[warp][r][g + 8][q] = make_float2(acc[r][2], acc[r][3]);
        }
        __syncthreads();
        // A thread makes two neighbouring columns of one row.
        const int row = (t >> 6) * 8 + (t & 7), pair = (t >> 3) & 7, n = walk.column + pair * 2;
        if (row < walk.n_rows) {
            float x = 0.0f, y = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) {
                const float* from = (const float*)&sums[w][t >> 6][0][0] + (t & 7);
                x += from[pair * 16], y += from[pair * 16 + 8];
            }
            const u64 place = walk.row + row;
            if (u) {
                const u32* left = (const u32*)(u + place * 64);
                const u32* right = (const u32*)(v + ((u64)walk.expert * n_out + n) * 64);
                float dx = 0.0f, dy = 0.0f;
                for (int i = 0; i < 32; i++) {
                    u32 l = left[i], rx = right[i], ry = right[i + 32];
                    dx += low_float(l) * low_float(rx) + high_float(l) * high_float(rx);
                    dy += low_float(l) * low_float(ry) + high_float(l) * high_float(ry);
                }
                x += dx, y += dy;
            }
            if (bias) {
                u32 b = *(const u32*)(bias + (u64)walk.expert * n_out + n);
                x += low_float(b), y += high_float(b);
            }
            if (out) *(u32*)(out + place * n_out + n) = to_bf16x2(x, y);
            if (h) h[place * (n_out / 2) + n / 2] = to_bf16(swiglu(x, y, limit));
        }
        __syncthreads();
    }
}
