// Products of rows, sorted by expert, with frozen packed experts, for every card from sm_80 on, with mma.sync: MXFP4,
// or NF4 where that is defined. The same arguments and, within rounding, the same results as packed_sm90.cu.
//
// A CTA of eight warps computes tiles of 128 rows and 256 columns, each warp all rows of 32 columns, so that a weight
// is decoded once a tile, into the very registers that are multiplied. A and the packed weights come by asynchronous
// copies into a ring of three steps of 64; scales come a step earlier and are turned into factors by the thread that
// copied them. Weights of the next 16 of the inner dimension are decoded between the products of this one. The warps
// meet once a step at an mbarrier, at which each arrives 32 products before it waits.
//
// Which column of a block of 8 is which is ours to choose: n of block j is column 4n + j of the warp's 32. Then a
// transposed load of packed lines gives a thread its columns, backward, and the accumulators of a thread are eight
// neighbors of a row in either direction, which it stores without help.
//
// Sums have one order: two runs give the same bytes. Launch: grid = multiprocessors.
#include "barrier.cuh"
#include "grouped.cuh"
#include "mma.cuh"

#define BLOCKS 8  // of 16 rows in a tile
#define ROWS (BLOCKS * 16)
#define WARPS 8
#define COLUMNS (WARPS * 32)
#define STAGES 3
#define PIECES (COLUMNS / 32)  // of 16 bytes in a tile's part of a packed line, backward
#define PAIRS (COLUMNS / 64)   // of 32-wide blocks there

// Where things are in shared memory, in bytes.
#define A_BYTES (ROWS * 128)
#define STAGE (A_BYTES + COLUMNS * 32)
#define FACTORS (STAGES * STAGE)
#define FACTOR_BYTES (COLUMNS * 4)          // of a step
#define RAW (FACTORS + 2 * FACTOR_BYTES)    // two words a thread, of two steps
#define RAW_BYTES (THREADS * 8)
#define TABLES (RAW + 2 * RAW_BYTES)
#define TILE (TABLES + TABLE_BYTES)
#define ARRIVED (TILE + 24)
static_assert(THREADS == WARPS * 32 && THREADS == 64 * PAIRS, "a thread has a column, or a line and two blocks");
static_assert(SHARED == ARRIVED + 8, "what lies there");
static_assert(PIECES == 8, "a line is 128 bytes");

using Tiles = Walk<ROWS, COLUMNS>;
static_assert(sizeof(Tiles) <= ARRIVED - TILE, "room for it");

__device__ __forceinline__ void copy_rows(u32 to, const void* from, bool inside, bool wanted) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.u32 p, %3, 0;\n@p cp.async.cg.shared.global [%0], [%1], 16, %2;\n}" ::"r"(to),
        "l"(from), "r"(inside ? 16 : 0), "r"((u32)wanted)
        : "memory");
}
__device__ __forceinline__ void copy_weights(u32 to, const void* from, bool wanted) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.u32 p, %2, 0;\n@p cp.async.cg.shared.global.L2::128B [%0], [%1], 16;\n}" ::"r"(to),
        "l"(from), "r"((u32)wanted)
        : "memory");
}
__device__ __forceinline__ void copy_word(u32 to, const void* from, bool wanted) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.u32 p, %2, 0;\n@p cp.async.ca.shared.global [%0], [%1], 4;\n}" ::"r"(to),
                 "l"(from), "r"((u32)wanted)
                 : "memory");
}
// A load that stays where it is: the compiler would keep many of them in registers that the sums need.
__device__ __forceinline__ uint4 load16_here(const void* from) {
    uint4 x;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "l"(from)
                 : "memory");
    return x;
}

// What a thread loads of a step's scales: the scales of two blocks of 32, or of NF4 a code and its nested scale.
struct Raw {
    u32 first, second;
};
// Of 32 of the inner dimension: the words of two lines, backward, and the factors.
struct Unit {
    u32 words[4];
#ifdef NF4
    float by[8];
#else
    u32 by[4];
#endif
};

