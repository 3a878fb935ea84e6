// Products of rows, sorted by expert, with frozen packed experts, for every card from sm_80 on, with mma.sync: MXFP4,
// or NF4 where that is defined. The same arguments and, within rounding, the same results as packed_sm90.cu.
//
// A CTA of eight warps computes tiles of up to 160 rows (128 of NF4) and 256 columns, each warp all rows of 32 columns,
// so that a weight is decoded once a tile, into the very registers that are multiplied. Where fewer columns are left,
// warps share them and divide the rows. A and the packed weights come by asynchronous copies into a ring of three steps
// of 64, which goes on from a tile to the next: the next tile's first steps come while this one is multiplied and
// stored. Weights of the next 16 of the inner dimension are decoded between the products of this one. The warps meet
// at mbarriers, at which each arrives some products before it waits: one says that the next step has come, the other
// that the last one's stage may be filled again. Steps of few rows take less time than memory needs to answer, and so
// their copies begin as early as they may; those of many rows begin later, at one meeting for both.
//
// Sums have one order, whatever the tile: two runs give the same bytes. Launch: grid = multiprocessors.
#ifdef NF4
#include "portable_nf4.cuh"
#else
#include "portable_mxfp4.cuh"
#endif

static_assert(SHARED == LEFT + 8, "what lies there");

constexpr int A_LINES = THREADS / 8, A_COPIES = ROWS / A_LINES;  // rows that the block copies at once, and how often
static_assert(ROWS % A_LINES == 0 && ROWS <= THREADS, "whole copies");

extern __shared__ __align__(128) u8 dynamic[];
// Four tiles: one that a slow warp may still store, this one, the next, and one that is being found. They are here,
// because the sums leave no registers for them.
__device__ __forceinline__ Tile* slots() { return (Tile*)(dynamic + SLOTS); }
__device__ __forceinline__ Tiles& walker() { return *(Tiles*)(dynamic + WALKER); }

// What goes on from a tile to the next: the ring, and what is copied into it, two steps ahead of what is multiplied.
template <bool TRANSPOSED> struct Ring {
    const Problem& g;
    u32 shared, turn = 0, now = 0, next = STAGE, last = 2 * STAGE;
    int steps, count = 0;
    // Of the tile that is copied.
    Source<TRANSPOSED> weights;
    u32 lines[A_COPIES];  // of this thread, in pieces of 16 bytes
    int n_rows;
    int until;  // how many steps they are inside of the inner dimension

    __device__ __forceinline__ explicit Ring(const Problem& g)
        : g(g),
          shared(shared_address(dynamic)),
          steps(steps_of(g)),
          weights(g, shared),
          until((g.n_in + STEP - 1 - (threadIdx.x & 7) * 8) / STEP) {}

    __device__ __forceinline__ const Tile& tile(int ahead) const { return slots()[(count + ahead) & 3]; }
    // One thread: the tile so many ahead, which is the next one; none has no rows.
    __device__ __forceinline__ void find(int ahead) {
        if (threadIdx.x != 0) return;
        Tiles walk = walker();
        if (!walk.next(shared + WALK, g.n_experts, g.n_out)) walk.n_rows = 0;
        walker() = walk, slots()[(count + ahead) & 3] = walk;
    }
    __device__ __forceinline__ u32 lines_of(int ahead) const {
        return shared + LINES + ((count + ahead) & 1) * LINES_BYTES;
    }
    // Where the tile's rows are, in pieces of 16 bytes. Behind the last row it comes again: those sums are not stored.
    __device__ __forceinline__ void look_up(int ahead) {
        const Tile& tile = this->tile(ahead);
        const int t = threadIdx.x;
        if (t < ROWS && tile.n_rows > 0) {
            const int place = tile.row + min(t, tile.n_rows - 1);
            const u32 row = g.pairs ? g.pairs[place] / g.top_k : place;
            shared_store(lines_of(ahead) + t * 4, row * (u32)(g.a_ld / 8));
        }
    }
    // From now on it is copied.
    __device__ __forceinline__ void go(int ahead) {
        const Tile& tile = this->tile(ahead);
        n_rows = tile.n_rows;
        if (n_rows == 0) return;
#pragma unroll
        for (int i = 0; i < A_COPIES; i++)
            lines[i] = shared_load(lines_of(ahead) + ((threadIdx.x >> 3) + i * A_LINES) * 4) + (threadIdx.x & 7);
        weights.go(g, tile);
    }
    // All of a step at once: the compiler puts instructions that do nothing before each copy that comes behind a load
    // from shared memory. Rows are zero behind the inner dimension.
    __device__ __forceinline__ void fetch(int step, u32 stage) const {
        const u32 to = shared + swizzled(threadIdx.x >> 3, threadIdx.x & 7) + stage;
        const bool inside = step < until;
        u64 from = (u64)(g.a + (inside ? step * STEP : 0));
        asm("" : "+l"(from));  // added up once, not for each copy
#pragma unroll
        for (int i = 0; i < A_COPIES; i++)
            copy_rows(to + i * (A_LINES * 128), (const void*)(from + (u64)lines[i] * 16), inside, i * A_LINES < n_rows);
#pragma unroll
        for (int i = 0; i < W_COPIES; i++) weights.fetch(g, step, stage, i, n_rows > 0);
        weights.fetch_scales(g, step, stage, n_rows > 0);
    }
};

