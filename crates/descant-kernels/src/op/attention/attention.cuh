// What the attention kernels share: the work list, rows of query heads, swizzled tiles, fragments of mma.sync.
//
// The GROUP query heads that read one key head are stacked into one matrix: row r is position r / GROUP and head
// r % GROUP. A window then wastes little (16 positions of 8 heads see 143 keys, 128 positions of one head 255), and
// decoding fills a tile with heads. HEAD_DIM (16, 32, 64) and GROUP (1 to 64) are constants of the compilation, and so
// are threads, shared memory and rows of tiles (geometry.rs).
#pragma once
#include "common.cuh"
#include "mma.cuh"

constexpr int CHUNKS = HEAD_DIM / 8;      // 16-byte pieces of a row
constexpr int STEPS = HEAD_DIM / 16;      // mma steps over a row
constexpr int ROW_BYTES = HEAD_DIM * 2;
constexpr float LOG2E = 1.4426950408889634f;
#define INFINITY_F __int_as_float(0x7f800000)
static_assert(HEAD_DIM == 16 || HEAD_DIM == 32 || HEAD_DIM == 64, "a row is 32, 64 or 128 bytes");
static_assert(TILE_INTS == 8, "struct Tile and what fills it up");
static_assert(GROUP >= 1 && GROUP <= 64, "a block of 64 rows holds at least one position");

// An entry of the work list, made by the host from the segments: a tile of queries (forward, dq) or of keys
// (dk, dv). Query i of a segment has position key_len - query_len + i among its keys.
struct Tile {
    int query_start, query_len, key_start, key_len;
    int first;  // the tile's first query or key, counted from the segment's first
    int split;  // of keys, on other cards than Hopper: a tile has KEY_ROWS / split of them; of strips, their positions
    int segment;  // the segment's number
};
__device__ __forceinline__ Tile read_tile(const int* tiles, int index) {
    int4 a = *reinterpret_cast<const int4*>(tiles + TILE_INTS * index);
    return {
        a.x, a.y, a.z, a.w, tiles[TILE_INTS * index + 4], tiles[TILE_INTS * index + 5], tiles[TILE_INTS * index + 6]};
}
// The same at another time, so that nothing of it has a register in between.
__device__ __forceinline__ Tile read_tile(const volatile int* tiles, int index) {
    const volatile int* at = tiles + TILE_INTS * index;
    return {at[0], at[1], at[2], at[3], at[4], at[5], at[6]};
}

// Where a 16-byte chunk of a row lies: eight rows read at one column touch all banks. At 128-byte rows this is also
// the 128-byte swizzle of wgmma.
__device__ __forceinline__ u32 swizzled(int row, int chunk) {
    if (CHUNKS == 8) return row * 128 + ((chunk ^ (row & 7)) << 4);
    if (CHUNKS == 4) return row * 64 + ((chunk ^ ((row >> 1) & 3)) << 4);
    return row * 32 + ((chunk ^ ((row >> 2) & 1)) << 4);
}

