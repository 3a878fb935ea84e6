// Products of a step's rows with packed MXFP4 experts on Hopper where an expert has many rows: the same sums as in
// experts_sm90.cu, in the same order. See experts.cu for the arguments; `early` says that the experts were chosen
// before the kernel before began.
//
// A tile is ROWS rows of an expert and 32 columns. A CTA goes through neighbouring tiles of one group of rows, which
// lie in shared memory, and then of the next: each warp has tiles of its own, whose weights it brings by bulk copies
// into a ring of its own, a piece of the sum at a time. So warps wait for each other only where rows change,
// and what ldmatrix brings of a row serves two products. A row's result depends on that row alone.
//
// Launch: as many CTAs as multiprocessors; dynamic shared memory for all rings and ROWS rows.
#include "grouped.cuh"

#define ROWS TILE_ROWS
#define COLUMNS TILE_COLUMNS
#define BANDS 2  // of 16 columns
#include "tiles_sm90.cuh"

#define STEPS ((CHUNKS + PER - 1) / PER)  // pieces of the sum
#define BAND_BYTES (PER * 4 * TILE_BYTES)
#define BAND_SCALES (PER * 2 * SCALE_PIECE)
#define SCALES_AT (BANDS * BAND_BYTES)
#define RING_BYTES (STAGES * STAGE_BYTES)
#define LOW (RANK > 0)  // whether an adapter may take part
#define LOW_WIDTH (LOW ? RANK : 8)
#define LOW_ROWS (LOW ? ROWS : 1)
#define FACTOR_BYTES (COLUMNS * RANK * 2)
static_assert(STAGE_BYTES % 128 == 0 && STAGE_BYTES >= SCALES_AT + BANDS * BAND_SCALES, "a piece's weights");
static_assert(STAGE_BYTES >= FACTOR_BYTES + COLUMNS * 2, "or a tile's factor and biases");
static_assert(COLUMNS == BANDS * 16, "bands are left operands of mma.sync");
static_assert(THREADS == WARPS * 32, "warps that multiply");
static_assert(ROWS <= 32 && ROWS <= THREADS, "groups that there is a form for");

struct Wide {
    const u8* blocks;
    const u8* scales;
    const bf16* bias;
    const bf16* v;
    bf16* out;
    bf16* h;
    int n_out;
    float limit;
    bool is_adapted;
};

// A warp's ring: what is filled next, and what is read next.
struct Stream {
    u32 memory, full;
    u64 line;            // of the first column of the rows' expert
    int own, whole;      // of this warp's first tile; columns before `whole` are in whole tiles
    int half, end;       // of this warp's half tile; behind the last column
    int column;          // of the tile that is being filled
    int step, stage, phase;

    __device__ __forceinline__ int first_tile() const { return own < whole ? own : half; }
    __device__ __forceinline__ int next_tile(int column) const {
        const int next = column < whole ? column + WARPS * COLUMNS : end;
        return column < whole && next >= whole ? half : next;
    }
    // Brings the next piece into a stage: weights and scales, or, behind a tile's last, factor and biases.
    __device__ __forceinline__ void fill(const Wide& g, int to) {
        if (column >= end) return;
        if ((threadIdx.x & 31) == 0) {
            const u32 at = memory + to * STAGE_BYTES, barrier = full + to * 8;
            if (step < STEPS) {
                const int blocks = min(2 * PER, WIDE - step * 2 * PER), bands = column < whole ? 2 : 1;
                barrier_expect(barrier, bands * blocks * (2 * TILE_BYTES + SCALE_PIECE));
#pragma unroll
                for (int band = 0; band < BANDS; band++) {
                    if (band >= bands) break;
                    const u64 block = ((line + column) / 16 + band) * WIDE + step * 2 * PER;
                    bulk_copy(at + band * BAND_BYTES, g.blocks + block * 2 * TILE_BYTES, blocks * 2 * TILE_BYTES,
                              barrier);
                    bulk_copy(at + SCALES_AT + band * BAND_SCALES, g.scales + block * SCALE_PIECE, blocks * SCALE_PIECE,
                              barrier);
                }
            } else {
                const bool low = LOW && g.is_adapted;
                const int columns = column < whole ? COLUMNS : COLUMNS / 2;
                barrier_expect(barrier, (g.bias ? columns * 2 : 0) + (low ? columns * RANK * 2 : 0));
                if (g.bias) bulk_copy(at + FACTOR_BYTES, g.bias + line + column, columns * 2, barrier);
                if (low) bulk_copy(at, g.v + (line + column) * RANK, columns * RANK * 2, barrier);
            }
        }
        if (++step > STEPS) step = 0, column = next_tile(column);
    }
    __device__ __forceinline__ void wait() const { barrier_wait(full + stage * 8, phase); }
    // Nobody of the warp reads the stage any more.
    __device__ __forceinline__ void next(const Wide& g) {
        __syncwarp();
        fill(g, stage);
        if (++stage == STAGES) stage = 0, phase ^= 1;
    }
};

