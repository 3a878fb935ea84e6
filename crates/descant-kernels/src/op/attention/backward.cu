// Backward of attention, for every card since Ampere: one pass over queries for dq, one over keys for dk and dv.
//
// Probabilities come back from the log-sum-exp (which holds the sink). Two passes compute the scores twice (7 products
// for 5), and in return nothing is added across blocks: no atomics, no order to enforce, no f32 copy of dq, and P and
// dS never leave registers. Dao 2023, "FlashAttention-2", with the loops split. The dq pass comes first: it writes
// delta = rowsum(dout * out), which the other reads.
//
// Rows that stay are in registers, those that pass come by asynchronous copies, 64 a step; 48 KB of shared memory, so
// that two blocks fit a multiprocessor of every card. Exponentials are between the products of dP, which do not need
// them.
#include "attention.cuh"

constexpr int ROWS = QUERY_ROWS;
constexpr int POSITIONS = ROWS / GROUP;
constexpr int STEP = 64;     // keys of a step of the dq pass, stacked rows of one of the dk, dv pass
constexpr int UNIT = 32;     // of the former that are computed at once, so that all fragments stay in registers
constexpr int STEP_POSITIONS = STEP / GROUP;
constexpr int STAGES = 3;
constexpr u32 TILE_BYTES = STEP * ROW_BYTES, STAGE = 2 * TILE_BYTES;
static_assert(THREADS == ROWS && KEY_ROWS == ROWS, "a warp has 32 rows, of queries or of keys");
static_assert(SHARED_OF_FEATURE == STAGES * 2 * STEP * 2 && 2 * STEP == ROWS, "three stages; two hold what stays");

// What the dk, dv pass needs once a step: where copies come from, and which steps there are. It waits in shared memory,
// where values were, because fragments and sums leave no registers.
struct Given {
    const bf16 *q, *dout;
    const float* numbers[2];  // lse and delta of the first head and the sequence's first query
    int begin, end, steps, position;  // queries, and the first one's position among the keys
};
static_assert(sizeof(Given) == 48, "three pieces of 16 bytes");
// Where the compiler has fewer registers for addresses, the loop's own bounds are read from there as well.
#if __CUDA_ARCH__ >= 1000
constexpr bool BOUNDS_WAIT = true;
#else
constexpr bool BOUNDS_WAIT = false;
#endif