// Sums of a tile of at most M blocks of 16 rows. `LARGE`: scales may need two factors; without it, false where that is
// so, and the sums are wrong.
template <bool TRANSPOSED, int M, bool LARGE>
__device__ __forceinline__ bool multiply(const Problem& g, const Tiles& tile, u32 shared, u32& parity,
                                         float (&acc)[M][4][4]) {
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, r = lane >> 2, q = lane & 3;
    const int steps = (g.n_in + STEP - 1) / STEP;
    const int wide = (TRANSPOSED ? g.n_out : g.n_in) / 32, lines = TRANSPOSED ? g.n_in : g.n_out;
    const u32 matrix = (u32)tile.expert * lines * wide;  // the expert's first block

    // Copies of A: 16 bytes, `chunk`, of some rows. Behind the last row it comes again, as do lines and columns behind
    // the last: those sums are not stored. Behind the inner dimension A is zero, and weights are any finite number.
    constexpr int A_COPIES = (M * 16 * 8 + THREADS - 1) / THREADS, W_COPIES = COLUMNS * 2 / THREADS;
    const int chunk = t & 7, a_row = t >> 3;
    u32 rows[A_COPIES];  // offsets in 16 bytes
#pragma unroll
    for (int i = 0; i < A_COPIES; i++) {
        const int place = tile.row + min(a_row + i * (THREADS / 8), tile.n_rows - 1);
        rows[i] = (u32)(g.pairs ? g.pairs[place] / g.top_k : place) * (u32)(g.a_ld / 8) + chunk;
    }
    const u32 a_to = shared + swizzled(a_row, chunk);
    auto fetch_rows = [&](int step, u32 stage, int i, bool wanted) {
        const bool inside = step * STEP + chunk * 8 < g.n_in;
        copy_rows(a_to + stage + i * (THREADS / 8 * 128), g.a + (inside ? step * STEP : 0) + (u64)rows[i] * 8, inside,
                  wanted);
    };
    // Of packed weights: forward [half of 32][column as above][16 bytes], backward [line][block of 32][16 bytes].
    const int half = t >> 3 & 1, w_column = (t >> 6) * 32 + (t & 7) * 4 + (t >> 4 & 3);
    const int piece = t % PIECES, w_line = t / PIECES;
    const u32 w_to = shared + A_BYTES +
                     (TRANSPOSED ? swizzled(w_line, piece) : half * (COLUMNS * 16) + ((t >> 4) * 8 + (t & 7)) * 16);
    const int w_block = TRANSPOSED ? min(tile.column / 32 + piece, wide - 1) : half;
    constexpr int W_NEXT = TRANSPOSED ? THREADS / PIECES : THREADS / 2;  // lines, or columns, from a copy to the next
    u32 w_from[W_COPIES];
    if (!TRANSPOSED)
#pragma unroll
        for (int i = 0; i < W_COPIES; i++) w_from[i] = (u32)min(tile.column + w_column + i * W_NEXT, lines - 1) * wide;
    const u8* weights = g.blocks + (u64)matrix * 16;
    auto fetch_weights = [&](int step, u32 stage, int i, bool wanted) {
        const u32 at = TRANSPOSED ? (u32)min(step * STEP + w_line + i * W_NEXT, lines - 1) * wide + w_block
                                  : w_from[i] + min(step * 2 + w_block, wide - 1);
        copy_weights(w_to + stage + i * (W_NEXT * (TRANSPOSED ? 128 : 16)), weights + (u64)at * 16, wanted);
    };

    // Scales: a thread has those of a column, forward, of a line and two blocks of 32 columns, backward. Factors of a
    // line are where the four threads of a quad find theirs beside each other.
    const int s_line = TRANSPOSED ? t / PAIRS : t, s_pair = TRANSPOSED ? t % PAIRS : 0;
    const int s_block = min(tile.column / 32 + s_pair * 2, wide - 1);
    const u32 s_from = TRANSPOSED ? s_block : (u32)min(tile.column + t, lines - 1) * wide;
    const u32 s_place = TRANSPOSED ? (s_line >> 1 & 3) * 16 + (s_line >> 3) * 2 + (s_line & 1) : t;
    const u32 raw = shared + RAW + t * 8;
    auto scale_at = [&](int step) {
        return TRANSPOSED ? (u32)min(step * STEP + s_line, lines - 1) * wide + s_from : s_from + step * 2;
    };
    auto more_at = [&](int step) { return (u32)((TRANSPOSED ? s_block : step * 2) + 1 < wide); };
    bool large = false;
#ifdef NF4
    const Scales scales = scales_of(g.scales, g.tables, tile.expert, g.n_experts, (u32)(lines * wide) / 2);
    const u32 levels = levels_of_lane(shared + TABLES);
    const u32 f_to = shared + FACTORS + (TRANSPOSED ? (s_pair * 64 + s_place) * 4 : s_place * 4);
    const u32 f_mine = shared + FACTORS + (TRANSPOSED ? ((warp >> 1) * 64 + q * 16) * 4 : (warp * 32 + r * 4) * 4);
    auto load_scales = [&](int step) {
        const u32 at = scale_at(min(step, steps - 1)) / 2;
        return Raw{load_byte(scales.codes + scales.first + at), __float_as_uint(scales.nested[at / 256])};
    };
    auto fetch_scales = [&](int step, bool wanted) {
        const u32 at = scale_at(step) / 2, to = raw + (step & 1) * RAW_BYTES;
        copy_word(to, scales.codes + ((scales.first + at) & ~3u), wanted);
        copy_word(to + 4, scales.nested + at / 256, wanted);
    };
    auto fetched_scales = [&](int step) {
        const u32 from = raw + (step & 1) * RAW_BYTES, at = scale_at(step) / 2;
        return Raw{shared_load(from) >> ((scales.first + at) & 3) * 8 & 0xff, shared_load(from + 4)};
    };
    auto store_factors = [&](int step, const Raw& x) {
        const float absmax = absmax_of(x.first, __uint_as_float(x.second), scales.offset, shared + TABLES);
        shared_store(f_to + (step & 1) * FACTOR_BYTES, __float_as_uint(absmax));
    };
#else
    const u32 f_to = shared + FACTORS + (TRANSPOSED ? (s_pair * 128 + s_place) * 2 : s_place * 4);
    const u32 f_mine = shared + FACTORS + (TRANSPOSED ? (warp * 64 + q * 16) * 2 : (warp * 32 + r * 4) * 4);
    auto load_scales = [&](int step) {
        step = min(step, steps - 1);
        const u8* from = g.scales + matrix + scale_at(step);
        return Raw{load_byte(from), load_byte(from + more_at(step))};
    };
    auto fetch_scales = [&](int step, bool wanted) {
        const u32 at = matrix + scale_at(step), to = raw + (step & 1) * RAW_BYTES;
        copy_word(to, g.scales + (at & ~3u), wanted);
        copy_word(to + 4, g.scales + ((at + more_at(step)) & ~3u), wanted);
    };
    auto fetched_scales = [&](int step) {
        const u32 from = raw + (step & 1) * RAW_BYTES, at = matrix + scale_at(step), more = at + more_at(step);
        return Raw{shared_load(from) >> (at & 3) * 8 & 0xff, shared_load(from + 4) >> (more & 3) * 8 & 0xff};
    };
    // As the first of the two factors that block_scale makes, or, where there may be a second, as they are.
    auto store_factors = [&](int step, const Raw& x) {
        if (!LARGE) large |= step < steps && max(x.first, x.second) > 128;
        const u32 first = LARGE ? x.first : (x.first + 126) << 7, second = LARGE ? x.second : (x.second + 126) << 7;
        const u32 to = f_to + (step & 1) * FACTOR_BYTES;
        if (TRANSPOSED) {
            shared_store(to, (bf16)first);
            shared_store(to + 128, (bf16)second);
        } else
            shared_store(to, first | second << 16);
    };
#endif

    // Decoding. `c`: which 16 of the step's 64; `j`: which block of 8 columns of the warp's 4.
    const u32 w_mine = shared + A_BYTES + (TRANSPOSED ? swizzled(lane, warp) : (warp * 32 + r) * 16);
    auto load_unit = [&](Unit& unit, int step, u32 stage, int h) {
        if (TRANSPOSED) load_matrices_transposed(unit.words, w_mine + stage + h * (32 * 128));
        if (!TRANSPOSED && h == 1) return;
        const u32 from = f_mine + (step & 1) * FACTOR_BYTES;
#ifdef NF4
        const uint4 x = shared_load16(from + (TRANSPOSED ? h * 32 : 0)),
                    y = TRANSPOSED ? shared_load16(from + h * 32 + 16) : x;
        const u32 all[8] = {x.x, x.y, x.z, x.w, y.x, y.y, y.z, y.w};
#pragma unroll
        for (int i = 0; i < 8; i++) unit.by[i] = __uint_as_float(all[i]);
#else
        const uint4 x = shared_load16(from + (TRANSPOSED ? h * 16 : 0));
        unit.by[0] = x.x, unit.by[1] = x.y, unit.by[2] = x.z, unit.by[3] = x.w;
#endif
    };
    auto decode = [&](const Unit& unit, u32 stage, int c, int j, u32(&x)[2]) {
        u32 words[2] = {unit.words[c % 2 * 2], unit.words[c % 2 * 2 + 1]};
        if (!TRANSPOSED) {
            float two[2];
            shared_load8(w_mine + stage + c / 2 * (COLUMNS * 16) + j * 128 + c % 2 * 8, two);
            words[0] = __float_as_uint(two[0]), words[1] = __float_as_uint(two[1]);
        }
#ifdef NF4
        if (TRANSPOSED) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const u32 four = j % 2 ? high_nibbles(words[i]) : low_nibbles(words[i]);
                const int line = (c % 2 * 2 + i) * 2;
                x[i] = numbers(level_of(four, pick(j / 2), levels), level_of(four, pick(j / 2 + 2), levels),
                               unit.by[line], unit.by[line + 1]);
            }
        } else {
            const u32 bytes = __byte_perm(words[0], words[1], q | (q + 4) << 4);
            const u32 low = low_nibbles(bytes), high = high_nibbles(bytes);
#pragma unroll
            for (int i = 0; i < 2; i++)
                x[i] = numbers(level_of(low, pick(i), levels), level_of(high, pick(i), levels), unit.by[j], unit.by[j]);
        }