// A tile of a group of rows, of which there are G times eight at most.
template <int G, int BN>
__device__ __forceinline__ void multiply_tile(const Wide& g, Stream& stream, const u32 (&row_at)[G], const Tile& first,
                                              int column, const bf16 (*lows)[LOW_WIDTH]) {
    const int lane = threadIdx.x & 31, q = lane & 3, odd = lane >> 2 & 1;
    float total[BN][G][4] = {};
#pragma unroll 1
    for (int step = 0; step < STEPS; step++) {
        const u32 from = stream.memory + stream.stage * STAGE_BYTES, at = step * PER * 128;
        float acc[BN][G][2][4] = {};
        stream.wait();
#pragma unroll
        for (int c = 0; c < PER; c++) {
            if (CHUNKS % PER && step * PER + c >= CHUNKS) break;
            u32 words[BN][4];
#pragma unroll
            for (int band = 0; band < BN; band++)
                load_matrices(words[band], from + lane * 16 + band * BAND_BYTES + c * 4 * TILE_BYTES);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                if (WIDE % 2 && (step * PER + c) * 2 + half >= WIDE) break;
                u32 left[BN][2][4];
#pragma unroll
                for (int band = 0; band < BN; band++)
                    left_of(words[band] + half * 2,
                            shared_load(from + SCALES_AT + scale_of_lane() + band * BAND_SCALES +
                                        (c * 2 + half) * SCALE_PIECE),
                            left[band]);
#pragma unroll
                for (int r = 0; r < G; r++) {
                    u32 right[4];
                    load_matrices(right, (row_at[r] ^ half * 64) + at + c * 128);
#pragma unroll
                    for (int band = 0; band < BN; band++) {
                        multiply16_free(acc[band][r][0], left[band][0], right[0], right[1]);
                        multiply16_free(acc[band][r][1], left[band][1], right[2], right[3]);
                    }
                }
            }
        }
        stream.next(g);
#pragma unroll
        for (int band = 0; band < BN; band++)
#pragma unroll
            for (int r = 0; r < G; r++)
#pragma unroll
                for (int i = 0; i < 4; i++) total[band][r][i] += acc[band][r][0][i] + acc[band][r][1][i];
    }
    const u32 factors_at = stream.memory + stream.stage * STAGE_BYTES;
    stream.wait();
#pragma unroll
    for (int r = 0; r < G; r++)
#pragma unroll
        for (int band = 0; band < BN; band++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                // Neighbours have neighbouring columns of two rows; each takes both columns of one row.
                const float* own = total[band][r] + half * 2;
                const float other = __shfl_xor_sync(FULL_WARP, odd ? own[0] : own[1], 4);
                float x = odd ? other : own[0], y = odd ? own[1] : other;
                const int row = r * 8 + q * 2 + odd, in_tile = band * 16 + half * 8 + (lane >> 3) * 2;
                if (row >= first.n_rows) continue;
                if (LOW && g.is_adapted) {
                    const u32 at = factors_at + in_tile * RANK * 2;
                    float dx = 0.0f, dy = 0.0f;
#pragma unroll 1
                    for (int p = 0; p < RANK / 8; p++) {
                        float l[8], fx[8], fy[8];
                        unpack8(*(const uint4*)&lows[row][p * 8], l);
                        unpack8(shared_load16(at + p * 16), fx);
                        unpack8(shared_load16(at + RANK * 2 + p * 16), fy);
#pragma unroll
                        for (int j = 0; j < 8; j++) dx += l[j] * fx[j], dy += l[j] * fy[j];
                    }
                    x += dx, y += dy;
                }
                if (g.bias) {
                    const u32 b = shared_load(factors_at + FACTOR_BYTES + in_tile * 2);
                    x += low_float(b), y += high_float(b);
                }
                const u64 place = first.row + row;
                const int n = column + in_tile;
                if (g.out) *(u32*)(g.out + place * g.n_out + n) = to_bf16x2(x, y);
                if (g.h) g.h[place * (g.n_out / 2) + n / 2] = to_bf16(swiglu(x, y, g.limit));
            }
    stream.next(g);
}

