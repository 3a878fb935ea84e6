// decode/experts_sm90.cu, or experts_wide_sm90.cu with WIDE_FORM, against sums in f64: experts with no, few and more
// rows than a group has, an odd number of blocks a line, low-rank rows, SwiGLU. run.sh makes kernels.h.
#include "block.h"
#ifdef WIDE_FORM
#define CHAINS 4
#define WARPS 2
#define STAGES 2
#define THREADS (WARPS * 32)
#define STAGE_OF_WEIGHTS (2 * (((N_IN + 63) / 64 + CHAINS - 1) / CHAINS) * 544)
#define STAGE_OF_END (32 * (RANK + 1) * 2)
#define STAGE_BYTES (((STAGE_OF_WEIGHTS > STAGE_OF_END ? STAGE_OF_WEIGHTS : STAGE_OF_END) + 127) / 128 * 128)
#else
#define WARPS 4
#define STAGES 3
#define THREADS ((WARPS + STAGES) * 32)
#define STAGE_BYTES ((16 * (N_IN / 32 * 17 + 2 + RANK * 2) + 127) / 128 * 128)
#endif
#define ROW_BYTES ((N_IN + 63) / 64 * 128)
alignas(1024) static u8 memory[200000];
// ---- what is PTX in sm90.cuh and mma.cuh
inline void barrier_expect(u32 barrier, u32) { barrier_arrive(barrier); }
inline void bulk_copy(u32 to, const void* from, u32 bytes, u32) {
    if (bytes % 16 || (uintptr_t)shared_pointer(to) % 16 || (uintptr_t)from % 16) puts("unaligned copy"), abort();
    memcpy(shared_pointer(to), from, bytes);
}
inline void multiply16_free(float* d, const u32 (&a)[4], u32 b0, u32 b1) { multiply16(d, a, b0, b1); }
#include "kernels.h"
#ifdef WIDE_FORM
#define FORM "wide step"
#else
#define FORM "step"
#endif

int main() {
    std::mt19937 rng(5);
    std::normal_distribution<float> normal;
    static const double levels[8] = {0, .5, 1, 1.5, 2, 3, 4, 6};
    double worst = 0;
    for (std::vector<int> counts : {std::vector<int>{0, 1, 0, 3}, {9, 2, 37, 0}})
        for (int gathered = 0; gathered < 2; gathered++) {
            const int E = (int)counts.size(), n_out = 96, top_k = 2;
            std::vector<int> offsets{0};
            for (int n : counts) offsets.push_back(offsets.back() + n);
            const int P = offsets.back();
            const size_t lines = (size_t)E * n_out, numbers = lines * N_IN;
            auto blocks = aligned<u8>(numbers / 2), scales = aligned<u8>(numbers / 32),
                 tiles = aligned<u8>(numbers / 2), of_tiles = aligned<u8>(numbers / 32);
            for (size_t i = 0; i < numbers / 2; i++) blocks[i] = rng();
            for (size_t i = 0; i < numbers / 32; i++) scales[i] = 120 + rng() % 9;
            tile(blocks, scales, lines, N_IN, tiles, of_tiles);
            auto halves = [&](size_t n, float k) {
                auto x = aligned<bf16>(n);
                for (size_t i = 0; i < n; i++) x[i] = k ? to_bf16(normal(rng) * k) : 0x7fc0;
                return x;
            };
            const int width = RANK ? RANK : 1;
            auto a = halves((size_t)P * N_IN, 1), bias = halves(lines, 1), u = halves((size_t)P * width, .3f),
                 v = halves(lines * width, .3f), out = halves((size_t)P * n_out, 0),
                 h = halves((size_t)P * n_out / 2, 0);
            std::vector<int> pairs(P);
            for (int i = 0; i < P; i++) pairs[i] = i;
            std::shuffle(pairs.begin(), pairs.end(), rng);
            // Blocks one after the other: what is static in them is made anew.
            for (int block = 0; block < 3; block++) {
                memset(memory, 0xff, sizeof memory);
                meetings.clear();
                phases.clear();
                run({1, 1, 1}, THREADS, [&] {
                    gridDim = {3, 1, 1}, blockIdx = {block, 0, 0};
                    step_experts(a, gathered ? pairs.data() : nullptr, tiles, of_tiles, nullptr, bias,
                                 RANK ? u : nullptr, RANK ? v : nullptr, offsets.data(), out, h, N_IN, top_k, E, n_out,
                                 N_IN, 7.0f, block % 2);
                });
            }
            double error[2] = {}, norm[2] = {};
            auto add = [&](int i, bf16 got, double y) {
                double d = to_float(got) - y;
                error[i] += d * d, norm[i] += y * y;
            };
            for (int e = 0; e < E; e++)
                for (int p = offsets[e]; p < offsets[e + 1]; p++) {
                    std::vector<double> y(n_out);
                    const int pair = gathered ? pairs[p] : p;
                    for (int n = 0; n < n_out; n++) {
                        const size_t line = (size_t)e * n_out + n;
                        for (int k = 0; k < N_IN; k++) {
                            const size_t at = line * N_IN + k;
                            const u8 nibble = blocks[at / 2] >> at % 2 * 4 & 15;
                            const double w =
                                levels[nibble & 7] * (nibble & 8 ? -1 : 1) * ldexp(1, scales[at / 32] - 127);
                            y[n] += w * to_float(a[(size_t)(gathered ? pair / top_k : p) * N_IN + k]);
                        }
                        for (int r = 0; r < RANK; r++)
                            y[n] += (double)to_float(u[pair * RANK + r]) * to_float(v[line * RANK + r]);
                        y[n] += to_float(bias[line]);
                        add(0, out[(size_t)p * n_out + n], y[n]);
                    }
                    for (int n = 0; n < n_out / 2; n++) {
                        const double gate = std::min(y[2 * n], 7.), up = std::max(std::min(y[2 * n + 1], 7.), -7.);
                        add(1, h[(size_t)p * n_out / 2 + n], (up + 1) * gate / (1 + exp(-1.702 * gate)));
                    }
                }
            const double first = sqrt(error[0] / norm[0]), second = sqrt(error[1] / norm[1]);
            worst = std::max(worst, std::isnan(first + second) ? 1e9 : std::max(first, second));
            printf(FORM " of experts, %d in, rank %d, %d rows%s: %.1e, SwiGLU %.1e\n", N_IN, RANK, P,
                   gathered ? ", gathered" : "", first, second);
        }
    puts(worst < 5e-3 ? "ok" : "WRONG");
    return worst < 5e-3 ? 0 : 1;
}