#else
        const u32 both = __byte_perm(unit.by[j], 0, c / 2 ? 0x3232 : 0x1010);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const u32 word = words[i], byte = __byte_perm(word, 0, 0x4440 | q);
            if (!TRANSPOSED) x[i] = ((byte * 0x40040u) & 0x01c001c0u) | ((byte * 0x1001000u) & 0x80008000u);
            if (TRANSPOSED && j == 0) x[i] = ((word << 6) & 0x01c001c0u) | ((word << 12) & 0x80008000u);
            if (TRANSPOSED && j == 1) x[i] = ((word << 2) & 0x01c001c0u) | ((word << 8) & 0x80008000u);
            if (TRANSPOSED && j == 2) x[i] = ((word >> 2) & 0x01c001c0u) | ((word << 4) & 0x80008000u);
            if (TRANSPOSED && j == 3) x[i] = ((word >> 6) & 0x01c001c0u) | (word & 0x80008000u);
            const u32 by = TRANSPOSED ? unit.by[c % 2 * 2 + i] : both;
            if (LARGE) {
                const BlockScale low = block_scale(by & 0xffff), high = block_scale(by >> 16);
                x[i] = multiply_bf16x2(x[i], __byte_perm(low.first, high.first, 0x5410));
                x[i] = multiply_bf16x2(x[i], __byte_perm(low.second, high.second, 0x5410));
            } else
                x[i] = multiply_bf16x2(x[i], by);
        }
