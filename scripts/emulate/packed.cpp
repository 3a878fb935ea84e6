// op/experts/packed.cu against sums in f64, MXFP4 and NF4: tiles with few rows and with more than one tile's, columns
// behind the last, inner dimensions that are no multiple of a step. run.sh makes kernels.h.
#include "block.h"
alignas(1024) static u8 dynamic[100000];
// ---- the functions of packed.cu that are PTX
static const u8 *weights_begin, *weights_end, *scales_begin, *scales_end;
inline void copy_rows(u32 to, const void* from, bool inside, bool wanted) {
    if (wanted) copy_async16(to, from, inside);
}
inline void copy_weights(u32 to, const void* from, bool wanted) {
    if (!wanted) return;
    const u8* at = (const u8*)from;
    if ((at < weights_begin || at + 16 > weights_end) && (at < scales_begin || at + 16 > scales_end))
        puts("outside of the weights"), abort();
    copy_async16(to, from);
}
inline void copy_word(u32 to, const void* from, bool wanted) {
    if ((uintptr_t)from % 4) puts("unaligned word"), abort();
    if (wanted) memcpy(shared_pointer(to), from, 4);
}
inline uint4 load16_here(const void* from) { return load16(from); }
inline float level_of(u32 nibbles, u32 picked, u32 levels) {
    for (int i = 0; i < 4; i++) levels += (nibbles >> 8 * i & 255) * (picked >> 8 * i & 255);
    return __uint_as_float(shared_load(levels));
}
#include "kernels.h"

int main() {
    std::mt19937 rng(3);
    std::normal_distribution<float> normal;
    static const double levels[8] = {0, .5, 1, 1.5, 2, 3, 4, 6};
    struct Case {
        int n_out, n_in;
        std::vector<int> rows;
        bool all;  // pairs, low rank and SwiGLU
    };
    double worst = 0;
    for (Case c : {Case{64, 64, {0, 5}, false},
                   {64, 32, {2, 0, 3}, false},
                   {320, 96, {40, 1}, true},
                   {448, 192, {130}, true},
                   {544, 160, {170, 0, 9}, true},
                   {384, 256, {161, 33, 1}, false},
                   {128, 192, {33, 3}, false}})
        for (int back = 0; back < 2; back++) {
#ifdef NF4
            if (c.n_in % 64 || c.n_out % 64) continue;
#endif
            const bool activates = c.all && !back;  // backward nothing does
            const int E = c.rows.size(), lines = back ? c.n_in : c.n_out, columns = back ? c.n_out : c.n_in;
            std::vector<int> offsets{0};
            for (int n : c.rows) offsets.push_back(offsets.back() + n);
            const int P = offsets.back();
            const size_t numbers = (size_t)E * lines * columns;
            auto blocks = aligned<u8>(numbers / 2), scales = aligned<u8>(numbers / 32 + 8);
            for (size_t i = 0; i < numbers / 2; i++) blocks[i] = rng();
            u8 *packed = blocks, *packed_scales = scales;
            const int in_matrix = lines * columns / 64, nested = (in_matrix + 255) / 256;
            std::vector<float> tables(16 + 256 + E + E * nested);
            for (auto& x : tables) x = normal(rng) * .3f;
#ifdef NF4
            for (size_t i = 0; i < numbers / 64; i++) scales[i] = rng();
#else
            for (size_t i = 0; i < numbers / 32; i++) scales[i] = 120 + rng() % 9;
            packed = aligned<u8>(numbers / 2), packed_scales = aligned<u8>(numbers / 32);
            tile(blocks, scales, (size_t)E * lines, columns, packed, packed_scales);
#endif
            weights_begin = packed, weights_end = packed + numbers / 2;
            scales_begin = packed_scales, scales_end = packed_scales + numbers / 32;
            auto halves = [&](size_t n, float k) {
                auto x = aligned<bf16>(n);
                for (size_t i = 0; i < n; i++) x[i] = k ? to_bf16(normal(rng) * k) : 0x7fc0;
                return x;
            };
            auto a = halves((size_t)P * c.n_in, 1), bias = halves((size_t)E * c.n_out, 1),
                 u = halves((size_t)P * 64, .3f), v = halves((size_t)E * c.n_out * 64, .3f),
                 out = halves((size_t)P * c.n_out, 0), h = halves((size_t)P * c.n_out / 2, 0);
            std::vector<int> pairs(P);
            for (int i = 0; i < P; i++) pairs[i] = i * 4 + rng() % 4;
            std::shuffle(pairs.begin(), pairs.end(), rng);
            memset(dynamic, 0xff, sizeof dynamic);
            auto kernel = back ? experts_backward : experts_forward;
            run({2, 1, 1}, THREADS, [&] {
                kernel(a, c.all ? pairs.data() : nullptr, packed, packed_scales, tables.data(), back ? nullptr : bias,
                       c.all ? u : nullptr, c.all ? v : nullptr, offsets.data(), out, activates ? h : nullptr, c.n_in, 4, E,
                       c.n_out, c.n_in, 7.0f);
            });
            double error[2] = {}, norm[2] = {};
            auto add = [&](int i, bf16 got, double y) {
                double d = to_float(got) - y;
                error[i] += d * d, norm[i] += y * y;
            };
            for (int e = 0; e < E; e++)
                for (int p = offsets[e]; p < offsets[e + 1]; p++) {
                    std::vector<double> y(c.n_out);
                    for (int n = 0; n < c.n_out; n++) {
                        for (int k = 0; k < c.n_in; k++) {
                            const size_t line = (size_t)e * lines + (back ? k : n),
                                         at = line * columns + (back ? n : k);
                            const u8 nibble = blocks[at / 2] >> at % 2 * 4 & 15;
#ifdef NF4
                            const size_t block = at / 64 - (size_t)e * in_matrix;
                            const float by = tables[16 + scales[at / 64]] * tables[272 + E + e * nested + block / 256];
                            const double w = to_float(to_bf16(tables[nibble] * (by + tables[272 + e])));
#else
                            const double w =
                                levels[nibble & 7] * (nibble & 8 ? -1 : 1) * ldexp(1, scales[at / 32] - 127);
#endif
                            y[n] += w * to_float(a[(size_t)(c.all ? pairs[p] / 4 : p) * c.n_in + k]);
                        }
                        for (int r = 0; c.all && r < 64; r++)
                            y[n] += (double)to_float(u[p * 64 + r]) * to_float(v[((size_t)e * c.n_out + n) * 64 + r]);
                        if (!back) y[n] += to_float(bias[e * c.n_out + n]);
                        add(0, out[(size_t)p * c.n_out + n], y[n]);
                    }
                    for (int n = 0; activates && n < c.n_out / 2; n++) {
                        const double gate = std::min(y[2 * n], 7.), up = std::max(std::min(y[2 * n + 1], 7.), -7.);
                        add(1, h[(size_t)p * c.n_out / 2 + n], (up + 1) * gate / (1 + exp(-1.702 * gate)));
                    }
                }
            const double first = sqrt(error[0] / norm[0]), second = activates ? sqrt(error[1] / norm[1]) : 0;
            worst = std::max(worst, std::isnan(first + second) ? 1e9 : std::max(first, second));
            printf("%s, %d x %d: %.1e, SwiGLU %.1e\n", back ? "backward" : "forward", c.n_out, c.n_in, first, second);
        }
    puts(worst < 5e-3 ? "ok" : "WRONG");
    return worst < 5e-3 ? 0 : 1;
}