// dq = scale * dS K with dS = P * (dout v - delta); also delta[h, t] = rowsum(dout * out).
//
// q [*, q_ld], k, v [*, kv_ld], out [*, out_ld], dout [*, dout_ld], lse f32 [heads, n_rows] as the forward;
// dq [*, dq_ld]; delta f32 [heads, n_rows]. tiles: of queries, as the forward's.
// Grid (key heads, tiles).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_backward_q(const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
                         const bf16* __restrict__ out, const bf16* __restrict__ dout, const float* __restrict__ lse,
                         bf16* __restrict__ dq, float* __restrict__ delta, const int* __restrict__ tiles, int q_ld,
                         int kv_ld, int out_ld, int dout_ld, int dq_ld, int n_rows, int window, float scale) {
    extern __shared__ __align__(1024) u8 shared[];
    __shared__ float deltas[ROWS], lses[ROWS];
    const u32 ring = shared_address(shared), q_tile = ring + STAGE, do_tile = q_tile + STAGE;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row0 = warp * 32;
    const int kv = blockIdx.x;
    const Tile tile = read_tile(tiles, blockIdx.y);
    const int offset = tile.key_len - tile.query_len;
    const int last = min(tile.first + POSITIONS, tile.query_len) - 1 + offset;
    const int low = window > 0 ? max(0, tile.first + offset - window + 1) : 0;
    const int steps = (last + 1 - low + STEP - 1) / STEP;
    const u32 column = kv * GROUP * HEAD_DIM;
    k += (u64)tile.key_start * kv_ld + kv * HEAD_DIM;
    v += (u64)tile.key_start * kv_ld + kv * HEAD_DIM;
    out += (u64)tile.query_start * out_ld + column;
    const float factor = scale * LOG2E;
    const u32 span = window > 0 ? window : 0x7fffffff;  // keys that a query sees

    auto has = [&](int row) { return row / GROUP < POSITIONS && tile.first + row / GROUP < tile.query_len; };

    load_queries<ROWS, THREADS>(q_tile, q + (u64)tile.query_start * q_ld + column, q_ld, tile.first, tile.query_len,
                                threadIdx.x);
    load_queries<ROWS, THREADS>(do_tile, dout + (u64)tile.query_start * dout_ld + column, dout_ld, tile.first,
                                tile.query_len, threadIdx.x);
    const int mine = threadIdx.x;
    const u32 at_mine = (u32)(kv * GROUP + mine % GROUP) * n_rows + tile.query_start + tile.first + mine / GROUP;
    copy_async4(shared_address(lses + mine), lse + (has(mine) ? at_mine : 0), has(mine));
    copy_commit();
    auto fetch = [&](int step, int slot) {
        if (step < steps) {
            const u32 to = ring + slot * STAGE;
            load_keys<STEP, THREADS>(to, k, kv_ld, low + step * STEP, last + 1, threadIdx.x);
            load_keys<STEP, THREADS>(to + TILE_BYTES, v, kv_ld, low + step * STEP, last + 1, threadIdx.x);
        }
        copy_commit();
    };
    fetch(0, 0);
    // What else comes from device memory is on its way meanwhile: a window's tiles have little to do but wait. The
    // lanes of a row have a chunk each.
    auto row_of = [&](int i) { return (threadIdx.x + i * THREADS) / CHUNKS; };
    const int chunk = threadIdx.x % CHUNKS;
    static_assert(THREADS % CHUNKS == 0, "of all of a thread's rows");
    uint4 outs[CHUNKS];
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const int row = row_of(i), query = tile.first + row / GROUP;
        outs[i] =
            has(row) ? load16(out + (u64)query * out_ld + row % GROUP * HEAD_DIM + chunk * 8) : make_uint4(0, 0, 0, 0);
    }
    copy_wait<1>();
    __syncthreads();

#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const int row = row_of(i), query = tile.first + row / GROUP;
        float a[8];
        unpack8(shared_load16(do_tile + swizzled(row, chunk)), a);
        float x = dot8(a, outs[i]);
#pragma unroll
        for (int mask = 1; mask < CHUNKS; mask <<= 1) x += __shfl_xor_sync(FULL_WARP, x, mask);
        if (chunk == 0) {
            deltas[row] = x;
            if (has(row)) delta[(u64)(kv * GROUP + row % GROUP) * n_rows + tile.query_start + query] = x;
        }
    }
    u32 qf[2][STEPS][4], dof[2][STEPS][4];
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            load_a(qf[m][s], q_tile, row0 + m * 16, s, lane);
            load_a(dof[m][s], do_tile, row0 + m * 16, s, lane);
        }
    __syncthreads();
    fetch(1, 1);
    float lse2[2][2], less[2][4];  // less: minus delta, where dP begins
    int position[2][2];
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = row0 + m * 16 + h * 8 + lane / 4;
            // A row that is not there has probability zero.
            lse2[m][h] = has(row) ? lses[row] : INFINITY_F;
            less[m][2 * h] = less[m][2 * h + 1] = -deltas[row];
            // Of rows that follow each other at a multiple of 8.
            position[m][h] = tile.first + offset + (row - (GROUP % 8 == 0 ? lane / 4 : 0)) / GROUP;
        }
    float acc[2][CHUNKS][4] = {};

    int slot = 0;
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
        const int key0 = low + step * STEP;
        const u32 k_tile = ring + slot * STAGE;  // values are the rows behind it
        copy_wait<1>();
        __syncthreads();
        fetch(step + 2, slot == 0 ? STAGES - 1 : slot - 1);
        slot = slot + 1 == STAGES ? 0 : slot + 1;
        const bool mask = key0 + STEP - 1 > tile.first + offset || (window > 0 && key0 <= last - window);
        auto unit = [&](int first, auto masked) {
            constexpr int N = UNIT / 8;
            const u32 at = k_tile + first * ROW_BYTES;
            float s[2][N][4], dp[2][N][4];
            const float zero[4] = {};
#pragma unroll
            for (int d = 0; d < STEPS; d++)
#pragma unroll
                for (int n = 0; n < N / 2; n++) {
                    u32 b[4];
                    load_b(b, at, n * 16, d, lane);
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        multiply16_onto(s[m][2 * n], qf[m][d], b[0], b[1], d == 0 ? zero : s[m][2 * n]);
                        multiply16_onto(s[m][2 * n + 1], qf[m][d], b[2], b[3], d == 0 ? zero : s[m][2 * n + 1]);
                    }
                }
            constexpr int TURNS = STEPS * (N / 2), ALL = 2 * N * 4;
