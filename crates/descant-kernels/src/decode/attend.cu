// Attention of one new token of each sequence over its cached keys and values, in splits whose length depends on the
// sequence's own length alone, so that its result does not depend on the batch. It begins with the end of the product
// before: bias, low-rank part and rotary embedding of the queries, in the registers of those who need them, and of the
// new key and value, which the last split writes to the cache.
//
// A block has one key head with its GROUP query heads, one sequence and one split of it or several in a row, which it
// goes through in tiles of KEYS keys: scores by mma.sync, a warp 32 keys, heads as columns; the softmax's running
// largest and total a head; scores transposed in registers into the right operand of the values' product, whose left
// operand is the values transposed; and the next tile's keys and values are on their way meanwhile. Where there are
// several splits, the last block to finish brings what all have left to shared memory and puts it together in their
// order (flash decoding, Dao et al. 2023), and the sink's term comes in once.
//
// qkv f32 [B, (H + 2 n_kv) D], queries first; bias bf16; u bf16 [B, R], R 0 for none, those of keys from
// column of_keys on and those of values from of_values on, and v bf16 [(H + 2 n_kv) D, width of v], of which a row has
// its own kind's columns, all by eights;
// cos, sin f32 [*, D / 2] by position; adapted i32 [B], 0 for rows without the low-rank part; keys, values bf16 [rows,
// n_kv * D], rows as cache.cuh says; sinks f32 [H]; slots, positions i32 [B], the new token's; pages i32, tables of all
// sequences, that of sequence b from first_page[b] on, which is even; out bf16 [B, H * D]; parts f32 [splits of all
// tables, n_kv, PART]; counters u32 [B, n_kv], zero, and zero again on return. What is of the step before or of
// the host (cache, positions, tables) is read before the kernel before is done; staged: whether dynamic shared memory
// has room for this block's rows of v and for a row of u. Grid: (blocks of a sequence, n_kv, B). Block: 128.
#include "mma.cuh"
#include "step.cuh"

#include "cache.cuh"

#define D HEAD_DIM
#define ROW_BYTES (D * 2 + 16)  // of a row in shared memory: rows apart, so that lanes read different banks
#define LOWEST -1e30f
#define WARPS 4
#define HEADS 8  // columns of a product
#define TILE_BYTES (KEYS * ROW_BYTES)  // keys of a tile, or its values
#define PART \
    (GROUP * (D + 2) + GROUP * 2 % 4)  // what a split leaves: its sums, then each head's largest score and total
#define PART_BYTES (GROUP * D * 4)  // of sums
#define AT_A_TIME (THREADS / (D / 8))  // rows that all threads bring together
#define AT_ONCE (2 * TILE_BYTES / PART_BYTES)  // splits whose sums have room where a tile was
#define OWN_HEADS ((GROUP + WARPS - 1) / WARPS)  // heads that a warp puts together
#define OWN (((GROUP + 2) * D + THREADS - 1) / THREADS)  // a thread's columns of the product before
static_assert(THREADS == 32 * WARPS && KEYS == 32 * WARPS, "a warp has 32 keys");
static_assert(KEYS == 2 * PAGE, "a tile has two pages");
static_assert(2 * (GROUP + 2) <= WARPS * HEADS, "a block's columns twice have room where sums come later");
static_assert(MOST_SPLITS <= 64 && PART % 4 == 0, "a lane has the ends of two splits, and parts are aligned");
static_assert(MOST_SPLITS * GROUP * 2 <= WARPS * HEADS * (D + 2), "ends of splits have room where sums were");
static_assert(GROUP <= HEADS && D % 16 == 0 && D <= 64, "heads are the columns of one product");