// This warp's tiles of a group, and, where the last round has few, half of one.
template <int G>
__device__ __forceinline__ void multiply_group(const Wide& g, Stream& stream, u32 rows, const Tile& first, int end,
                                               const bf16 (*lows)[LOW_WIDTH]) {
    u32 row_at[G];
#pragma unroll
    for (int r = 0; r < G; r++) row_at[r] = right_at(rows, r, first.n_rows);
    int column = stream.first_tile();
#pragma unroll 1
    for (; column < stream.whole; column = stream.next_tile(column))
        multiply_tile<G, 2>(g, stream, row_at, first, column, lows);
    if (column < end) multiply_tile<G, 1>(g, stream, row_at, first, column, lows);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    step_experts(const bf16* a, const int* pairs, const u8* blocks, const u8* scales, const float*, const bf16* bias,
                 const bf16* u, const bf16* v, const int* expert_offsets, bf16* out, bf16* h, int a_ld, int top_k,
                 int n_experts, int n_out, int n_in, float limit, int early) {
    extern __shared__ __align__(128) u8 memory[];
    __shared__ __align__(8) u64 barriers[WARPS * STAGES];
    __shared__ int offsets[MAX_EXPERTS + 1];
    __shared__ int pair_of[ROWS], row_of[ROWS];
    __shared__ __align__(16) bf16 lows[LOW_ROWS][LOW_WIDTH];
    const int t = threadIdx.x, warp = __shfl_sync(FULL_WARP, t >> 5, 0);
    const u32 full = shared_address(barriers);
    if (t == 0) {
        for (int i = 0; i < WARPS * STAGES; i++) barrier_init(full + i * 8, 1);
        barriers_made();
    }
    // The next kernel may read what was there before this one's wait ended.
    if (!early) wait_for_earlier(), next_may_start();
    for (int i = t; i <= n_experts; i += THREADS) offsets[i] = expert_offsets[i];
    __syncthreads();
    if (early) next_may_start();
    const int all = count_tiles(offsets, n_experts, n_out);
    const int begin = (int)((long long)all * blockIdx.x / gridDim.x);
    int count = (int)((long long)all * (blockIdx.x + 1) / gridDim.x) - begin;
    if (count == 0) return;
    TileOrder order{offsets, n_out};
    order.go(begin, n_experts);
    const u32 rows = shared_address(memory) + WARPS * RING_BYTES;
    const Wide of{blocks, scales, bias, v, out, h, n_out, limit, LOW && u};
    Stream stream{shared_address(memory) + warp * RING_BYTES, full + warp * STAGES * 8};
    bool waits = early;
    while (true) {
        const Tile first = order.tile;
        const int here = min(count, (n_out - first.column) / COLUMNS), end = first.column + here * COLUMNS;
        stream.line = (u64)first.expert * n_out, stream.end = end;
        // Where the last round has tiles for half of the warps at most, all take half of one.
        const int over = here % WARPS;
        const bool halves = over > 0 && over <= WARPS / 2;
        stream.own = first.column + warp * COLUMNS;
        stream.whole = halves ? end - over * COLUMNS : end;
        stream.half = halves ? stream.whole + warp * (COLUMNS / 2) : end;
        stream.column = stream.first_tile();
        stream.step = 0;
        // All stages of the ring are free, whichever is next.
        for (int i = 0; i < STAGES; i++) stream.fill(of, (stream.stage + i) % STAGES);
        if (waits) wait_for_earlier();
        waits = false;
        if (t < first.n_rows) {
            const int place = first.row + t, pair = pairs ? pairs[place] : place;
            pair_of[t] = pair, row_of[t] = pairs ? pair / top_k : place;
        }
        // Nobody reads the rows before any more.
        __syncthreads();
#pragma unroll 4
        for (int i = t; i < first.n_rows * (N_IN / 8); i += THREADS) {
            const int row = i / (N_IN / 8), p = i % (N_IN / 8);
            copy_async16(rows + piece(row, p), a + (u64)row_of[row] * a_ld + p * 8);
        }
        if (LOW && u)
            for (int i = t; i < first.n_rows * (LOW_WIDTH / 8); i += THREADS) {
                const int row = i / (LOW_WIDTH / 8), p = i % (LOW_WIDTH / 8);
                copy_async16(shared_address(lows[row]) + p * 16, u + (u64)pair_of[row] * RANK + p * 8);
            }
        copy_commit();
        copy_wait<0>();
        __syncthreads();
        switch ((first.n_rows + 7) / 8) {
            case 1:
                multiply_group<1>(of, stream, rows, first, end, lows);
                break;
            case 2:
                multiply_group<2>(of, stream, rows, first, end, lows);
                break;
            case 3:
                multiply_group<3>(of, stream, rows, first, end, lows);
                break;
            default:
                multiply_group<4>(of, stream, rows, first, end, lows);
        }
        count -= here;
        // Not behind the last tile: beyond the last expert there are no offsets to stop at.
        if (count == 0) break;
        order.skip(here * COLUMNS);
    }
}