#pragma unroll
            for (int d = 0; d < STEPS; d++)
#pragma unroll
                for (int n = 0; n < N / 2; n++) {
                    u32 b[4];
                    load_b(b, at, STEP + n * 16, d, lane);
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        multiply16_onto(dp[m][2 * n], dof[m][d], b[0], b[1], d == 0 ? less[m] : dp[m][2 * n]);
                        multiply16_onto(dp[m][2 * n + 1], dof[m][d], b[2], b[3], d == 0 ? less[m] : dp[m][2 * n + 1]);
                    }
                    const int turn = d * (N / 2) + n;
#pragma unroll
                    for (int at = turn * ALL / TURNS; at < (turn + 1) * ALL / TURNS; at++) {
                        const int c = at / 8, m = at / 4 % 2, i = at % 4;
                        float p = exp2_fast(s[m][c][i] * factor - lse2[m][i / 2]);
                        if (decltype(masked)::value) {
                            const int key = key0 + first + c * 8 + 2 * (lane & 3) + i % 2;
                            if ((u32)(position[m][i / 2] - key) >= span) p = 0.0f;
                        }
                        s[m][c][i] = p;
                    }
                }
#pragma unroll
            for (int n = 0; n < N / 2; n++) {
                u32 ds[2][4];
#pragma unroll
                for (int m = 0; m < 2; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const float* p = s[m][2 * n + i / 2] + 2 * (i & 1);
                        const float* x = dp[m][2 * n + i / 2] + 2 * (i & 1);
                        ds[m][i] = to_bf16x2(p[0] * x[0], p[1] * x[1]);
                    }
                add_product(acc, ds, at, n * 16, lane);
            }
        };
        // Only the diagonal and the window's edge hide keys from some rows.
        if (mask) {
#pragma unroll 1
            for (int first = 0; first < STEP; first += UNIT)
                if (key0 + first <= last) unit(first, Bool<true>{});
        } else {
#pragma unroll 1
            for (int first = 0; first < STEP; first += UNIT) unit(first, Bool<false>{});
        }
    }
    copy_wait<0>();
    __syncthreads();
    stage(ring, row0, acc, lane, scale);
    __syncwarp();
    int head = blockIdx.x;
    asm volatile("" : "+r"(head));  // so that the column is computed again and not kept
    store_queries<32>(dq + (u64)tile.query_start * dq_ld + head * (GROUP * HEAD_DIM), dq_ld, ring, row0, POSITIONS,
                      tile.first, tile.query_len, lane);
}