#endif
    };
    const u32 a_mine = shared + swizzled(lane & 15, lane >> 4);
    auto load_rows = [&](u32(&a)[4], u32 stage, int c, int m) {
        load_matrices(a, ((a_mine + stage) ^ (c << 5)) + m * 2048);
    };

#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) acc[m][j][i] = 0.0f;
    const Raw first = load_scales(0), second = load_scales(1);
#pragma unroll
    for (int s = 0; s < 2; s++) {
#pragma unroll
        for (int i = 0; i < A_COPIES; i++) fetch_rows(s, s * STAGE, i, s < steps);
#pragma unroll
        for (int i = 0; i < W_COPIES; i++) fetch_weights(s, s * STAGE, i, s < steps);
        if (s == 1) fetch_scales(2, 2 < steps);
        copy_commit();
    }
    store_factors(0, first);
    store_factors(1, second);
    copy_wait<1>();
    __syncthreads();

    // The steps. A warp whose columns are all behind the last one only copies.
    auto walk = [&](auto has_columns) {
        constexpr bool WORKS = decltype(has_columns)::value;
        constexpr int DEEP = 2;  // rows are loaded so many blocks ahead, less one
        u32 x[2][4][2], a[DEEP][4];
        Unit unit = {};
        if (WORKS) {
            load_unit(unit, 0, 0, 0);
#pragma unroll
            for (int j = 0; j < 4; j++) decode(unit, 0, 0, j, x[0][j]);
#pragma unroll
            for (int m = 0; m < DEEP - 1; m++) load_rows(a[m], 0, m / M, m % M);
        }
        u32 now = 0, next = STAGE, last = 2 * STAGE;
#pragma unroll 1
        for (int step = 0; step < steps; step++) {
#pragma unroll
            for (int c = 0; c < 4; c++) {
                if (c == 2) {
                    // This thread's part of the next step has arrived, and its warp is done with the last one.
                    copy_wait<0>();
                    barrier_arrive_warp(shared + ARRIVED);
                }
                if (c == 3) {
                    barrier_poll(shared + ARRIVED, parity);
                    parity ^= 1;
                }
                if (WORKS && c == 1) load_unit(unit, step, now, 1);
                if (WORKS && c == 3) load_unit(unit, step + 1, next, 0);
#pragma unroll
                for (int m = 0; m < M; m++) {
                    if (WORKS) {
                        const int ahead = c * M + m + DEEP - 1;
                        load_rows(a[ahead % DEEP], ahead / M < 4 ? now : next, ahead / M % 4, ahead % M);
#pragma unroll
                        for (int j = m * 4 / M; j < (m + 1) * 4 / M; j++)
                            decode(unit, c < 3 ? now : next, (c + 1) % 4, j, x[(c + 1) & 1][j]);
                    }
                    if (c == 3) {
                        const bool wanted = step + 2 < steps;
#pragma unroll
                        for (int i = m * A_COPIES / M; i < (m + 1) * A_COPIES / M; i++)
                            fetch_rows(step + 2, last, i, wanted);
#pragma unroll
                        for (int i = m * W_COPIES / M; i < (m + 1) * W_COPIES / M; i++)
                            fetch_weights(step + 2, last, i, wanted);
                        if (m == M / 2) store_factors(step + 2, fetched_scales(step + 2));
                        if (m == M - 1) fetch_scales(step + 3, step + 3 < steps);
                    }
                    if (WORKS)
#pragma unroll
                        for (int j = 0; j < 4; j++)
                            multiply16(acc[m][j], a[(c * M + m) % DEEP], x[c & 1][j][0], x[c & 1][j][1]);
                }
            }
            copy_commit();
            const u32 spare = now;
            now = next, next = last, last = spare;
        }
    };
    const bool works = tile.column + warp * 32 < g.n_out;
    if (works)
        walk(Bool<true>{});
    else
        walk(Bool<false>{});

    // One more step: both factors of the low-rank path, straight from device memory, eight neighbors of k in a thread.
    if (g.u && works) {
#pragma unroll 1
        for (int h = 0; h < 2; h++) {
            uint4 right[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const u64 column = (u64)tile.expert * g.n_out + tile.column + warp * 32 + r * 4 + j;
                right[j] = load16_here(g.v + column * RANK_WIDTH + h * 32 + q * 8);
            }
#pragma unroll
            for (int m = 0; m < M; m++) {
                const bf16* from = g.u + (u64)tile.row * RANK_WIDTH + h * 32 + q * 8;
                const uint4 y = load16_here(from + min(m * 16 + r, tile.n_rows - 1) * RANK_WIDTH),
                            z = load16_here(from + min(m * 16 + r + 8, tile.n_rows - 1) * RANK_WIDTH);
                const u32 left[2][4] = {{y.x, z.x, y.y, z.y}, {y.z, z.z, y.w, z.w}};
#pragma unroll
                for (int j = 0; j < 4; j++) multiply16(acc[m][j], left[0], right[j].x, right[j].y);
#pragma unroll
                for (int j = 0; j < 4; j++) multiply16(acc[m][j], left[1], right[j].z, right[j].w);
            }
        }
    }
    // Nobody reads the ring any more.
    return LARGE | !__syncthreads_or(large);
}

