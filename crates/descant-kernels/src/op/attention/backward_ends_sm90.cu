// Backward of attention for Hopper in one pass: what comes before and after backward_one_sm90.cu.
#include "attention.cuh"
#include "step.cuh"

constexpr int STEP_POSITIONS = SUM_ROWS / GROUP, POSITIONS = QUERY_ROWS / GROUP;
static_assert(HEAD_DIM == 64 && SUM_ROWS == 64, "a tile of sums is that of a warpgroup's product");
static_assert(SUM_THREADS == 128, "a warp has 16 rows of a tile");
static_assert(QUERY_ROWS % 64 == 0, "tiles of queries are those of whole warpgroups, as in forward_sm90.cu");
static_assert(DELTA_THREADS == 8 * DELTA_HEADS && DELTA_ROWS == 8, "eight lanes are a head, and have a row each");

// Each query's product of attention's result and its gradient, summed over a head. out, dout: rows `ld` apart; delta:
// f32 [heads, n_rows]. Grid: (n_rows / DELTA_ROWS, heads / DELTA_HEADS), rounded up.
extern "C" __global__ void __launch_bounds__(DELTA_THREADS)
    attention_delta(const bf16* __restrict__ out, const bf16* __restrict__ dout, float* __restrict__ delta, int ld,
                    int n_rows, int n_heads) {
    follow_closely();
    const int chunk = threadIdx.x & 7, head = blockIdx.y * DELTA_HEADS + threadIdx.x / 8;
    const int first = blockIdx.x * DELTA_ROWS;
    const bool is_head = head < n_heads;
    uint4 a[DELTA_ROWS], b[DELTA_ROWS];
#pragma unroll
    for (int i = 0; i < DELTA_ROWS; i++) {
        const u64 at = (u64)min(first + i, n_rows - 1) * ld + (is_head ? head : 0) * HEAD_DIM + chunk * 8;
        a[i] = load16(out + at);
        b[i] = load16(dout + at);
    }
    float mine = 0.0f;
#pragma unroll
    for (int i = 0; i < DELTA_ROWS; i++) {
        float x[8];
        unpack8(a[i], x);
        float sum = dot8(x, b[i]);
        sum += __shfl_xor_sync(FULL_WARP, sum, 1);
        sum += __shfl_xor_sync(FULL_WARP, sum, 2);
        sum += __shfl_xor_sync(FULL_WARP, sum, 4);
        if (chunk == i) mine = sum;
    }
    if (is_head && first + chunk < n_rows) delta[(u64)head * n_rows + first + chunk] = mine;
}

// The queries' sums, in the order of backward_one_sm90.cu, to bf16 rows. Tiles of queries: those of the forward.
// Grid: (key heads, tiles).
extern "C" __global__ void __launch_bounds__(SUM_THREADS)
    attention_queries(const float* __restrict__ sums, bf16* __restrict__ dq, const int* __restrict__ tiles, int dq_ld,
                      float scale, int n_tiles) {
    follow_closely();
    __shared__ __align__(1024) u8 staged[SUM_ROWS * 128];
    const u32 to = shared_address(staged);
    const int kv = blockIdx.x, lane = threadIdx.x & 31, row0 = threadIdx.x / 32 * 16, row = row0 + lane / 4;
    const Tile tile = read_tile(tiles, blockIdx.y);
    const int end = min(tile.first + POSITIONS, tile.query_len);
    const u64 first_place = (u64)kv * n_tiles + tile.query_start / STEP_POSITIONS + tile.segment;
    // Those that begin in this tile.
    for (int t = (tile.first + STEP_POSITIONS - 1) / STEP_POSITIONS; t * STEP_POSITIONS < end; t++) {
        const float* from = sums + (first_place + t) * (SUM_ROWS * HEAD_DIM) + threadIdx.x * 4;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float4 x = *reinterpret_cast<const float4*>(from + n * 512);
            shared_store(to + swizzled(row, n) + (lane & 3) * 4, to_bf16x2(x.x * scale, x.y * scale));
            shared_store(to + swizzled(row + 8, n) + (lane & 3) * 4, to_bf16x2(x.z * scale, x.w * scale));
        }
        __syncwarp();
        store_queries<16>(dq + (u64)tile.query_start * dq_ld + kv * GROUP * HEAD_DIM, dq_ld, to, row0, STEP_POSITIONS,
                          t * STEP_POSITIONS, tile.query_len, lane);
        __syncwarp();
    }
}
