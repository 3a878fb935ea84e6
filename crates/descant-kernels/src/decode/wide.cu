// Products of more rows than `thin.cu` takes with a bf16 matrix, in the same order of every sum, so with its bits.
//
//   out[b, n] = sum_k x[b, k] W[n, k]
//
// A block has a tile of rows and of columns, and warps of 32 x 32. Both operands come through a ring in shared memory,
// a pair of chunks of k at a time, in the order of `order.cuh`: part after part. Where tiles are few, SHARES blocks
// share out the parts of each; the last of them to arrive adds what all left, in the order of the parts.
#include "mma.cuh"
#include "order.cuh"
#include "step.cuh"

#define SIDE 32   // of a warp's tile
#define LINE 128  // bytes of a row of a pair
#define ACROSS (COLUMNS / SIDE)
static_assert(COLUMNS == 64 && BAND == SIDE && BAND_THREADS == ACROSS * 32, "two warps a band");
static_assert(PARTS == 2 * SHARES, "a share has a sum of two parts");

// Where 16 bytes of a row of a stage lie: rows in turn have their halves exchanged, so that no two lanes that read at a
// time meet in a bank.
__device__ __forceinline__ int place(int row, int piece) { return row * LINE + ((piece ^ ((row & 1) << 2)) << 4); }

// The pairs of chunks of parts `part` to below `end`, one after the other.
struct Pairs {
    int part, pair, end, count;
    __device__ Pairs(int from, int to, int K) : part(from), pair(from), end(to), count((K / 32 + 1) / 2) { skip(); }
    __device__ bool is_there() const { return part < end; }
    __device__ void next() { pair += PARTS, skip(); }
    __device__ void skip() {
        while (part < end && pair >= count) part++, pair = part;
    }
};

// Adds `from` to `to`, and leaves zeros.
__device__ __forceinline__ void add_to(float (&to)[2][4][4], float (&from)[2][4][4]) {
#pragma unroll
    for (int i = 0; i < SIDE; i++) {
        float& f = from[i / 16][i / 4 % 4][i % 4];
        to[i / 16][i / 4 % 4][i % 4] += f, f = 0.0f;
    }
}

template <int BANDS, int SHARED>
__device__ __forceinline__ void product(const bf16* x, const bf16* w, const bf16* more, float* out, bf16* half, bf16* u,
                                        float4* left, int* arrived, int B, int K, int N, int R) {
    constexpr int ROWS = BANDS * BAND, THREADS = BANDS * BAND_THREADS, BYTES = (ROWS + COLUMNS) * LINE;
    constexpr int AT_ONCE = THREADS / 8;  // lines that all threads bring together
    extern __shared__ __align__(128) u8 stages[];
    __shared__ int ticket;
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, g = lane >> 2, q = lane & 3;
    const int of_w = (N + COLUMNS - 1) / COLUMNS, tile = blockIdx.y;
    const bool adapter = tile >= of_w;  // its rows by A
    const int columns = adapter ? R : N, first_column = (tile - (adapter ? of_w : 0)) * COLUMNS;
    const int first_row = blockIdx.x * ROWS, mine = SHARED ? PARTS / SHARES : PARTS;

    // Lines of x, then of the matrix; what is not there is zero. A thread has one piece of every so many lines.
    const int line = t >> 3, piece = t & 7;
    const bf16* const from_x = x + (u64)(first_row + line) * K + piece * 8;
    const bf16* const from_w = (adapter ? more : w) + (u64)(first_column + line) * K + piece * 8;
    const u32 ring = shared_address(stages), own = ring + place(line, piece);
    auto bring_x = [&](int stage, const Pairs& at) {
        const int k = at.pair * 64;
#pragma unroll
        for (int i = 0; i < ROWS / AT_ONCE; i++)
            copy_async16(own + stage * BYTES + i * AT_ONCE * LINE, from_x + (u64)(i * AT_ONCE) * K + k,
                         first_row + line + i * AT_ONCE < B && k + piece * 8 < K);
    };
    auto bring_w = [&](int stage, const Pairs& at) {
        const int k = at.pair * 64;
#pragma unroll
        for (int i = 0; i < COLUMNS / AT_ONCE; i++)
            copy_async16(own + stage * BYTES + (ROWS + i * AT_ONCE) * LINE, from_w + (u64)(i * AT_ONCE) * K + k,
                         first_column + line + i * AT_ONCE < columns && k + piece * 8 < K);
    };
    Pairs asked(blockIdx.z * mine, (blockIdx.z + 1) * mine, K), at = asked;
    // The matrix is nobody's work before this kernel: it comes first.
    Pairs first = asked;
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++, first.next())
        if (first.is_there()) bring_w(i, first);
    next_may_start();
    wait_for_earlier();
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++, asked.next()) {
        if (asked.is_there()) bring_x(i, asked);
        copy_commit();
    }

    const int band = warp / ACROSS * SIDE, side = warp % ACROSS * SIDE;
    float acc[2][4][4] = {}, sum[2][4][4] = {}, total[2][4][4] = {};
    int stage = 0;
