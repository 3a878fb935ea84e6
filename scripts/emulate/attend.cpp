// decode/attend.cu against sums in f64: pages in random order, rings, sequences of different lengths, blocks forwards
// and backwards. run.sh makes kernels.h.
#include "block.h"
#include "kernels.h"
#undef D
int main() {
    std::mt19937 rng(7);
    std::normal_distribution<float> normal;
    auto rb = [&](size_t n, float k = 1) {
        std::vector<bf16> v(n);
        for (auto& x : v) x = to_bf16(normal(rng) * k);
        return v;
    };
    const int D = HEAD_DIM, G = GROUP, KH = 2;
    double worst = 0;
    struct Case {
        int B, ctx, win;
    };
    for (Case c : {Case{1, 0, 0},
                   {1, 5, 8},
                   {2, 63, 0},
                   {2, 64, 8},
                   {3, 127, 0},
                   {2, 128, 0},
                   {1, 200, 128},
                   {3, 700, 0},
                   {2, 130, 128},
                   {1, 4300, 0},
                   {1, 8200, 0}}) {
        int pages = (c.ctx + 1 + PAGE - 1) / PAGE;
        pages += pages % 2;
        int np = c.B * pages;
        std::vector<int> tbl(np), first(c.B), slots(c.B), pos(c.B);
        for (int i = 0; i < np; i++) tbl[i] = i;
        std::shuffle(tbl.begin(), tbl.end(), rng);
        for (int b = 0; b < c.B; b++)
            first[b] = b * pages, slots[b] = c.B - 1 - b, pos[b] = std::max(0, c.ctx - b * std::min(37, c.ctx / 3));
        size_t rows = std::max((size_t)np * PAGE, (size_t)c.B * std::max(c.win, 1));
        auto K = rb(rows * KH * D), V = rb(rows * KH * D), Q = rb((size_t)c.B * KH * G * D, 1.5f);
        std::vector<float> sinks(KH * G);
        for (auto& x : sinks) x = normal(rng);
        std::vector<bf16> out(Q.size(), 0x7fc0);
        std::vector<float> parts((size_t)np / 2 * KH * G * (D + 2) + 4, NAN);
        std::vector<u32> cnt(c.B * KH, 0);
        int tiles = ((c.win ? std::min(c.ctx + 1, c.win) : c.ctx + 1) + KEYS - 1) / KEYS,
            grid = std::min(tiles, MOST_SPLITS);
        run(
            {grid, KH, c.B}, THREADS,
            [&] {
                attend(Q.data(), K.data(), V.data(), sinks.data(), slots.data(), pos.data(), tbl.data(), first.data(),
                       out.data(), parts.data(), cnt.data(), KH, c.win, 0.25f);
            },
            c.ctx % 2);
        double err = 0, norm = 0;
        for (int b = 0; b < c.B; b++)
            for (int h = 0; h < KH * G; h++) {
                int kh = h / G, L = pos[b] + 1, beg = c.win ? std::max(0, L - c.win) : 0;
                std::vector<double> s;
                double m = sinks[h];
                auto row = [&](int p) {
                    return c.win ? (size_t)slots[b] * c.win + p % c.win
                                 : (size_t)tbl[first[b] + p / PAGE] * PAGE + p % PAGE;
                };
                for (int p = beg; p < L; p++) {
                    double x = 0;
                    for (int d = 0; d < D; d++)
                        x += (double)to_float(Q[((size_t)b * KH * G + h) * D + d]) *
                             to_float(K[row(p) * KH * D + kh * D + d]);
                    s.push_back(x * .25);
                    m = std::max(m, x * .25);
                }
                double z = exp(sinks[h] - m);
                for (auto& x : s) z += (x = exp(x - m));
                for (int d = 0; d < D; d++) {
                    double o = 0;
                    for (int p = beg; p < L; p++) o += s[p - beg] * to_float(V[row(p) * KH * D + kh * D + d]);
                    o /= z;
                    double e = to_float(out[((size_t)b * KH * G + h) * D + d]) - o;
                    err += e * e;
                    norm += o * o;
                }
            }
        bool zero = true;
        for (u32 x : cnt) zero &= x == 0;
        double r = sqrt(err / norm);
        worst = std::max(worst, std::isnan(r) ? 1e9 : r);
        printf("D %d G %d B %d ctx %d win %d: %.1e counters %s\n", D, G, c.B, c.ctx, c.win, r,
               zero ? "zero" : "NOT ZERO");
        if (!zero) worst = 1e9;
    }
    puts(worst < 5e-3 ? "ok" : "WRONG");
    return worst < 5e-3 ? 0 : 1;
}