__device__ __forceinline__ u32 transposed(u32 x) {
    u32 y;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
    attend(const float* qkv, const bf16* bias, const bf16* u, const bf16* v, const float* cos, const float* sin,
           const int* adapted, bf16* keys, bf16* values, const float* sinks, const int* slots, const int* positions,
           const int* pages, const int* first_page, bf16* out, float* parts, u32* counters, int n_kv, int R,
           int of_keys, int of_values, int v_width, int window, int staged, float scale) {
    extern __shared__ __align__(16) bf16 factor[];
    __shared__ __align__(16) u8 tile_rows[2 * TILE_BYTES];  // keys, then values
    u8 *const key_rows = tile_rows, *const value_rows = tile_rows + TILE_BYTES;
    __shared__ __align__(16) float sums[WARPS][HEADS][D + 2];
    // The columns of this block are GROUP queries, a key and a value of D each. As the product has them, and their
    // low-rank parts, they lie where sums come later; then there are their biases, the position's angles, and what they
    // become.
    float *const low = &sums[0][0][0], *const whole = low + (GROUP + 2) * D;
    __shared__ __align__(16) bf16 biases[(GROUP + 2) * D];
    __shared__ __align__(16) float turn[2][D / 2];
    __shared__ __align__(16) bf16 made[(GROUP + 2) * D];
    __shared__ float largest_of[WARPS][HEADS], total_of[WARPS][HEADS], sink_of[GROUP];
    __shared__ u32 arrived;
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, g = lane >> 2, c = lane & 3;
    const int head = blockIdx.y, b = blockIdx.z, width = n_kv * D;
    next_may_start();
    const int position = positions[b], length = position + 1, begin = window > 0 ? max(0, length - window) : 0;
    const int tiles = (length - begin + KEYS - 1) / KEYS;
    const int per_split = max(LEAST_TILES, (tiles + MOST_SPLITS - 1) / MOST_SPLITS);
    const int splits = (tiles + per_split - 1) / per_split;
    const int of_block = (splits + gridDim.x - 1) / gridDim.x, first_split = blockIdx.x * of_block;
    if (first_split >= splits) return;
    const int last_split = min(splits, first_split + of_block);
    const int first_tile = first_split * per_split, last_tile = min(tiles, last_split * per_split);
    const int* table = pages + first_page[b];
    keys += head * D, values += head * D;
    auto load = [&](u8* to, const bf16* from, int tile, const CacheRows& rows) {
        const int first = begin + tile * KEYS, n = tile < last_tile ? min(KEYS, length - first) : 0;
        if (n == 0) return copy_commit();
        // Rows that are not there are zeros, whose scores are masked; the new one comes from elsewhere.
        const int k = t / (D / 8), piece = t % (D / 8);
        const bf16* const low = from + (rows.low + k) * width + piece * 8;
        const bf16* const high = from + (rows.high + k - rows.turn) * width + piece * 8;
        const u32 at = shared_address(to + k * ROW_BYTES + piece * 16);
#pragma unroll 4
        for (int i = 0; i < KEYS; i += AT_A_TIME) {
            const bf16* const row = (k + i < rows.turn ? low : high) + i * width;
            if (first + k + i != position) copy_async16(at + i * ROW_BYTES, row, k + i < n);
        }
        copy_commit();
    };
    auto rows_of = [&](int tile) {
        const int first = begin + min(tile, last_tile - 1) * KEYS;
        return CacheRows(table, slots[b], first, min(KEYS, length - first), window);
    };
    // The new key and value, where a tile has them.
    auto put = [&](u8* to, int row, int tile) {
        if (tile == tiles - 1 && last_tile == tiles && t < D / 8)
            *(uint4*)(to + (position - begin - tile * KEYS) * ROW_BYTES + t * 16) = ((const uint4*)(made + row * D))[t];
    };
    const CacheRows first_rows = rows_of(first_tile);
    CacheRows next_rows = rows_of(first_tile + 1);
#pragma unroll 1
    for (int part = 0; part < 2; part++)
        load(part ? value_rows : key_rows, part ? values : keys, first_tile, first_rows);
    const int H = n_kv * GROUP, row_width = (H + 2 * n_kv) * D;
    auto column = [&](int i) {
        return i < GROUP * D ? head * GROUP * D + i : (H + head) * D + i % D + (i / D - GROUP) * width;
    };
    const bool is_adapted = R > 0 && adapted[b];
    // Where the low-rank columns of a query, a key or a value begin and end.
    auto low_from = [&](int i) { return i < GROUP * D ? 0 : i < (GROUP + 1) * D ? of_keys : of_values; };
    auto low_to = [&](int i) { return i < GROUP * D ? of_keys : i < (GROUP + 1) * D ? of_values : R; };
    // The factor's rows of this block's columns: to where they can be read soon, or, if there is room, to shared
    // memory.
#pragma unroll 1
    for (int i = t; is_adapted && i < (GROUP + 2) * D; i += THREADS) {
        const bf16* of_column = v + (u64)column(i) * v_width;
        if (staged)
#pragma unroll 1
            for (int r = 0; r < v_width; r += 8) copy_async16(shared_address(factor + i * v_width + r), of_column + r);
        else
#pragma unroll 1
            for (int r = 0; r < v_width; r += 64) prefetch(of_column + r);
    }
#pragma unroll 1
    for (int i = t; i < (GROUP + 2) * D / 8; i += THREADS)
        copy_async16(shared_address(biases + i * 8), bias + column(i * 8));
    if (t < D / 8 * 2) {
        const bool second = t >= D / 8;
        copy_async16(shared_address(turn[second] + t % (D / 8) * 4),
                     (second ? sin : cos) + (u64)position * (D / 2) + t % (D / 8) * 4);
    }
    if (t < GROUP) sink_of[t] = sinks[head * GROUP + t];
    wait_for_earlier();
#pragma unroll 1
    for (int i = t; i < (GROUP + 2) * D / 4; i += THREADS)
        copy_async16(shared_address(whole + i * 4), qkv + (u64)b * row_width + column(i * 4));
    const bf16* row_of_u = u + b * R;
    if (is_adapted && staged) {
        bf16* const to = factor + (GROUP + 2) * D * v_width;
        if (t < R / 8) copy_async16(shared_address(to + t * 8), row_of_u + t * 8);
        row_of_u = to;
    }
    copy_commit();
    if (staged) {
        copy_wait<0>();
        __syncthreads();
    }
    if (is_adapted) {
        float sums_of[OWN] = {};
#pragma unroll 1
        for (int r = 0; r < v_width; r += 8) {
#pragma unroll
            for (int k = 0; k < OWN; k++) {
                const int i = t + k * THREADS, at = low_from(i) + r;
                if (i >= (GROUP + 2) * D || at >= low_to(i)) continue;
                float of[8];
                unpack8(load16(row_of_u + at), of);
                sums_of[k] += dot8(of, load16((staged ? factor + i * v_width : v + (u64)column(i) * v_width) + r));
            }
        }
#pragma unroll
        for (int k = 0; k < OWN; k++)
            if (t + k * THREADS < (GROUP + 2) * D) low[t + k * THREADS] = sums_of[k];
    }
    if (!staged) copy_wait<0>();
    __syncthreads();
    auto rounded = [&](int i) {
        return to_float(to_bf16(whole[i] + to_float(biases[i]) + (is_adapted ? low[i] : 0.0f)));
    };
#pragma unroll 1
    for (int i = t; i < (GROUP + 2) * D / 2; i += THREADS) {
        const int d = i % (D / 2), at = i / (D / 2) * D + d;
        const float co = turn[0][d], si = turn[1][d], x = rounded(at), y = rounded(at + D / 2);
        const bool turns = at < (GROUP + 1) * D;
        made[at] = to_bf16(turns ? x * co - y * si : x);
        made[at + D / 2] = to_bf16(turns ? y * co + x * si : y);
    }
    __syncthreads();
    put(key_rows, GROUP, first_tile);
    put(value_rows, GROUP + 1, first_tile);
    if (last_tile == tiles && t < D / 8 * 2) {
        const u64 row = cache_row(table, slots[b], position, window) * width;
        bf16* to = t < D / 8 ? keys : values;
        store16(to + row + t % (D / 8) * 8, ((const uint4*)(made + GROUP * D))[t]);
    }
    // This lane's part of the queries: of head g.
    const u64 query = (u64)b * n_kv * GROUP * D + head * GROUP * D;
    u32 of_q[D / 16][2];
#pragma unroll
    for (int i = 0; i < D / 16; i++)
#pragma unroll
        for (int j = 0; j < 2; j++) of_q[i][j] = g < GROUP ? *(const u32*)(made + g * D + i * 16 + j * 8 + c * 2) : 0;

    // A table has a split for every two pages.
    float* const all_parts = parts + ((u64)(first_page[b] / 2) * n_kv + head * splits) * PART;
    // Of heads 2c and 2c + 1.
    float largest[2] = {LOWEST, LOWEST}, total[2] = {}, acc[D / 16][4] = {};
#pragma unroll 1
    for (int tile = first_tile; tile < last_tile; tile++) {
        const int n = min(KEYS, length - begin - tile * KEYS);
        copy_wait<1>();
        __syncthreads();
        float score[2][4] = {};
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int i = 0; i < D / 16; i++) {
                u32 k[4];
                const int row = warp * 32 + m * 16 + (lane & 15);
                load_matrices(k, shared_address(key_rows + row * ROW_BYTES + (i * 2 + (lane >> 4)) * 16));
                multiply16(score[m], k, of_q[i][0], of_q[i][1]);
            }
        float most[2] = {LOWEST, LOWEST};
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int key = warp * 32 + m * 16 + g + (j >> 1) * 8;
                score[m][j] = key < n ? score[m][j] * scale : LOWEST;
                most[j & 1] = fmaxf(most[j & 1], score[m][j]);
            }
#pragma unroll
        for (int j = 0; j < 2; j++) {
#pragma unroll
            for (int lanes = 4; lanes < 32; lanes *= 2)
                most[j] = fmaxf(most[j], __shfl_xor_sync(FULL_WARP, most[j], lanes));
            if (g == 0) largest_of[warp][c * 2 + j] = most[j];
        }
        __syncthreads();
        // Everybody has read the keys.
        load(key_rows, keys, tile + 1, next_rows);
        put(key_rows, GROUP, tile + 1);
        float before[2];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float new_largest = largest[j];
#pragma unroll
            for (int w = 0; w < WARPS; w++) new_largest = fmaxf(new_largest, largest_of[w][c * 2 + j]);
            before[j] = __expf(largest[j] - new_largest);
            largest[j] = new_largest, total[j] *= before[j];
        }
        u32 p[2][2];
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float e[2];
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const float x = score[m][i * 2 + j];
                    e[j] = x == LOWEST ? 0.0f : __expf(x - largest[j]);
                    total[j] += e[j];
                }
                p[m][i] = transposed(to_bf16x2(e[0], e[1]));
            }
