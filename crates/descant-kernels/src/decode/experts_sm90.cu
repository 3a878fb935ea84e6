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
#include "mma.cuh"
#include "sm90.cuh"
#include "step.cuh"

#define COLUMNS 16
#define ROWS (8 * GROUPS)
#define WIDE (N_IN / 32)  // blocks of a line
#define CHUNKS ((WIDE + 1) / 2)  // of two blocks
#define PER ((CHUNKS + WARPS - 1) / WARPS)  // chunks of a warp
#define BLOCK_BYTES (COLUMNS * WIDE * 16)
#define SCALE_BYTES (COLUMNS * WIDE)
#define BIAS_AT (BLOCK_BYTES + SCALE_BYTES)
#define FACTOR_AT (BIAS_AT + COLUMNS * 2)
#define LOW (RANK > 0)  // whether an adapter may take part
#define SUMS (WARPS * GROUPS * COLUMNS * 8)
static_assert(STAGE_BYTES == ((FACTOR_AT + COLUMNS * RANK * 2 + 127) & ~127), "a tile's weights, biases and factor");
static_assert(ROW_BYTES == CHUNKS * 128, "whole chunks, zeros behind the last number");
static_assert(THREADS == (WARPS + STAGES) * 32, "warps that multiply, and one for each stage");
static_assert(N_IN % 32 == 0, "numbers come in blocks");

// Rows of one expert, and the first of their columns.
struct Tile {
    int expert, row, n_rows, column;
};

// The tiles of all experts in one order: the columns of a group of rows follow each other.
struct TileOrder {
    const int* offsets;
    int n_out;
    Tile tile;
    int group;  // of rows, counted from the first

    __device__ __forceinline__ int groups(int expert) const {
        return (offsets[expert + 1] - offsets[expert] + ROWS - 1) / ROWS;
    }
    // A warp: goes to tile `first`, which there is.
    __device__ __forceinline__ void go(int first, int n_experts) {
        const int lane = threadIdx.x & 31, across = n_out / COLUMNS;
        int group = first / across, expert = 0;
        for (int base = 0; base < n_experts; base += 32) {
            const int here = base + lane < n_experts ? groups(base + lane) : 0;
            int sum = here;
#pragma unroll
            for (int distance = 1; distance < 32; distance *= 2) {
                const int other = __shfl_up_sync(FULL_WARP, sum, distance);
                if (lane >= distance) sum += other;
            }
            const u32 found = __ballot_sync(FULL_WARP, group < sum);
            if (found) {
                const int at = __ffs(found) - 1;
                expert = base + at;
                group -= __shfl_sync(FULL_WARP, sum - here, at);
                break;
            }
            group -= __shfl_sync(FULL_WARP, sum, 31);
        }
        const int row = offsets[expert] + group * ROWS;
        tile = {expert, row, min(ROWS, offsets[expert + 1] - row), first % across * COLUMNS};
        this->group = 0;
    }
    // To the next tile, which there is.
    __device__ __forceinline__ void next() {
        tile.column += COLUMNS;
        if (tile.column < n_out) return;
        tile.column = 0, tile.row += tile.n_rows, group++;
        while (tile.row >= offsets[tile.expert + 1]) tile.expert++;
        tile.n_rows = min(ROWS, offsets[tile.expert + 1] - tile.row);
    }
};

// Where 16-byte piece p of a staged row is: four are a block of 32 numbers, and lanes that read together, of two rows,
// read different banks.
__device__ __forceinline__ int piece(int row, int p) { return row * ROW_BYTES + (p ^ (row & 1) << 2) * 16; }