// Each thread stores eight neighbors of its rows.
template <int M>
__device__ __forceinline__ void store(const Problem& g, const Tiles& tile, const float (&acc)[M][4][4]) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, r = lane >> 2, q = lane & 3;
    const int column = tile.column + warp * 32 + q * 8;
    if (column >= g.n_out) return;
    float bias[8] = {};
    if (g.bias) unpack8(load16(g.bias + (u64)tile.expert * g.n_out + column), bias);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int row = m * 16 + r + e * 8;
            if (row >= tile.n_rows) continue;
            const u64 place = tile.row + row;
            float x[8];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                x[j] = acc[m][j][e * 2] + bias[j];
                x[j + 4] = acc[m][j][e * 2 + 1] + bias[j + 4];
            }
            if (g.out) store16(g.out + place * g.n_out + column, pack8(x));
            if (g.h) {
                u32 h[2];
#pragma unroll
                for (int i = 0; i < 2; i++)
                    h[i] =
                        to_bf16x2(swiglu(x[i * 4], x[i * 4 + 1], g.limit), swiglu(x[i * 4 + 2], x[i * 4 + 3], g.limit));
                *(uint2*)(g.h + place * (g.n_out / 2) + column / 2) = make_uint2(h[0], h[1]);
            }
        }
}

// A tile of at most M blocks of rows, if no scale is large.
template <bool TRANSPOSED, int M>
__device__ __forceinline__ bool make(const Problem& g, const Tiles& tile, u32 shared, u32& parity) {
    float acc[M][4][4];
    if (!multiply<TRANSPOSED, M, false>(g, tile, shared, parity, acc)) return false;
    store<M>(g, tile, acc);
    return true;
}