#pragma unroll
        for (int i = 0; i < D / 16; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) acc[i][j] *= before[j & 1];
        copy_wait<1>();
        __syncthreads();
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int i = 0; i < D / 16; i++) {
                // 16 dimensions of 16 keys: matrices (dims, keys), of both halves each.
                u32 v[4];
                const int row = warp * 32 + m * 16 + (lane & 7) + (lane >> 4) * 8;
                load_matrices_transposed(v,
                                         shared_address(value_rows + row * ROW_BYTES + (i * 2 + (lane >> 3 & 1)) * 16));
                multiply16(acc[i], v, p[m][0], p[m][1]);
            }
        __syncthreads();
        load(value_rows, values, tile + 1, next_rows);
        put(value_rows, GROUP + 1, tile + 1);
        if (tile + 2 < last_tile) next_rows = rows_of(tile + 2);
        if ((tile + 1) % per_split && tile + 1 < tiles) continue;
        // The end of a split.
        // The warps' sums, in their order.
#pragma unroll
        for (int j = 0; j < 2; j++) {
#pragma unroll
            for (int lanes = 4; lanes < 32; lanes *= 2) total[j] += __shfl_xor_sync(FULL_WARP, total[j], lanes);
            if (g == 0) total_of[warp][c * 2 + j] = total[j];
            if (g == 0 && warp == 0) largest_of[0][c * 2 + j] = largest[j];
        }