#pragma unroll 1
    while (at.is_there()) {
        copy_wait<STAGES - 2>();
        __syncthreads();
        if (asked.is_there()) {
            const int free = stage == 0 ? STAGES - 1 : stage - 1;
            bring_w(free, asked);
            bring_x(free, asked);
            asked.next();
        }
        copy_commit();
        const u8* const from = stages + stage * BYTES;
#pragma unroll
        for (int chunk = 0; chunk < 2; chunk++) {
            uint4 a[2][2], b[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                a[i >> 1][i & 1] = *(const uint4*)(from + place(band + i * 8 + g, chunk * 4 + q));
                b[i] = *(const uint4*)(from + place(ROWS + side + i * 8 + g, chunk * 4 + q));
            }
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int n = 0; n < 4; n++) multiply32_free(acc[m][n], a[m][0], a[m][1], b[n]);
        }
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        const int part = at.part;
        at.next();
        if (at.part == part) continue;
        add_to(sum, acc);
        if (!SHARED && at.part / 2 != part / 2) add_to(total, sum);
    }
    if (SHARED) add_to(total, sum);

    if (SHARED) {
        // Each share leaves its sum of two parts; whoever comes last adds all of them from the first on.
        int* const counter = arrived + tile * gridDim.x + blockIdx.x;
        float4* const all = left + (u64)(counter - arrived) * SHARES * (SIDE / 4) * THREADS + t;
#pragma unroll
        for (int i = 0; i < SIDE / 4; i++) {
            const float* four = total[i / 4][i % 4];
            all[(blockIdx.z * (SIDE / 4) + i) * THREADS] = make_float4(four[0], four[1], four[2], four[3]);
        }
        __threadfence();
        __syncthreads();
        if (t == 0) ticket = atomicAdd(counter, 1);
        __syncthreads();
        if (ticket != SHARES - 1) return;
        __threadfence();
        if (t == 0) *counter = 0;
#pragma unroll
        for (int i = 0; i < SIDE / 4; i++) {
            float* four = total[i / 4][i % 4];
            four[0] = four[1] = four[2] = four[3] = 0.0f;
#pragma unroll 1
            for (int share = 0; share < SHARES; share++) {
                const float4 v = __ldcg(all + (share * (SIDE / 4) + i) * THREADS);
                four[0] += v.x, four[1] += v.y, four[2] += v.z, four[3] += v.w;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < SIDE / 2; i++) {
        const int m = i >> 3, n = i >> 1 & 3, upper = i & 1;
        const int row = first_row + band + m * 16 + upper * 8 + g, column = first_column + side + n * 8 + q * 2;
        if (row >= B || column >= columns) continue;
        const float* two = total[m][n] + upper * 2;
        const u64 to = (u64)row * columns + column;
        if (adapter || !out)
            *(u32*)((adapter ? u : half) + to) = to_bf16x2(two[0], two[1]);
        else
            *(float2*)(out + to) = make_float2(two[0], two[1]);
    }
}

// Grid: tiles of rows, tiles of columns, and shares where blocks share a tile.
#define WIDE(NAME, BANDS, SHARED, BLOCKS)                                                                   \
    extern "C" __global__ void __launch_bounds__(BANDS* BAND_THREADS, BLOCKS)                               \
        NAME(const bf16* x, const bf16* w, const bf16* more, float* out, bf16* half, bf16* u, float4* left, \
             int* arrived, int B, int K, int N, int R) {                                                    \
        product<BANDS, SHARED>(x, w, more, out, half, u, left, arrived, B, K, N, R);                        \
    }
WIDE(wide_1, 1, 0, 4)
WIDE(wide_2, 2, 0, 3)
WIDE(wide_shared_1, 1, 1, 4)
WIDE(wide_shared_2, 2, 1, 3)
WIDE(wide_shared_4, 4, 1, 2)
