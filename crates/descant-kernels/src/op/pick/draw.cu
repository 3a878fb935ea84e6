// A token of each row at random, as draw.rs defines it, to the bit: sums of integers have no order.
//
// One block a row. A first pass finds the largest and the smallest value, a second one counts how many tokens lie in
// each of BINS equal parts between them and adds up weights. Then the tokens of the first bins, up to WINDOW of them,
// are brought together and sorted, and a place in the order is found by their running sum. Where it is behind them,
// weights are added up by bin, and the bin that has it is sorted instead; where that has more tokens than a window, it
// is halved by key until one is left. A key is the value's order, the largest first, above the id.
#include "common.cuh"

#define BINS THREADS
#define WINDOW 2048
#define LOG2E_F 1.44269504088896341f
#define WANTS_TOTAL 1u
static_assert(THREADS == 32 * 32, "a warp for each lane of one");

// As Draw of draw.rs, and what a decoder knows of the row.
struct Draw {
    u64 key, top_p;
    float factor, least, penalty;
    u32 top_k;
    u32 step, flags;
};
static_assert(sizeof(Draw) == DRAW_BYTES, "as the host writes it");
// What the host reads: the id, -1 where a logit is not finite; its logit and the largest as the model gave them, and
// the sum of 2^ONE exp(logit - largest).
struct Drawn {
    int id;
    float logit, largest;
    u32 unused;
    u64 total;
};
static_assert(sizeof(Drawn) == DRAWN_BYTES, "as the host reads it");

__device__ __forceinline__ u64 mix(u64 z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
// Rounded product and sum apart, as the host has them.
__device__ __forceinline__ u64 weight(float x) {
    if (!(x >= -(float)ONE)) return 0;
    const float whole = rintf(x), f = __fsub_rn(x, whole);
    float p = 1.5353362e-4f;
    p = __fadd_rn(__fmul_rn(p, f), 1.3398874e-3f);
    p = __fadd_rn(__fmul_rn(p, f), 9.618437e-3f);
    p = __fadd_rn(__fmul_rn(p, f), 5.5503325e-2f);
    p = __fadd_rn(__fmul_rn(p, f), 2.4022648e-1f);
    p = __fadd_rn(__fmul_rn(p, f), 6.931472e-1f);
    p = __fadd_rn(__fmul_rn(p, f), 1.0f);
    return __float2ull_rz(__fmul_rn(p, __uint_as_float((u32)((int)whole + ONE + 127) << 23)));
}
__device__ __forceinline__ u32 descending(float value) {
    const u32 bits = __float_as_uint(__fadd_rn(value, 0.0f));
    return bits >> 31 ? bits : ~(bits | 0x80000000u);
}
__device__ __forceinline__ float value_of(u32 key) { return __uint_as_float(key >> 31 ? key : ~key & 0x7fffffffu); }
__device__ __forceinline__ u64 key_of(float value, int id) { return (u64)descending(value) << 32 | (u32)id; }

template <typename T, typename F> __device__ __forceinline__ T warp_join(T x, F join) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x = join(x, __shfl_xor_sync(FULL_WARP, x, offset));
    return x;
}
// All threads get the result; every thread has to come.
template <typename F> __device__ u64 block_join(u64 x, F join, u64* scratch) {
    x = warp_join(x, join);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = x;
    __syncthreads();
    return warp_join(scratch[threadIdx.x & 31], join);
}
struct Sum {
    __device__ u64 operator()(u64 a, u64 b) const { return a + b; }
};
struct Least {
    __device__ u64 operator()(u64 a, u64 b) const { return a < b ? a : b; }
};
struct Most {
    __device__ u64 operator()(u64 a, u64 b) const { return a > b ? a : b; }
};
// The sum of x over this thread and all before it.
__device__ u64 running_sum(u64 x, u64* scratch) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    x = warp_running_sum(x);
    __syncthreads();
    if (lane == 31) scratch[warp] = x;
    __syncthreads();
    u64 before = 0;
    for (int w = 0; w < warp; w++) before += scratch[w];
    return x + before;
}

struct Row {
    const bf16* logits;
    const u32* seen;
    float penalty;
    int V;
    // f(value, logit, id) for each token.
    template <typename F> __device__ __forceinline__ void each(F f) const {
        for (int i = threadIdx.x; i < V / 8; i += THREADS) {
            float x[8];
            unpack8(load16(logits + 8 * i), x);
            const u32 known = seen ? seen[i >> 2] >> ((i & 3) * 8) & 0xff : 0;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float value = x[j];
                if (known >> j & 1) value = value > 0.0f ? __fdiv_rn(value, penalty) : __fmul_rn(value, penalty);
                f(value, x[j], 8 * i + j);
            }
        }
    }
};

struct Shared {
    u64 keys[WINDOW], sums[WINDOW], masses[BINS];
    u32 counts[BINS];
    u64 scratch[32];
    u32 n;
};

