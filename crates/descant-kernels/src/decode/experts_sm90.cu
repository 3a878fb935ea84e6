// Products of a step's rows with packed MXFP4 experts on Hopper: what experts.cu computes, with the weights brought by
// bulk copies. See there for the arguments; `early` says that the experts were chosen before the kernel before began.
//
// A tile is ROWS rows of an expert and 16 columns, whose packed weights are one piece of memory. A CTA goes through
// neighbouring tiles: each of STAGES warps has a stage of a ring, fills it, and when the other warps have multiplied
// what is there, adds their sums in order of the warps, finishes the tile and fills the stage anew. So loads never
// stop, and nobody waits for the end of a tile but who makes it. Weights are the left operand of mma.sync. A row's
// result depends on that row alone.
//
// Launch: as many CTAs as multiprocessors; dynamic shared memory for STAGES stages and the most rows of an expert up to
// ROWS.
#include "grouped.cuh"

#define ROWS TILE_ROWS
#define COLUMNS TILE_COLUMNS
#define CHAINS WARPS
#include "tiles_sm90.cuh"

#define BLOCK_BYTES (COLUMNS * WIDE * 16)
#define SCALE_BYTES (COLUMNS * WIDE)
#define BIAS_AT (BLOCK_BYTES + SCALE_BYTES)
#define FACTOR_AT (BIAS_AT + COLUMNS * 2)
#define LOW (RANK > 0)  // whether an adapter may take part
#define SUMS (WARPS * COLUMNS * ROWS)
#define FIRST 8  // pairs that are brought with the offsets: all of one token
static_assert(STAGE_BYTES == ((FACTOR_AT + COLUMNS * RANK * 2 + 127) & ~127), "a tile's weights, biases and factor");
static_assert(ROWS == 8 && COLUMNS == 16, "operands of mma.sync");
static_assert(THREADS == (WARPS + STAGES) * 32, "warps that multiply, and one for each stage");

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    step_experts(const bf16* a, const int* pairs, const u8* blocks, const u8* scales, const float*, const bf16* bias,
                 const bf16* u, const bf16* v, const int* expert_offsets, bf16* out, bf16* h, int a_ld, int top_k,
                 int n_experts, int n_out, int n_in, float limit, int early) {
    extern __shared__ __align__(128) u8 memory[];
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    __shared__ int offsets[MAX_EXPERTS + 1];
    __shared__ int first_pairs[FIRST], pair_of[ROWS];
    __shared__ __align__(16) float sums[STAGES][SUMS];
    __shared__ __align__(16) bf16 lows[2][ROWS][LOW ? RANK : 8];
    const int t = threadIdx.x, lane = t & 31, warp = __shfl_sync(FULL_WARP, t >> 5, 0), g = lane >> 2, q = lane & 3;
    const u32 full = shared_address(barriers), done = full + STAGES * 8;
    if (t == 0) {
        for (int i = 0; i < STAGES; i++) barrier_init(full + i * 8, 1), barrier_init(done + i * 8, WARPS);
        barriers_made();
    }
    // The next kernel may read what was there before this one's wait ended.
    if (!early) wait_for_earlier(), next_may_start();
    for (int i = t; i <= n_experts; i += THREADS) offsets[i] = expert_offsets[i];
    if (pairs && t < min(top_k, FIRST)) first_pairs[t] = pairs[t];
    __syncthreads();
    if (early) next_may_start();
    const int all = count_tiles(offsets, n_experts, n_out);
    const int begin = (int)((long long)all * blockIdx.x / gridDim.x);
    const int count = (int)((long long)all * (blockIdx.x + 1) / gridDim.x) - begin;
    if (count == 0) return;
    TileOrder order{offsets, n_out};
    order.go(begin, n_experts);
    const u32 rows = shared_address(memory + STAGES * STAGE_BYTES);

    if (warp < WARPS) {
        if (early) wait_for_earlier();
        int staged = -1;
        for (int i = 0; i < count; i++) {
            // Not behind the last tile: beyond the last expert there are no offsets to stop at.
            if (i > 0) order.next();
            const Tile tile = order.tile;
            if (staged != tile.row) {
                if (t < tile.n_rows) {
                    const int place = tile.row + t;
                    pair_of[t] = !pairs ? place : place < min(top_k, FIRST) ? first_pairs[place] : pairs[place];
                }
                threads_sync(1, WARPS * 32);
#pragma unroll 1
                for (int row = 0; row < tile.n_rows; row++) {
                    const bf16* from = a + (u64)(pairs ? pair_of[row] / top_k : pair_of[row]) * a_ld;
                    for (int p = t; p < N_IN / 8; p += WARPS * 32) copy_async16(rows + piece(row, p), from + p * 8);
                    // Low-rank rows for two groups in turn: who finishes tiles is fewer of them behind than a group
                    // has.
                    if (LOW && u && t < RANK / 8)
                        copy_async16(shared_address(lows[order.group & 1][row]) + t * 16,
                                     u + (u64)pair_of[row] * RANK + t * 8);
                }
                copy_commit();
                copy_wait<0>();
                threads_sync(1, WARPS * 32);
                staged = tile.row;
            }
            const int stage = i % STAGES;
            const u32 from = shared_address(memory) + stage * STAGE_BYTES;
            float acc[2][4] = {};
            const u32 row_at = right_at(rows, 0, tile.n_rows);
            barrier_wait(full + stage * 8, i / STAGES & 1);
#pragma unroll
            for (int c = 0; c < PER; c++) {
                const int chunk = warp * PER + c;
                if (chunk >= CHUNKS) break;
                u32 words[4];
                load_matrices(words, from + lane * 16 + chunk * 4 * TILE_BYTES);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    if (WIDE % 2 && chunk * 2 + half >= WIDE) break;
                    const u32 scales =
                        shared_load(from + BLOCK_BYTES + scale_of_lane() + (chunk * 2 + half) * SCALE_PIECE);
                    u32 left[2][4], right[4];
                    left_of(words + half * 2, scales, left);
                    load_matrices(right, (row_at ^ half * 64) + chunk * 128);
                    multiply16_free(acc[0], left[0], right[0], right[1]);
                    multiply16_free(acc[1], left[1], right[2], right[3]);
                }
            }
            float* to = sums[stage] + warp * COLUMNS * 8 + g * 8 + q * 2;
            *(float2*)to = make_float2(acc[0][0] + acc[1][0], acc[0][1] + acc[1][1]);
            *(float2*)(to + 64) = make_float2(acc[0][2] + acc[1][2], acc[0][3] + acc[1][3]);
            barrier_arrive_warp(done + stage * 8);
        }
        return;
    }

    const int stage = warp - WARPS;
    if (stage >= count) return;
    const u32 slot = shared_address(memory) + stage * STAGE_BYTES, barrier = full + stage * 8;
    auto fill = [&](const Tile& tile) {
        const u64 line = (u64)tile.expert * n_out + tile.column;
        barrier_expect(barrier,
                       BLOCK_BYTES + SCALE_BYTES + (bias ? COLUMNS * 2 : 0) + (LOW && u ? COLUMNS * RANK * 2 : 0));
        bulk_copy(slot, blocks + line * WIDE * 16, BLOCK_BYTES, barrier);
        bulk_copy(slot + BLOCK_BYTES, scales + line * WIDE, SCALE_BYTES, barrier);
        if (bias) bulk_copy(slot + BIAS_AT, bias + line, COLUMNS * 2, barrier);
        if (LOW && u) bulk_copy(slot + FACTOR_AT, v + line * RANK, COLUMNS * RANK * 2, barrier);
    };
    for (int i = 0; i < stage; i++) order.next();
    if (lane == 0) fill(order.tile);
    if (early) wait_for_earlier();
    for (int i = stage; i < count; i += STAGES) {
        const Tile tile = order.tile;
        const auto low = lows[order.group & 1];
        const bool goes_on = i + STAGES < count;
        for (int k = 0; goes_on && k < STAGES; k++) order.next();
        barrier_wait(done + stage * 8, i / STAGES & 1);
        // A lane makes two neighbouring columns of one row.
        for (int k = lane; k < COLUMNS / 2 * ROWS; k += 32) {
            const int row = k & 7, pair = k >> 3;
            if (row >= tile.n_rows) continue;
            const float* from = sums[stage] + pair * 16 + row;
            float x = 0.0f, y = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) {
                x += from[w * COLUMNS * ROWS];
                y += from[w * COLUMNS * ROWS + 8];
            }
            const u64 place = tile.row + row;
            if (LOW && u) {
                const u8* factors = memory + stage * STAGE_BYTES + FACTOR_AT + pair * 2 * RANK * 2;
                float dx = 0.0f, dy = 0.0f;
#pragma unroll 2
                for (int p = 0; p < RANK / 8; p++) {
                    float l[8], fx[8], fy[8];
                    unpack8(*(const uint4*)&low[row][p * 8], l);
                    unpack8(*(const uint4*)(factors + p * 16), fx);
                    unpack8(*(const uint4*)(factors + RANK * 2 + p * 16), fy);
#pragma unroll
                    for (int j = 0; j < 8; j++) dx += l[j] * fx[j], dy += l[j] * fy[j];
                }
                x += dx, y += dy;
            }
            if (bias) {
                const u32 b = shared_load(slot + BIAS_AT + pair * 4);
                x += low_float(b), y += high_float(b);
            }
            const int n = tile.column + pair * 2;
            if (out) *(u32*)(out + place * n_out + n) = to_bf16x2(x, y);
            if (h) h[place * (n_out / 2) + n / 2] = to_bf16(swiglu(x, y, limit));
        }
        __syncwarp();
        if (lane == 0 && goes_on) fill(order.tile);
    }
}