// The way out of the dk, dv pass. The tile is read again: it has no registers meanwhile.
__device__ __forceinline__ void store_keys(u32 ring, bf16* dk, bf16* dv, const int* tiles, int dkv_ld, float scale,
                                           float (&dk_acc)[2][CHUNKS][4], float (&dv_acc)[2][CHUNKS][4]) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int kv = blockIdx.x;
    const Tile tile = read_tile((const volatile int*)tiles, blockIdx.y);
    const int split = tile.split;
    const int part = warp & (split - 1), group = warp >> (split >> 1), row0 = group * 32;
    const int key_end = min(tile.first + ROWS / split, tile.key_len);
    // The sums of warps that share keys, in order.
    u32 mine = ring + warp * TILE_BYTES;
    if (split > 1) {
        constexpr int NUMBERS = 2 * CHUNKS * 4;
        constexpr u32 SLOT = 2 * NUMBERS * 128;
        static_assert(3 * SLOT <= STAGES * STAGE, "sums of three warps");
        float (&x)[NUMBERS] = *(float (*)[NUMBERS])dk_acc, (&y)[NUMBERS] = *(float (*)[NUMBERS])dv_acc;
        mine = ring + (group * (split - 1) + max(part - 1, 0)) * SLOT + lane * 4;
        if (part > 0)
#pragma unroll
            for (int i = 0; i < NUMBERS; i++) {
                shared_store(mine + i * 128, __float_as_uint(x[i]));
                shared_store(mine + (NUMBERS + i) * 128, __float_as_uint(y[i]));
            }
        __syncthreads();
        if (part > 0) return;
#pragma unroll 1
        for (int other = 0; other < split - 1; other++)
#pragma unroll
            for (int i = 0; i < NUMBERS; i++) {
                x[i] += __uint_as_float(shared_load(mine + other * SLOT + i * 128));
                y[i] += __uint_as_float(shared_load(mine + other * SLOT + (NUMBERS + i) * 128));
            }
        mine -= lane * 4;
        __syncwarp();
    }
    stage(mine, 0, dk_acc, lane, scale);
    stage(mine + 32 * ROW_BYTES, 0, dv_acc, lane);
    __syncwarp();
    const u64 to = (u64)tile.key_start * dkv_ld + kv * HEAD_DIM;
#pragma unroll
    for (int i = 0; i < 32 * CHUNKS / 32; i++) {
        const int at = lane + i * 32, row = at / CHUNKS, chunk = at % CHUNKS;
        if (tile.first + row0 + row < key_end) {
            const u64 place = to + (u64)(tile.first + row0 + row) * dkv_ld + chunk * 8;
            *reinterpret_cast<uint4*>(dk + place) = shared_load16(mine + swizzled(row, chunk));
            *reinterpret_cast<uint4*>(dv + place) = shared_load16(mine + 32 * ROW_BYTES + swizzled(row, chunk));
        }
    }
}