// The order of a row's tokens, found as far as somebody asks. All threads take part in everything.
struct Order {
    const Row& row;
    Shared& s;
    float largest, factor, scale;
    bool has_masses;
    // The tokens that are sorted: how many, and the sum before them.
    int n;
    u64 before;

    __device__ __forceinline__ u64 weigh(float value) const {
        return weight(__fmul_rn(__fsub_rn(value, largest), factor));
    }
    __device__ __forceinline__ int bin(float value) const {
        return min(BINS - 1, __float2int_rz(__fmul_rn(__fsub_rn(largest, value), scale)));
    }
    // Sorts the tokens of the bins [from, to), at most WINDOW.
    __device__ __noinline__ void open(int from, int to, u64 sum_before) {
        const int t = threadIdx.x;
        __syncthreads();
        if (t == 0) s.n = 0;
        __syncthreads();
        if (from < to)
            row.each([&](float value, float, int id) {
                const int b = bin(value);
                if (b >= from && b < to) s.keys[atomicAdd(&s.n, 1u)] = key_of(value, id);
            });
        __syncthreads();
        n = s.n, before = sum_before;
        int size = 32;
        while (size < n) size *= 2;
        for (int i = n + t; i < size; i += THREADS) s.keys[i] = ~0ull;
        __syncthreads();
        for (int length = 2; length <= size; length *= 2)
            for (int apart = length / 2; apart > 0; apart /= 2) {
                const int low = (t / apart) * 2 * apart + t % apart, high = low + apart;
                if (high < size) {
                    const u64 a = s.keys[low], b = s.keys[high];
                    if ((a > b) == ((low & length) == 0)) s.keys[low] = b, s.keys[high] = a;
                }
                __syncthreads();
            }
        u64 two[2], both = 0;
#pragma unroll
        for (int j = 0; j < 2; j++) {
            two[j] = 2 * t + j < n ? weigh(value_of(s.keys[2 * t + j] >> 32)) : 0;
            both += two[j];
        }
        const u64 upto = running_sum(both, s.scratch);
        s.sums[2 * t] = upto - two[1], s.sums[2 * t + 1] = upto;
        __syncthreads();
    }
    __device__ __noinline__ void need_masses() {
        if (has_masses) return;
        has_masses = true;
        __syncthreads();
        s.masses[threadIdx.x] = 0;
        __syncthreads();
        row.each([&](float value, float, int) {
            const u64 w = weigh(value);
            if (w) atomicAdd(&s.masses[bin(value)], w);
        });
        __syncthreads();
        const u64 upto = running_sum(s.masses[threadIdx.x], s.scratch);
        s.masses[threadIdx.x] = upto;
        __syncthreads();
    }
    __device__ __forceinline__ u64 mass_before(int b) const { return b ? s.masses[b - 1] : 0; }
    __device__ __forceinline__ int count_before(int b) const { return b ? s.counts[b - 1] : 0; }
    __device__ __forceinline__ int count_of(int b) const { return s.counts[b] - count_before(b); }

    // The first key of a bin with which f's sum over it and the keys before is above `target`.
    template <typename F> __device__ __noinline__ u64 halve(int b, u64 target, F f) {
        u64 low = ~0ull, high = 0;
        row.each([&](float value, float, int id) {
            if (bin(value) != b) return;
            const u64 key = key_of(value, id);
            low = key < low ? key : low, high = key > high ? key : high;
        });
        low = block_join(low, Least(), s.scratch), high = block_join(high, Most(), s.scratch);
        while (low < high) {
            const u64 middle = low + (high - low) / 2;
            const u64 sum = upto(b, middle, f);
            if (sum > target)
                high = middle;
            else
                low = middle + 1;
        }
        return low;
    }
    // f's sum over the keys of a bin up to this one.
    template <typename F> __device__ __noinline__ u64 upto(int b, u64 last, F f) {
        u64 sum = 0;
        row.each([&](float value, float, int id) {
            if (bin(value) == b && key_of(value, id) <= last) sum += f(value);
        });
        return block_join(sum, Sum(), s.scratch);
    }
    // How many of the sorted tokens have this property; those that have it come first.
    template <typename F> __device__ int first(F has) const {
        const int t = threadIdx.x;
        return __syncthreads_count(t < n && has(t)) + __syncthreads_count(t + THREADS < n && has(t + THREADS));
    }