// `ROWS` rows of one head from row `first`, zeros from row `end`; `thread` of `BLOCK`.
template <int ROWS, int BLOCK>
__device__ __forceinline__ void load_keys(u32 to, const bf16* from, int ld, int first, int end, int thread) {
#pragma unroll
    for (int i = 0; i < (ROWS * CHUNKS + BLOCK - 1) / BLOCK; i++) {
        int at = thread + i * BLOCK, row = at / CHUNKS, chunk = at % CHUNKS;
        if ((ROWS * CHUNKS) % BLOCK != 0 && row >= ROWS) break;
        bool valid = first + row < end;
        copy_async16(to + swizzled(row, chunk), from + (valid ? (u64)(first + row) * ld : 0) + chunk * 8, valid);
    }
}
// `ROWS` stacked rows of a group of heads from position row `first`, zeros from row `end` and behind the last whole
// position.
template <int ROWS, int BLOCK>
__device__ __forceinline__ void load_queries(u32 to, const bf16* from, int ld, int first, int end, int thread) {
#pragma unroll
    for (int i = 0; i < (ROWS * CHUNKS + BLOCK - 1) / BLOCK; i++) {
        int at = thread + i * BLOCK, row = at / CHUNKS, chunk = at % CHUNKS;
        if ((ROWS * CHUNKS) % BLOCK != 0 && row >= ROWS) break;
        int position = row / GROUP, head = row % GROUP;
        bool valid = position < ROWS / GROUP && first + position < end;
        copy_async16(to + swizzled(row, chunk),
                     from + (valid ? (u64)(first + position) * ld + head * HEAD_DIM : 0) + chunk * 8, valid);
    }
}

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// Fragments. `row` is a multiple of 8 and counts from a tile at whole 128 bytes, so that a lane's place in it is the
// same for all rows, and a step changes two bits of it.
//
// A, 16 rows by 16 columns from `row`, `16 * step`.
__device__ __forceinline__ void load_a(u32 (&a)[4], u32 tile, int row, int step, int lane) {
    load_matrices(a, tile + swizzled(row + (lane & 15), step * 2 + (lane >> 4)));
}
// B for two blocks of 8 result columns: stored rows are result columns (K for Q K^T).
__device__ __forceinline__ void load_b(u32 (&b)[4], u32 tile, int row, int step, int lane) {
    const u32 place = swizzled((lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
    load_matrices(b, ((tile + place) ^ (step << 5)) + row * ROW_BYTES);
}
// B for two blocks of 8 result columns: stored rows are summed over (V for P V).
__device__ __forceinline__ void load_b_transposed(u32 (&b)[4], u32 tile, int row, int pair, int lane) {
    load_matrices_transposed(b, ((tile + swizzled(lane & 15, lane >> 4)) ^ (pair << 5)) + row * ROW_BYTES);
}
// Adds 32 rows of P or of dS, 16 columns wide, times the rows of a tile from `row` on.
__device__ __forceinline__ void add_product(float (&acc)[2][CHUNKS][4], const u32 (&left)[2][4], u32 tile, int row,
                                            int lane) {
#pragma unroll
    for (int c = 0; c < CHUNKS / 2; c++) {
        u32 b[4];
        load_b_transposed(b, tile, row, c, lane);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            multiply16(acc[m][2 * c], left[m], b[0], b[1]);
            multiply16(acc[m][2 * c + 1], left[m], b[2], b[3]);
        }
    }
}
// Sum over the four lanes that hold a row of a result.
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(FULL_WARP, x, 1);
    return x + __shfl_xor_sync(FULL_WARP, x, 2);
}
__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 1));
    return fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 2));
}
// A warp's results, 32 rows by HEAD_DIM in mma layout, into its rows of a swizzled tile as bf16.
__device__ __forceinline__ void stage(u32 tile, int row0, const float (&x)[2][CHUNKS][4], int lane, float by = 1.0f) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < CHUNKS; n++)
#pragma unroll
            for (int h = 0; h < 2; h++)
                shared_store(tile + swizzled(row0 + m * 16 + h * 8 + lane / 4, n) + (lane & 3) * 4,
                             to_bf16x2(x[m][n][2 * h] * by, x[m][n][2 * h + 1] * by));
}
// `ROWS` staged stacked rows from `row0` of the tile to their places; the lanes of one warp.
template <int ROWS>
__device__ __forceinline__ void store_queries(bf16* to, int ld, u32 tile, int row0, int positions, int first, int end,
                                              int lane) {
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS / 32; i++) {
        int at = lane + i * 32, row = row0 + at / CHUNKS, chunk = at % CHUNKS;
        int position = row / GROUP, head = row % GROUP;
        if (position < positions && first + position < end)
            *reinterpret_cast<uint4*>(to + (u64)(first + position) * ld + head * HEAD_DIM + chunk * 8) =
                shared_load16(tile + swizzled(row, chunk));
    }
}