template <bool TRANSPOSED> __device__ __forceinline__ void grouped(const Problem& g) {
    extern __shared__ __align__(128) u8 dynamic[];
    const u32 shared = shared_address(dynamic);
    // The walk is in shared memory, because the sums leave no registers for it.
    Tiles& tile = *(Tiles*)(dynamic + TILE);
    fill_tables(g.tables, shared + TABLES);
    if (threadIdx.x == 0) {
        tile.expert = tile.before = 0;
        barrier_init(shared + ARRIVED, WARPS);
    }
    u32 parity = 0;
#pragma unroll 1
    for (int index = blockIdx.x;; index += gridDim.x) {
        __syncthreads();
        if (threadIdx.x == 0 && !tile.go(index, g.offsets, g.n_experts, g.n_out)) tile.n_rows = 0;
        __syncthreads();
        if (tile.n_rows == 0) break;
        const int blocks = (tile.n_rows + 15) / 16;
        const bool made = blocks <= 2   ? make<TRANSPOSED, 2>(g, tile, shared, parity)
                          : blocks <= 4 ? make<TRANSPOSED, 4>(g, tile, shared, parity)
                                        : make<TRANSPOSED, BLOCKS>(g, tile, shared, parity);
        if (made) continue;
        // Some scale needs two factors: no published checkpoint has one, so this may take its time.
        Tiles part = tile;
#pragma unroll 1
        for (int row = 0; row < tile.n_rows; row += 16) {
            part.row = tile.row + row, part.n_rows = min(16, tile.n_rows - row);
            float acc[1][4][4];
            multiply<TRANSPOSED, 1, true>(g, part, shared, parity, acc);
            store<1>(g, part, acc);
        }
    }
}

#define KERNEL(name, transposed)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                   \
        name(const bf16* a, const int* pairs, const u8* blocks, const u8* scales, const float* tables,         \
             const bf16* bias, const bf16* u, const bf16* v, const int* offsets, bf16* out, bf16* h, int a_ld, \
             int top_k, int n_experts, int n_out, int n_in, float limit) {                                     \
        Problem g = {a,   pairs, blocks, scales, tables,    bias,  u,    v,    offsets,                        \
                     out, h,     a_ld,   top_k,  n_experts, n_out, n_in, limit};                               \
        grouped<transposed>(g);                                                                                \
    }

KERNEL(experts_forward, false)
KERNEL(experts_backward, true)