constexpr int SHORT = 5;  // blocks of a warp up to which copies begin early

// Sums of a tile, at most M blocks of 16 rows a warp. Its first step has arrived, its second is on its way; in the end
// so are those of the next tile.
template <bool TRANSPOSED, int M>
__device__ __forceinline__ void multiply(Ring<TRANSPOSED>& ring, const Part& part, float (&acc)[M][4][4]) {
    const Problem& g = ring.g;
    const int lane = threadIdx.x & 31, r = lane >> 2, q = lane & 3;
    const int steps = ring.steps;
    const u32 shared = ring.shared;
    const Weights<TRANSPOSED> weights(part, shared);

    const u32 a_mine = shared + part.block * 2048 + swizzled(lane & 15, lane >> 4);
    auto load_rows = [&](u32(&a)[4], u32 stage, int c, int m) {
        load_matrices(a, ((a_mine + stage) ^ (c << 5)) + m * 2048);
    };

#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) acc[m][j][i] = 0.0f;

    // The steps. A warp without work only copies.
    auto walk = [&](auto has_work) {
        constexpr bool WORKS = decltype(has_work)::value;
        constexpr bool EARLY = M <= SHORT;
        constexpr int DEEP = 2;  // rows are loaded so many blocks ahead, less one
        u32 x[2][4][2], a[DEEP][4];
        Unit unit = {};
        if (WORKS) {
            weights.load(unit, ring.turn, ring.now, 0);
#pragma unroll
            for (int j = 0; j < 4; j++) weights.decode(unit, ring.now, 0, j, x[0][j]);
#pragma unroll
            for (int m = 0; m < DEEP - 1; m++) load_rows(a[m], ring.now, m / M, m % M);
        }
        // Three runs of steps: what is copied belongs to the next tile in the last two steps, and scales that come
        // before their weights in the last three.
        int step = 0;
#pragma unroll 1
        for (int run = 0; run < 3; run++) {
            const int end = steps - (run == 0 ? 3 : run == 1 ? 2 : 0);
            const int ahead = run == 2 ? 2 - steps : 2, further = run >= 1 ? 3 - steps : 3;
#pragma unroll 1
            for (; step < end; step++) {
                const u32 now = ring.now, next = ring.next;
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    // The warp is done with the last step.
                    if (c == (EARLY ? 0 : 2)) barrier_arrive_warp(shared + LEFT);
                    if (c == 2) {
                        // This thread's part of the next step has arrived.
                        copy_wait<0>();
                        barrier_arrive_warp(shared + ARRIVED);
                    }
                    // Who has arrived there has left before.
                    if (EARLY && c == 1) barrier_poll(shared + LEFT, ring.turn & 1);
                    if (c == 3) barrier_poll(shared + ARRIVED, ring.turn & 1);
                    if (WORKS && c == 1) weights.load(unit, ring.turn, now, 1);
                    if (WORKS && c == 3) weights.load(unit, ring.turn + 1, next, 0);
#pragma unroll
                    for (int m = 0; m < M; m++) {
                        if (WORKS) {
                            const int block = c * M + m + DEEP - 1;
                            load_rows(a[block % DEEP], block / M < 4 ? now : next, block / M % 4, block % M);
#pragma unroll
                            for (int j = m * 4 / M; j < (m + 1) * 4 / M; j++)
                                weights.decode(unit, c < 3 ? now : next, (c + 1) % 4, j, x[(c + 1) & 1][j]);
                        }
                        if (c == (EARLY ? 1 : 3) && m == (EARLY ? 0 : M / 2)) ring.fetch(step + ahead, ring.last);
                        if (c == 3 && m == M / 2) ring.weights.go_on(g, ring.turn, step + further);
                        if (WORKS)
#pragma unroll
                            for (int j = 0; j < 4; j++)
                                multiply16(acc[m][j], a[(c * M + m) % DEEP], x[c & 1][j][0], x[c & 1][j][1]);
                    }
                }
                copy_commit();
                ring.turn++;
                ring.now = next, ring.next = ring.last, ring.last = now;
            }
            if (run == 0) ring.weights.go_scales(g, ring.tile(1));
            if (run == 1) ring.go(1);
        }
    };
    if (part.works(ring.tile(0), g.n_out))
        walk(Bool<true>{});
    else
        walk(Bool<false>{});

    // One more step: both factors of the low-rank path, straight from device memory, eight neighbors of k in a thread.
    const Tile& tile = ring.tile(0);
    const Part again(tile, g.n_out);  // it need not stay in registers meanwhile
    if (g.u && again.works(tile, g.n_out)) {
#pragma unroll 1
        for (int h = 0; h < 2; h++) {
            // The tile is read again in each turn, so that no place has a register in between.
            const volatile Tile& here = tile;
            // Columns of the blocks are as far apart in each lane.
            const u32 column = here.column + again.group * 32 + weights.column(0, r);
            const bf16* from = g.v + ((u64)here.expert * g.n_out + column) * RANK_WIDTH + h * 32 + q * 8;
            uint4 right[4];
#pragma unroll
            for (int j = 0; j < 4; j++) right[j] = load16_here(from + weights.column(j, 0) * RANK_WIDTH);
            const int last = here.n_rows - 1;
            // Places are counted in 32 bits, because an address more would be spilled.
            const u32 place = here.row * RANK_WIDTH + h * 32 + q * 8;
#pragma unroll
            for (int m = 0; m < M; m++) {
                const int row = (again.block + m) * 16 + r;
                const uint4 y = load16_here(g.u + (place + (u32)min(row, last) * RANK_WIDTH)),
                            z = load16_here(g.u + (place + (u32)min(row + 8, last) * RANK_WIDTH));
                const u32 left[2][4] = {{y.x, z.x, y.y, z.y}, {y.z, z.z, y.w, z.w}};
#pragma unroll
                for (int j = 0; j < 4; j++) multiply16(acc[m][j], left[0], right[j].x, right[j].y);
#pragma unroll
                for (int j = 0; j < 4; j++) multiply16(acc[m][j], left[1], right[j].z, right[j].w);
            }
        }
    }
}

