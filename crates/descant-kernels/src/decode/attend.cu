// Attention of one new token of each sequence over its cached keys and values, the keys in splits of fixed length, so
// that a sequence's result does not depend on the batch.
//
// A block has one key head with its GROUP query heads, one sequence and one split, whose keys and values it brings to
// shared memory at once. Scores: a thread a key. Then the
// softmax of the split a head, and the sums over values, a thread four dimensions of a head. Where there are several
// splits, the last block to finish puts them together in their order (flash decoding, Dao et al. 2023), and the sink's
// term comes in once.
//
// q bf16 [B, H * D]; keys, values bf16 [rows, n_kv * D], rows as cache.cuh says; sinks f32 [H]; slots, positions i32
// [B], the new token's; pages i32, tables of all sequences, that of sequence b from first_page[b] on, which is even;
// out bf16 [B, H * D]; parts f32 [splits of all tables, n_kv, GROUP, D + 2]; counters u32 [B, n_kv], zero, and zero
// again on return. Grid: (splits, n_kv, B). Block: 128.
#include "step.cuh"

#include "cache.cuh"

#define KEY_BYTES (HEAD_DIM * 2 + 16)  // of a row in shared memory: rows apart, so that lanes read different banks
#define LOWEST -1e30f
static_assert(THREADS == 128, "as many as items are counted for");
static_assert(KEYS == 2 * PAGE, "a split has two pages");

extern "C" __global__ void __launch_bounds__(THREADS)
    attend(const bf16* q, const bf16* keys, const bf16* values, const float* sinks, const int* slots,
           const int* positions, const int* pages, const int* first_page, bf16* out, float* parts, u32* counters,
           int n_kv, int window, float scale) {
    constexpr int D = HEAD_DIM;
    __shared__ __align__(16) u8 key_rows[KEYS * KEY_BYTES];
    __shared__ __align__(16) bf16 value_rows[KEYS][D];
    __shared__ __align__(16) float queries[GROUP][D];
    __shared__ float p[GROUP][KEYS];
    __shared__ float largest[GROUP], total[GROUP];
    __shared__ u32 arrived;
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5;
    const int split = blockIdx.x, head = blockIdx.y, b = blockIdx.z, width = n_kv * D;
    next_may_start();
    wait_for_earlier();
    const int length = positions[b] + 1, begin = window > 0 ? max(0, length - window) : 0;
    const int splits = (length - begin + KEYS - 1) / KEYS;
    if (split >= splits) return;
    const int first = begin + split * KEYS, n = min(KEYS, length - first);
    const CacheRows rows(pages + first_page[b], slots[b], first, n, window);
    keys += head * D, values += head * D;
    for (int i = t; i < n * (D / 8); i += THREADS) {
        const int k = i / (D / 8), piece = i % (D / 8);
        copy_async16(shared_address(key_rows + k * KEY_BYTES + piece * 16), keys + rows.row(k) * width + piece * 8);
    }
    copy_commit();
    for (int i = t; i < n * (D / 8); i += THREADS) {
        const int k = i / (D / 8), piece = i % (D / 8);
        copy_async16(shared_address(&value_rows[k][piece * 8]), values + rows.row(k) * width + piece * 8);
    }
    copy_commit();
    const u64 query = (u64)b * n_kv * GROUP * D + head * GROUP * D;
    for (int i = t; i < GROUP * D; i += THREADS) queries[i / D][i % D] = to_float(q[query + i]) * scale;
    copy_wait<1>();
    __syncthreads();

    for (int k = t; k < n; k += THREADS) {
        float sum[GROUP] = {};
        // Unrolled no further: all queries would be kept in registers, which there are not.
#pragma unroll 1
        for (int d = 0; d < D; d += 8) {
            float f[8];
            unpack8(*(const uint4*)(key_rows + k * KEY_BYTES + d * 2), f);
#pragma unroll
            for (int h = 0; h < GROUP; h++) {
                const float4 one = *(const float4*)&queries[h][d], other = *(const float4*)&queries[h][d + 4];
                sum[h] += one.x * f[0] + one.y * f[1] + one.z * f[2] + one.w * f[3];
                sum[h] += other.x * f[4] + other.y * f[5] + other.z * f[6] + other.w * f[7];
            }
        }
#pragma unroll
        for (int h = 0; h < GROUP; h++) p[h][k] = sum[h];
    }
    __syncthreads();
    for (int h = warp; h < GROUP; h += THREADS / 32) {
        float most = LOWEST, sum = 0.0f;
        for (int k = lane; k < n; k += 32) most = fmaxf(most, p[h][k]);
        most = warp_max(most);
        for (int k = lane; k < n; k += 32) {
            const float e = expf(p[h][k] - most);
            p[h][k] = e, sum += e;
        }
        sum = warp_sum(sum);
        if (lane == 0) largest[h] = most, total[h] = sum;
    }
    copy_wait<0>();
    __syncthreads();

    // A table has a split for every two pages.
    float* const all_parts = parts + ((u64)(first_page[b] / 2) * n_kv + head * splits) * GROUP * (D + 2);
    float* part = all_parts + (u64)split * GROUP * (D + 2);
    for (int i = t; i < GROUP * D / 4; i += THREADS) {
        const int h = i / (D / 4), d = i % (D / 4) * 4;
        float sum[4] = {};
#pragma unroll 8
        for (int k = 0; k < n; k++) {
            const uint2 v = *(const uint2*)&value_rows[k][d];
            const float e = p[h][k];
            sum[0] += e * low_float(v.x), sum[1] += e * high_float(v.x);
            sum[2] += e * low_float(v.y), sum[3] += e * high_float(v.y);
        }
        if (splits > 1) {
#pragma unroll
            for (int j = 0; j < 4; j++) part[h * (D + 2) + d + j] = sum[j];
            if (d == 0) part[h * (D + 2) + D] = largest[h], part[h * (D + 2) + D + 1] = total[h];
            continue;
        }
        const float most = fmaxf(largest[h], sinks[head * GROUP + h]);
        const float by = expf(largest[h] - most);
        const float whole = total[h] * by + expf(sinks[head * GROUP + h] - most);
        *(uint2*)(out + query + h * D + d) = make_uint2(to_bf16x2(sum[0] * by / whole, sum[1] * by / whole),
                                                        to_bf16x2(sum[2] * by / whole, sum[3] * by / whole));
    }
    if (splits == 1) return;
    __threadfence();
    __syncthreads();
    if (t == 0) arrived = atomicAdd(counters + b * n_kv + head, 1);
    __syncthreads();
    if (arrived != splits - 1) return;
    __threadfence();
    if (t == 0) counters[b * n_kv + head] = 0;
    part = all_parts;
    for (int i = t; i < GROUP * D; i += THREADS) {
        const int h = i / D, d = i % D;
        const float sink = sinks[head * GROUP + h];
        float most = sink, sum = 0.0f;
        for (int s = 0; s < splits; s++) most = fmaxf(most, __ldcg(part + ((u64)s * GROUP + h) * (D + 2) + D));
        float whole = expf(sink - most);
        for (int s = 0; s < splits; s++) {
            const float* of = part + ((u64)s * GROUP + h) * (D + 2);
            const float by = expf(__ldcg(of + D) - most);
            whole += __ldcg(of + D + 1) * by, sum += __ldcg(of + d) * by;
        }
        out[query + i] = to_bf16(sum / whole);
    }
}
