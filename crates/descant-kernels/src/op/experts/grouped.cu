// Products of rows, sorted by expert, with frozen bf16 experts, for every card from sm_80 on, with mma.sync: the same
// arguments and, within rounding, the same results as grouped_sm90.cu. Packed experts are packed.cu's.
//
// A CTA of eight warps makes a tile of 128 rows and 128 columns, each warp 64 x 32 of it. Two buffers: while the tensor
// cores work on one, asynchronous copies fill the other. 75 KB of shared memory, so that it fits every card.
//
// Launch: grid = multiprocessors.
#include "grouped.cuh"
#include "mma.cuh"

#define TILE 128
#define BUFFER (TILE * 128)  // bytes of A's or B's tile: 128 x 64 bf16
#define STAGED (4 * BUFFER)
#define BIAS (STAGED + 8 * 16 * 80)
#define OFFSETS (BIAS + TILE * 2)
static_assert(THREADS == 256, "eight warps");
static_assert(SHARED == OFFSETS + OFFSETS_BYTES, "what lies there");

// 64 of the inner dimension for this warp's 64 x 32. `TRANSPOSED`: b is [64 inner][two runs of 64 columns].
template <bool TRANSPOSED>
__device__ __forceinline__ void multiply_step(float (&acc)[4][16], u32 a, u32 b, int warp_row, int warp_column) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        u32 left[4][4], right[2][4];
#pragma unroll
        for (int m = 0; m < 4; m++)
            load_matrices(left[m], a + swizzled(warp_row + m * 16 + (lane & 15), k * 2 + (lane >> 4)));
#pragma unroll
        for (int n = 0; n < 2; n++) {
            int column = warp_column + n * 16;
            if (TRANSPOSED) {
                int row = k * 16 + (lane & 15), c = column + (lane >> 4) * 8;
                load_matrices_transposed(right[n], b + (c >> 6) * (STEP * 128) + swizzled(row, (c & 63) >> 3));
            } else {
                int row = column + (lane >> 4) * 8 + (lane & 7);
                load_matrices(right[n], b + swizzled(row, k * 2 + ((lane >> 3) & 1)));
            }
        }
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
                multiply16(&acc[m][n * 4], left[m], right[n >> 1][(n & 1) * 2], right[n >> 1][(n & 1) * 2 + 1]);
    }
}

template <bool TRANSPOSED> __device__ __forceinline__ void grouped(const Problem& g) {
    extern __shared__ __align__(128) u8 dynamic[];
    const u32 shared = shared_address(dynamic);
    int* offsets = (int*)(dynamic + OFFSETS);
    const int t = threadIdx.x, warp = t >> 5;
    const int warp_row = (warp & 1) * 64, warp_column = (warp >> 1) * 32;
    const u32 bias = shared + BIAS, staged = shared + STAGED + warp * 16 * 80;
    for (int i = t; i <= g.n_experts; i += THREADS) offsets[i] = g.offsets[i];
    __syncthreads();

    // A: 16 bytes, `chunk`, of rows t / 8 + 32 i. B: 32 elements of a line.
    const int chunk = t & 7, a_row = t >> 3;
    const int b_row = TRANSPOSED ? t >> 2 : t >> 1, b_at = TRANSPOSED ? t & 3 : t & 1;
    const u32 b_to = TRANSPOSED ? (b_at >> 1) * (STEP * 128) : 0;
    const int b_chunk = (b_at & 1) * 4;
    const int steps = (g.n_in + STEP - 1) / STEP, all_steps = steps + (g.u != nullptr);
    const int wide = TRANSPOSED ? g.n_out / 32 : g.n_in / 32, lines = TRANSPOSED ? g.n_in : g.n_out;

    Walk<TILE, TILE> walk;
    for (int tile = blockIdx.x; walk.go(tile, offsets, g.n_experts, g.n_out); tile += gridDim.x) {
        u32 rows[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int r = a_row + 32 * i;
            rows[i] = ~0u;
            if (r < walk.n_rows) {
                int source = g.pairs ? g.pairs[walk.row + r] / g.top_k : walk.row + r;
                rows[i] = (u32)source * (u32)(g.a_ld / 8) + chunk;
            }
        }
        if (t < TILE / 2) {
            int n = walk.column + t * 2;
            u32 pair = g.bias && n < g.n_out ? *(const u32*)(g.bias + (u64)walk.expert * g.n_out + n) : 0;
            *(u32*)(dynamic + BIAS + t * 4) = pair;
        }
        // The low-rank step brings both of its factors by copies, B as [column][64].
        auto fetch = [&](int step, u32 a, u32 b) {
            if (step < steps) {
                bool inside = step * STEP + chunk * 8 < g.n_in;
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    bool valid = inside && rows[i] != ~0u;
                    const bf16* from = g.a + (valid ? (u64)(rows[i] + step * 8) * 8 : 0);
                    copy_async16(a + swizzled(a_row + 32 * i, chunk), from, valid);
                }
                int line = TRANSPOSED ? step * STEP + b_row : walk.column + b_row;
                int at = TRANSPOSED ? walk.column / 32 + b_at : step * 2 + b_at;
                u64 from = ((u64)walk.expert * lines + line) * wide + at;
                bool valid = line < lines && at < wide;
#pragma unroll
                for (int j = 0; j < 4; j++)
                    copy_async16(b + b_to + swizzled(b_row, b_chunk + j),
                                 (const bf16*)g.blocks + (valid ? from * 32 + j * 8 : 0), valid);
            } else if (step < all_steps) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int r = a_row + 32 * i, n = walk.column + r;
                    bool valid = r < walk.n_rows, valid_n = n < g.n_out;
                    copy_async16(a + swizzled(r, chunk), g.u + (valid ? (u64)(walk.row + r) * 64 + chunk * 8 : 0),
                                 valid);
                    const bf16* from = g.v + (valid_n ? ((u64)walk.expert * g.n_out + n) * 64 + chunk * 8 : 0);
                    copy_async16(b + swizzled(r, chunk), from, valid_n);
                }
            }
            copy_commit();
        };

        float acc[4][16];
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int i = 0; i < 16; i++) acc[m][i] = 0.0f;
        fetch(0, shared, shared + BUFFER);
        copy_wait<0>();
        __syncthreads();
        for (int step = 0; step < all_steps; step++) {
            const u32 now = shared + (step & 1) * 2 * BUFFER, soon = shared + ((step + 1) & 1) * 2 * BUFFER;
            fetch(step + 1, soon, soon + BUFFER);
            if (warp_row < walk.n_rows) {
                if (!TRANSPOSED || step < steps)
                    multiply_step<TRANSPOSED>(acc, now, now + BUFFER, warp_row, warp_column);
                else
                    multiply_step<false>(acc, now, now + BUFFER, warp_row, warp_column);
            }
            copy_wait<0>();
            __syncthreads();
        }
#pragma unroll
        for (int m = 0; m < 4; m++)
            store_block<32>(acc[m], g, staged, bias + warp_column * 2, walk.row + warp_row + m * 16,
                            walk.n_rows - warp_row - m * 16, walk.column + warp_column);
        __syncthreads();
    }
}

GROUPED_KERNELS(THREADS)