// Each thread stores eight columns of its rows, or two runs of four.
template <bool TRANSPOSED, int M>
__device__ __forceinline__ void store(const Problem& g, const Tile& tile, const float (&acc)[M][4][4]) {
    using Of = Weights<TRANSPOSED>;
    const Part part(tile, g.n_out);
    if (!part.works(tile, g.n_out)) return;
    const int lane = threadIdx.x & 31, r = lane >> 2, q = lane & 3;
    const int group = tile.column + part.group * 32, column = group + Of::first();
    float bias[8] = {};
    if (g.bias) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            bias[i] = to_float(g.bias[(u64)tile.expert * g.n_out + group + Of::column(i / 2, q * 2 + i % 2)]);
    }
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float x[8];
#pragma unroll
            for (int i = 0; i < 8; i++) x[i] = acc[m][i / 2][e * 2 + i % 2] + bias[i];
            Of::sort(x);
            uint4 packed = pack8(x);
            Of::exchange(packed);
            const int row = (part.block + m) * 16 + r + e * 8;
            if (m >= part.n_blocks || row >= tile.n_rows) continue;
            const u64 place = tile.row + row;
            if (g.out) {
                bf16* to = g.out + place * g.n_out + column;
                if (Of::APART == 4) {
                    store16(to, packed);
                } else {
                    *(uint2*)to = make_uint2(packed.x, packed.y);
                    *(uint2*)(to + Of::APART) = make_uint2(packed.z, packed.w);
                }
            }
            if (!TRANSPOSED && g.h) {
                u32 h[2];
#pragma unroll
                for (int i = 0; i < 2; i++)
                    h[i] =
                        to_bf16x2(swiglu(x[i * 4], x[i * 4 + 1], g.limit), swiglu(x[i * 4 + 2], x[i * 4 + 3], g.limit));
                bf16* to = g.h + place * (g.n_out / 2) + column / 2;
                if (Of::APART == 4)
                    *(uint2*)to = make_uint2(h[0], h[1]);
                else
                    *(u32*)to = h[0], *(u32*)(to + Of::APART / 2) = h[1];
            }
        }
}