#pragma unroll
        for (int i = 0; i < D / 16; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) sums[warp][c * 2 + (j & 1)][i * 16 + g + (j >> 1) * 8] = acc[i][j];
        __syncthreads();

        float* const part = all_parts + (u64)(tile / per_split) * PART;
#pragma unroll 1
        for (int i = t; i < GROUP * D / 2; i += THREADS) {
            const int h = i / (D / 2), d = i % (D / 2) * 2;
            float x = 0.0f, y = 0.0f, all = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) x += sums[w][h][d], y += sums[w][h][d + 1], all += total_of[w][h];
            const float most = largest_of[0][h];
            if (splits > 1) {
                *(float2*)(part + h * D + d) = make_float2(x, y);
                if (d == 0) *(float2*)(part + GROUP * D + h * 2) = make_float2(most, all);
                continue;
            }
            const float sink = sink_of[h], whole_most = fmaxf(most, sink), by = expf(most - whole_most);
            const float whole = all * by + expf(sink - whole_most);
            *(u32*)(out + query + h * D + d) = to_bf16x2(x * by / whole, y * by / whole);
        }
#pragma unroll
        for (int j = 0; j < 2; j++) largest[j] = LOWEST, total[j] = 0.0f;
#pragma unroll
        for (int i = 0; i < D / 16; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) acc[i][j] = 0.0f;
    }
    if (splits == 1) return;
    const int of_this = last_split - first_split;
    if (of_this < splits) {
        // A fence of one thread is for all whose writes it has met.
        __syncthreads();
        if (t == 0) {
            __threadfence();
            arrived = atomicAdd(counters + b * n_kv + head, of_this);
            __threadfence();
        }
        __syncthreads();
        if (arrived != splits - of_this) return;
        if (t == 0) counters[b * n_kv + head] = 0;
    } else {
        __syncthreads();
    }
    // Sums of as many splits as have room where the last tile was. A lane looks at the ends of two splits of its warp's
    // heads, and leaves what each split's sums are multiplied by, and its total.
    auto bring = [&](int first) {
        const int pieces = min(AT_ONCE, splits - first) * (PART_BYTES / 16);
#pragma unroll 2
        for (int i = t; i < pieces; i += THREADS) {
            const float* from = all_parts + (u64)(first + i / (PART_BYTES / 16)) * PART + i % (PART_BYTES / 16) * 4;
            copy_async16(shared_address(tile_rows + i * 16), from);
        }
        copy_commit();
    };
    bring(0);
    float2 end[OWN_HEADS][2];
    float whole_of[OWN_HEADS], x[OWN_HEADS] = {}, y[OWN_HEADS] = {};