// Arguments as above; dk, dv [*, dkv_ld], every key row of the tiles is written. tiles: of keys: `split`, 1, 2 or 4,
// warps share 32 keys, each with its own 16 rows of so many, and their sums are added in order at the end; a tile has
// KEY_ROWS / split keys. Scores are computed transposed, keys by stacked query rows, so that they are the left operand
// of the second products without leaving registers. Grid (key heads, tiles).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_backward_kv(const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
                          const bf16* __restrict__ dout, const float* __restrict__ lse, const float* __restrict__ delta,
                          bf16* __restrict__ dk, bf16* __restrict__ dv, const int* __restrict__ tiles, int q_ld,
                          int kv_ld, int dout_ld, int dkv_ld, int n_rows, int window, float scale) {
    extern __shared__ __align__(1024) u8 shared[];
    __shared__ float2 rows[2][STEP];  // their lse and delta
    const u32 ring = shared_address(shared);
    // The second stage has the keys first.
    const u32 v_tile = ring, steps_at = ring + STAGE, k_tile = steps_at + STAGE;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int kv = blockIdx.x;
    const Tile tile = read_tile(tiles, blockIdx.y);
    const int split = tile.split;
    const int part = warp & (split - 1), group = warp >> (split >> 1), row0 = group * 32;
    const int offset = tile.key_len - tile.query_len;
    const int key_end = min(tile.first + ROWS / split, tile.key_len);
    // Queries that see a key of the tile: none before the first key, none a window behind the last.
    const int begin = max(tile.first - offset, 0);
    const int end = window > 0 ? min(tile.query_len, key_end - 1 + window - offset) : tile.query_len;
    const int steps = max(0, (end - begin + STEP_POSITIONS - 1) / STEP_POSITIONS);
    const int column = kv * GROUP * HEAD_DIM;
    q += (u64)tile.query_start * q_ld + column;
    dout += (u64)tile.query_start * dout_ld + column;
    const u64 kv_at = (u64)tile.key_start * kv_ld + kv * HEAD_DIM;
    const float factor = scale * LOG2E;
    const u32 span = window > 0 ? window : 0x7fffffff;  // keys that a query sees

    // A thread copies 16 bytes of some rows of both tensors, and one number of a row, lse or delta. Rows that are not
    // there are zeros, and so is what they add.
    constexpr int LINES = THREADS / CHUNKS;
    const u32 number = shared_address(rows) + threadIdx.x * 4;
    auto fetch = [&](int step, const bf16* q, const bf16* dout, const float* numbers, int begin, int end, int steps) {
        if (step < steps) {
            const u32 to = steps_at + (step & 1) * STAGE;
            const int query0 = begin + step * STEP_POSITIONS, row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
            if (LINES % GROUP == 0 && query0 + STEP_POSITIONS <= end) {
                const u32 query = query0 + row / GROUP, column = row % GROUP * HEAD_DIM + chunk * 8;
                const u32 q_from = query * q_ld + column, do_from = query * dout_ld + column;
#pragma unroll
                for (int i = 0; i < STEP / LINES; i++) {
                    const u32 at = to + swizzled(row + i * LINES, chunk);
                    copy_async16(at, q + (q_from + i * (LINES / GROUP) * q_ld));
                    copy_async16(at + TILE_BYTES, dout + (do_from + i * (LINES / GROUP) * dout_ld));
                }
            } else {
#pragma unroll 1
                for (int i = 0; i < STEP / LINES; i++) {
                    const int r = row + i * LINES, query = query0 + r / GROUP;
                    const bool valid = r / GROUP < STEP_POSITIONS && query < end;
                    const u32 column = r % GROUP * HEAD_DIM + chunk * 8, from = min(query, end - 1);
                    copy_async16(to + swizzled(r, chunk), q + (from * q_ld + column), valid);
                    copy_async16(to + TILE_BYTES + swizzled(r, chunk), dout + (from * dout_ld + column), valid);
                }
            }
            const int r = threadIdx.x / 2, query = query0 + r / GROUP;
            const u32 from = (u32)(r % GROUP) * n_rows + min(query, end - 1);
            copy_async4(number + (step & 1) * (STEP * 8), numbers + from, r / GROUP < STEP_POSITIONS && query < end);
        }
        copy_commit();
    };

    load_keys<ROWS, THREADS>(k_tile, k + kv_at, kv_ld, tile.first, key_end, threadIdx.x);
    load_keys<ROWS, THREADS>(v_tile, v + kv_at, kv_ld, tile.first, key_end, threadIdx.x);
    copy_commit();
    const u64 numbers = (u64)(kv * GROUP) * n_rows + tile.query_start;
    fetch(0, q, dout, (threadIdx.x & 1 ? delta : lse) + numbers, begin, end, steps);
    copy_wait<1>();
    __syncthreads();

    u32 kf[2][STEPS][4], vf[2][STEPS][4];
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            load_a(kf[m][s], k_tile, row0 + m * 16, s, lane);
            load_a(vf[m][s], v_tile, row0 + m * 16, s, lane);
        }
    __syncthreads();
    if (threadIdx.x == 0)
        *(Given*)shared = {q, dout, {lse + numbers, delta + numbers}, begin, end, steps, begin + offset};
    const u32 b_place = swizzled((lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1),
              t_place = swizzled(lane & 15, lane >> 4);
    float dk_acc[2][CHUNKS][4] = {}, dv_acc[2][CHUNKS][4] = {};

    __syncthreads();
#pragma unroll 1
    for (int step = 0;; step++) {
        const uint4 x = shared_load16(v_tile), z = shared_load16(v_tile + 32);
        float number[2];
        shared_load8(v_tile + 16 + (threadIdx.x & 1) * 8, number);
        if (step >= (BOUNDS_WAIT ? (int)z.z : steps)) break;
        const int seen = (BOUNDS_WAIT ? (int)z.w : begin + offset) + step * STEP_POSITIONS;  // the first rows' position
        const u32 q_tile = steps_at + (step & 1) * STAGE;  // dout is the rows behind it
        copy_wait<0>();
        __syncthreads();
        auto address = [](u32 low, u32 high) { return low | (u64)high << 32; };
        fetch(step + 1, (const bf16*)address(x.x, x.y), (const bf16*)address(x.z, x.w),
              (const float*)address(__float_as_uint(number[0]), __float_as_uint(number[1])), z.x, z.y, z.z);
        const int key0 = tile.first + row0;
        const u32 b_at = q_tile + b_place, t_at = q_tile + t_place;
        // Of 16 stacked rows.
        auto scores = [&](int r, float (&s)[2][2][4]) {
            const float zero[4] = {};
#pragma unroll
            for (int d = 0; d < STEPS; d++) {
                u32 b[4];
                load_matrices(b, (b_at + r * ROW_BYTES) ^ (d << 5));
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    multiply16_onto(s[m][0], kf[m][d], b[0], b[1], d == 0 ? zero : s[m][0]);
                    multiply16_onto(s[m][1], kf[m][d], b[2], b[3], d == 0 ? zero : s[m][1]);
                }
            }
        };
        auto unit = [&](int r, float (&s)[2][2][4], auto masked) {
            float dp[2][2][4], rows_lse[2][2];
            float less[2][4];  // minus delta, where dP begins
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const float4 x = *reinterpret_cast<const float4*>(&rows[step & 1][r + n * 8 + 2 * (lane & 3)]);
                rows_lse[n][0] = x.x, rows_lse[n][1] = x.z;
                less[n][0] = less[n][2] = -x.y, less[n][1] = less[n][3] = -x.w;
            }
#pragma unroll
            for (int d = 0; d < STEPS; d++) {
                u32 b[4];
                load_matrices(b, ((b_at + r * ROW_BYTES) ^ (d << 5)) + TILE_BYTES);
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    multiply16_onto(dp[m][0], vf[m][d], b[0], b[1], d == 0 ? less[0] : dp[m][0]);
                    multiply16_onto(dp[m][1], vf[m][d], b[2], b[3], d == 0 ? less[1] : dp[m][1]);
                }
#pragma unroll
                for (int at = d * 16 / STEPS; at < (d + 1) * 16 / STEPS; at++) {
                    const int n = at / 8, m = at / 4 % 2, i = at % 4;
                    float p = exp2_fast(s[m][n][i] * factor - rows_lse[n][i % 2]);
                    if (decltype(masked)::value) {
                        const int key = key0 + m * 16 + i / 2 * 8 + lane / 4,
                                  position = seen + (r + n * 8 + 2 * (lane & 3) + i % 2) / GROUP;
                        if ((u32)(position - key) >= span) p = 0.0f;
                    }
                    s[m][n][i] = p;
                }
            }
            u32 pf[2][4], dsf[2][4];
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float* p = s[m][i / 2] + 2 * (i & 1);
                    pf[m][i] = to_bf16x2(p[0], p[1]);
                }
            auto add = [&](float (&acc)[2][CHUNKS][4], const u32(&left)[2][4], u32 tile) {
#pragma unroll
                for (int c = 0; c < CHUNKS / 2; c++) {
                    u32 b[4];
                    load_matrices_transposed(b, ((t_at + r * ROW_BYTES) ^ (c << 5)) + tile);
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        multiply16(acc[m][2 * c], left[m], b[0], b[1]);
                        multiply16(acc[m][2 * c + 1], left[m], b[2], b[3]);
                    }
                }
            };
            add(dv_acc, pf, TILE_BYTES);
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float *p = s[m][i / 2] + 2 * (i & 1), *x = dp[m][i / 2] + 2 * (i & 1);
                    dsf[m][i] = to_bf16x2(p[0] * x[0], p[1] * x[1]);
                }
            add(dk_acc, dsf, 0);
        };
        float s[2][2][4];
        if (seen >= key0 + 31 && (window <= 0 || seen + STEP_POSITIONS - 1 - window < key0)) {
#pragma unroll 1
            for (int r = part * 16; r < STEP; r += split * 16) {
                scores(r, s);
                unit(r, s, Bool<false>{});
            }
        } else {
#pragma unroll 1
            for (int r = part * 16; r < STEP; r += split * 16) {
                // Rows that see none of this warp's keys need no work.
                const int from = seen + r / GROUP, to = seen + (r + 15) / GROUP;
                if (to < key0 || (window > 0 && from - window >= key0 + 31)) continue;
                scores(r, s);
                unit(r, s, Bool<true>{});
            }
        }
    }
    copy_wait<0>();
    __syncthreads();
    store_keys(ring, dk, dv, tiles, dkv_ld, scale, dk_acc, dv_acc);
}