    // The first token with which the running sum is above `target`, which is below the sum of all, and that sum.
    __device__ __noinline__ u64 at(u64 target, int* id) {
        const bool is_here = n > 0 && target >= before && target < before + s.sums[n - 1];
        if (!is_here) {
            need_masses();
            const int b = __syncthreads_count(s.masses[threadIdx.x] <= target);
            const u64 sum_before = mass_before(b);
            if (count_of(b) > WINDOW) {
                const auto weighed = [&](float value) { return weigh(value); };
                const u64 key = halve(b, target - sum_before, weighed);
                *id = (u32)key;
                return sum_before + upto(b, key, weighed);
            }
            open(b, b + 1, sum_before);
        }
        const u64 within = target - before;
        const int place = first([&](int i) { return s.sums[i] <= within; });
        *id = (u32)s.keys[place];
        return before + s.sums[place];
    }
    // The sum of the first k tokens, which are not all, and of those that tie with the last of them.
    __device__ u64 first_sum(u32 k) {
        u32 rest = k;
        if (k > (u32)n) {
            need_masses();
            const int b = __syncthreads_count(s.counts[threadIdx.x] < k);
            rest = k - count_before(b);
            const u64 sum_before = mass_before(b);
            if (count_of(b) > WINDOW) {
                const u64 key = halve(b, rest - 1, [](float) { return 1ull; });
                return sum_before + upto(b, key | 0xffffffffull, [&](float value) { return weigh(value); });
            }
            open(b, b + 1, sum_before);
        }
        const u64 last = s.keys[rest - 1] | 0xffffffffull;
        return before + s.sums[first([&](int i) { return s.keys[i] <= last; }) - 1];
    }
};

// logits bf16 [B, V], V a multiple of 8 below 2^31; draws [B]; seen u32 [B, ceil(V / 32)], a bit a token, or null for
// none; drawn [B]. In a step of generation ids, positions i32 [B] advance to the next token, seen and the draw's step
// with them; else ids is null. Grid: B. Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    draw_tokens(const bf16* logits, Draw* draws, u32* seen, Drawn* drawn, int* ids, int* positions, int V) {
    __shared__ Shared s;
    const int t = threadIdx.x, b = blockIdx.x;
    const Draw draw = draws[b];
    u32* const known = seen && draw.penalty != 1.0f ? seen + (u64)b * ((V + 31) / 32) : nullptr;
    const Row row = {logits + (u64)b * V, known, draw.penalty, V};
    // The least key is the largest value, the lowest id of it.
    u64 best = ~0ull, worst = 0, top = ~0ull;
    bool is_bad = false;
    row.each([&](float value, float logit, int id) {
        const u64 key = key_of(value, id), plain = key_of(logit, id);
        best = key < best ? key : best, worst = key > worst ? key : worst, top = plain < top ? plain : top;
        is_bad |= !(fabsf(value) < __uint_as_float(0x7f800000u));
    });
    is_bad = __syncthreads_or(is_bad);
    best = block_join(best, Least(), s.scratch), worst = block_join(worst, Most(), s.scratch);
    top = block_join(top, Least(), s.scratch);
    int id = (int)(u32)best;
    const float largest = value_of(best >> 32), plain_largest = value_of(top >> 32);
    if (draw.factor > 0.0f && !is_bad) {
        const float range = __fsub_rn(largest, value_of(worst >> 32));
        Order order = {row, s, largest, draw.factor, range > 0.0f ? __fdiv_rn(BINS - 1, range) : 0.0f, false, 0, 0};
        __syncthreads();
        s.counts[t] = 0;
        __syncthreads();
        u64 all = 0, likely = 0;
        row.each([&](float value, float, int) {
            const float x = __fmul_rn(__fsub_rn(value, largest), draw.factor);
            const u64 w = weight(x);
            all += w, likely += x >= draw.least ? w : 0;
            atomicAdd(&s.counts[order.bin(value)], 1u);
        });
        all = block_join(all, Sum(), s.scratch), likely = block_join(likely, Sum(), s.scratch);
        const u32 upto = (u32)running_sum(s.counts[t], s.scratch);
        __syncthreads();
        s.counts[t] = upto;
        const int whole = __syncthreads_count(upto <= WINDOW);
        order.open(0, whole, 0);
        const u64 few = draw.top_k > 0 && draw.top_k < (u32)V ? order.first_sum(draw.top_k) : all;
        u64 kept = few < likely ? few : likely;
        if (draw.top_p < 1ull << 63) {
            const u64 high = __umul64hi(few, draw.top_p), low = few * draw.top_p;
            const u64 share = (high << 1 | low >> 63) + ((low & ~(1ull << 63)) != 0);
            const u64 sum = order.at(share - 1, &id);
            kept = sum < kept ? sum : kept;
        }
        const u64 number = mix(draw.key ^ mix(draw.step + 0x9e3779b97f4a7c15ull)) >> 11;
        const u64 high = __umul64hi(kept, number), low = kept * number;
        order.at(high << 11 | low >> 53, &id);
    }
    u64 total = 0;
    if (draw.flags & WANTS_TOTAL) {
        row.each(
            [&](float, float logit, int) { total += weight(__fmul_rn(__fsub_rn(logit, plain_largest), LOG2E_F)); });
        total = block_join(total, Sum(), s.scratch);
    }
    if (t > 0) return;
    const int told = is_bad ? -1 : id;
    drawn[b] = {told, to_float(row.logits[id]), plain_largest, 0, total};
    if (!ids) return;
    ids[b] = id, positions[b] += 1, draws[b].step = draw.step + 1;
    if (known) known[id >> 5] |= 1u << (id & 31);
}