#pragma unroll
    for (int k = 0; k < OWN_HEADS; k++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int h = warp + k * WARPS, s = lane + j * 32;
            end[k][j] = make_float2(LOWEST, 0.0f);
            if (h < GROUP && s < splits) end[k][j] = __ldcg((const float2*)(all_parts + s * PART + GROUP * D + h * 2));
        }
    float2* const ends = (float2*)&sums[0][0][0];
#pragma unroll
    for (int k = 0; k < OWN_HEADS; k++) {
        const int h = min(warp + k * WARPS, GROUP - 1);
        float most = fmaxf(sink_of[h], fmaxf(end[k][0].x, end[k][1].x));
#pragma unroll
        for (int lanes = 1; lanes < 32; lanes *= 2) most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, lanes));
        whole_of[k] = expf(sink_of[h] - most);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int s = lane + j * 32;
            if (warp + k * WARPS < GROUP && s < splits)
                ends[h * MOST_SPLITS + s] = make_float2(expf(end[k][j].x - most), end[k][j].y);
        }
    }
    // Of each head a lane has two features, as far as there are so many.
    const float* const left = (const float*)tile_rows + min(lane * 2, D - 2);
#pragma unroll 1
    for (int first = 0; first < splits; first += AT_ONCE) {
        if (first > 0) {
            __syncthreads();
            bring(first);
        }
        copy_wait<0>();
        __syncthreads();
#pragma unroll 4
        for (int s = first; s < min(splits, first + AT_ONCE); s++)
#pragma unroll
            for (int k = 0; k < OWN_HEADS; k++) {
                const int h = min(warp + k * WARPS, GROUP - 1);
                const float2 by = ends[h * MOST_SPLITS + s];
                const float2 sum = *(const float2*)(left + ((s - first) * GROUP + h) * D);
                whole_of[k] = fmaf(by.y, by.x, whole_of[k]);
                x[k] = fmaf(sum.x, by.x, x[k]), y[k] = fmaf(sum.y, by.x, y[k]);
            }
    }
#pragma unroll
    for (int k = 0; k < OWN_HEADS; k++) {
        const int h = warp + k * WARPS;
        if (h < GROUP && lane < D / 2)
            *(u32*)(out + query + h * D + lane * 2) = to_bf16x2(x[k] / whole_of[k], y[k] / whole_of[k]);
    }
}