extern "C" __global__ void __launch_bounds__(THREADS, GROUPS == 1 ? 2 : 1)
    step_experts(const bf16* a, const int* pairs, const u8* blocks, const u8* scales, const float*, const bf16* bias,
                 const bf16* u, const bf16* v, const int* expert_offsets, bf16* out, bf16* h, int a_ld, int top_k,
                 int n_experts, int n_out, int n_in, float limit, int early) {
    extern __shared__ __align__(128) u8 memory[];
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    __shared__ int offsets[MAX_EXPERTS + 1];
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
    __syncthreads();
    if (early) next_may_start();
    int all = 0;
    for (int base = 0; base < n_experts; base += 32) {
        const int e = base + lane;
        all += __reduce_add_sync(FULL_WARP, e < n_experts ? (offsets[e + 1] - offsets[e] + ROWS - 1) / ROWS : 0);
    }
    all *= n_out / COLUMNS;
    const int begin = (int)((long long)all * blockIdx.x / gridDim.x);
    const int count = (int)((long long)all * (blockIdx.x + 1) / gridDim.x) - begin;
    if (count == 0) return;
    TileOrder order{offsets, n_out};
    order.go(begin, n_experts);
    u8* rows = memory + STAGES * STAGE_BYTES;

    if (warp < WARPS) {
        if (early) wait_for_earlier();
        int staged = -1;
        for (int i = 0; i < count; i++) {
            // Not behind the last tile: beyond the last expert there are no offsets to stop at.
            if (i > 0) order.next();
            const Tile tile = order.tile;
            if (staged != tile.row) {
                threads_sync(1, WARPS * 32);
                for (int row = 0; row < tile.n_rows; row++) {
                    const int place = tile.row + row;
                    const bf16* from = a + (u64)(pairs ? pairs[place] / top_k : place) * a_ld;
                    for (int p = t; p < ROW_BYTES / 16; p += WARPS * 32) {
                        // Of a block, what lane q of a product has: numbers 2q, 2q + 1, and 8, 16 and 24 further.
                        u32 x[4];
#pragma unroll
                        for (int i = 0; i < 4; i++) {
                            const int at = p / 4 * 32 + i * 8 + p % 4 * 2;
                            x[i] = at < N_IN ? *(const u32*)(from + at) : 0;
                        }
                        *(uint4*)(rows + piece(row, p)) = make_uint4(x[0], x[1], x[2], x[3]);
                    }
                    // Low-rank rows for two groups in turn: who finishes tiles is fewer of them behind than a group
                    // has.
                    if (LOW && u && t < RANK / 8)
                        ((uint4*)lows[order.group & 1][row])[t] =
                            load16(u + (u64)(pairs ? pairs[place] : place) * RANK + t * 8);
                }
                threads_sync(1, WARPS * 32);
                staged = tile.row;
            }
            const int stage = i % STAGES;
            const u8* from = memory + stage * STAGE_BYTES;
            float acc[GROUPS][2][4] = {};
            int row_at[GROUPS];
            // A row that is not there makes a column of sums that nobody reads.
#pragma unroll
            for (int r = 0; r < GROUPS; r++) row_at[r] = piece(min(r * 8 + g, tile.n_rows - 1), q);
            barrier_wait(full + stage * 8, i / STAGES & 1);
            const u32 tiles = shared_address(from) + lane * 16, scales_at = BLOCK_BYTES + g / 2 * 4;
            const u32 select = 0x4040 + (g & 1) * 0x0101;
// Not all of them at once: the block must fit beside another kernel's.
#pragma unroll 2
            for (int c = 0; c < PER; c++) {
                const int chunk = warp + c * WARPS;
                if (chunk >= CHUNKS) break;
                u32 words[4];
                load_matrices(words, tiles + chunk * 4 * TILE_BYTES);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    if (WIDE % 2 && chunk * 2 + half >= WIDE) break;
                    const u32 scales = *(const u32*)(from + scales_at + (chunk * 2 + half) * SCALE_PIECE);
                    const u32 upper = factors(scales, select), lower = factors(scales, select + 0x0202);
                    u32 left[2][4];
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        spread(words[half * 2 + j], left[j]);
#pragma unroll
                        for (int k = 0; k < 4; k++) left[j][k] = multiply_bf16x2(left[j][k], k % 2 ? lower : upper);
                    }
#pragma unroll
                    for (int r = 0; r < GROUPS; r++) {
                        if (r && r * 8 >= tile.n_rows) break;
                        const uint4 z = *(const uint4*)(rows + (row_at[r] ^ half * 64) + chunk * 128);
                        multiply16_free(acc[r][0], left[0], z.x, z.y);
                        multiply16_free(acc[r][1], left[1], z.z, z.w);
                    }
                }
            }
#pragma unroll
            for (int r = 0; r < GROUPS; r++) {
                float* to = sums[stage] + (warp * GROUPS + r) * COLUMNS * 8 + g * 8 + q * 2;
                *(float2*)to = make_float2(acc[r][0][0] + acc[r][1][0], acc[r][0][1] + acc[r][1][1]);
                *(float2*)(to + 64) = make_float2(acc[r][0][2] + acc[r][1][2], acc[r][0][3] + acc[r][1][3]);
            }
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
        for (int k = lane; k < 64 * GROUPS; k += 32) {
            const int row = (k & 7) + (k >> 6) * 8, pair = k >> 3 & 7;
            if (row >= tile.n_rows) continue;
            const float* from = sums[stage] + (k >> 6) * COLUMNS * 8 + pair * 16 + (k & 7);
            float x = 0.0f, y = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) {
                x += from[w * GROUPS * COLUMNS * 8];
                y += from[w * GROUPS * COLUMNS * 8 + 8];
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