// With the first of the forms that has room for the warps' blocks.
template <bool TRANSPOSED, int M, int... MORE>
__device__ __forceinline__ void make(Ring<TRANSPOSED>& ring, const Part& part) {
    if constexpr (sizeof...(MORE) > 0)
        if (part.n_blocks > M) return make<TRANSPOSED, MORE...>(ring, part);
    float acc[M][4][4];
    multiply<TRANSPOSED, M>(ring, part, acc);
    store<TRANSPOSED, M>(ring.g, ring.tile(0), acc);
}

template <bool TRANSPOSED> __device__ __forceinline__ void grouped(const Problem& g) {
    Ring<TRANSPOSED> ring(g);
    fill_tables(g.tables, ring.shared + TABLES);
    // What no copy fills must be finite.
    for (int i = threadIdx.x; i < BESIDE / 4; i += THREADS) shared_store(ring.shared + i * 4, 0u);
    if (threadIdx.x == 0) {
        walker() = {};
        barrier_init(ring.shared + ARRIVED, WARPS), barrier_init(ring.shared + LEFT, WARPS);
    }
    prepare_walk<ROWS>((int*)(dynamic + WALK), g.offsets, g.n_experts);
    __syncthreads();
    ring.find(0), ring.find(1);
    __syncthreads();
    if (ring.tile(0).n_rows == 0) return;
    ring.look_up(0);
    __syncthreads();
    ring.go(0), ring.weights.go_scales(g, ring.tile(0));
#pragma unroll
    for (int s = 0; s < 2; s++) {
        ring.fetch(s, s * STAGE);
        if (s == 1) ring.weights.begin(g);
        copy_commit();
    }
    copy_wait<1>();
    __syncthreads();
#pragma unroll 1
    for (; ring.tile(0).n_rows > 0; ring.count++) {
        ring.find(2);
        ring.look_up(1);
        make<TRANSPOSED, FORMS>(ring, Part(ring.tile(0), g.n_out));
#if __CUDA_ARCH__ >= 1000
        asm volatile("" : "+r"(ring.count));  // so that places of tiles are counted again and not kept
#endif
    }
    copy_wait<0>();
}

// One at a time, so that two threads share the time that the compiler takes.
#if BACKWARD
GROUPED_KERNEL(experts_backward, true, THREADS, 1)
#else
GROUPED_KERNEL(experts_forward, false, THREADS, 1)
#endif
