// decode/attend.cu against sums in f64: pages in random order, rings, sequences of different lengths, blocks forwards
// and backwards, with a low-rank part, without, and with it for some rows. run.sh makes kernels.h.
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
        const int H = KH * G, W = (H + 2 * KH) * D;
        // Low-rank columns of queries, keys and values: none, equal ones, or of each kind another number.
        const int at_keys = c.ctx % 3 == 0 ? 0 : 8, at_values = at_keys + (c.ctx % 3 == 1 ? 8 : 0),
                  R = c.ctx % 3 == 0 ? 0 : 24, VW = std::max({at_keys, at_values - at_keys, R - at_values});
        auto K = rb(rows * KH * D), V = rb(rows * KH * D), bias = rb(W, .3f), u = rb((size_t)c.B * (R + 1)),
             v = rb((size_t)W * (VW + 1), .2f);
        auto rf = [&](size_t n) {
            std::vector<float> x(n);
            for (auto& y : x) y = normal(rng);
            return x;
        };
        // Copies of sixteen bytes want the alignment that a device's memory has.
        struct Aligned {
            float* p;
            explicit Aligned(const std::vector<float>& x)
                : p((float*)aligned_alloc(64, (x.size() * 4 + 63) / 64 * 64)) {
                std::copy(x.begin(), x.end(), p);
            }
        };
        const auto product = rf((size_t)c.B * W), angles = rf((size_t)(c.ctx + 1) * D / 2);
        std::vector<float> cosines, sines;
        for (float x : angles) cosines.push_back(cosf(x)), sines.push_back(sinf(x));
        const Aligned qkv(product), cs(cosines), sn(sines);
        std::vector<int> adapted(c.B);
        for (int b = 0; b < c.B; b++) adapted[b] = b != 1;
        std::vector<float> sinks(KH * G);
        for (auto& x : sinks) x = normal(rng);
        std::vector<bf16> out((size_t)c.B * H * D, 0x7fc0);
        std::vector<float> parts((size_t)np / 2 * KH * (G * (D + 2) + G * 2 % 4) + 4, NAN);
        std::vector<u32> cnt(c.B * KH, 0);
        auto row_of = [&](int b, int p) {
            return c.win ? (size_t)slots[b] * c.win + p % c.win : (size_t)tbl[first[b] + p / PAGE] * PAGE + p % PAGE;
        };
        // What is there for the new position is nobody's.
        for (int b = 0; b < c.B; b++)
            for (int i = 0; i < KH * D; i++)
                K[row_of(b, pos[b]) * KH * D + i] = V[row_of(b, pos[b]) * KH * D + i] = 0x7fc0;
        int tiles = ((c.win ? std::min(c.ctx + 1, c.win) : c.ctx + 1) + KEYS - 1) / KEYS,
            splits = std::min((tiles + LEAST_TILES - 1) / LEAST_TILES, MOST_SPLITS),
            grid = c.B > 1 ? (splits + 2) / 3 : splits;
        run(
            {grid, KH, c.B}, THREADS,
            [&] {
                attend(qkv.p, bias.data(), u.data(), v.data(), cs.p, sn.p, adapted.data(), K.data(), V.data(),
                       sinks.data(), slots.data(), pos.data(), tbl.data(), first.data(), out.data(), parts.data(),
                       cnt.data(), KH, R, at_keys, at_values, VW, c.win, c.B % 2, 0.25f);
            },
            c.ctx % 2);
        // Columns of a row as they should be: rounded, turned, rounded.
        auto column = [&](int b, int h, int d) {
            auto whole = [&](int at) {
                double low = 0;
                const int from = at < H * D ? 0 : at < (H + KH) * D ? at_keys : at_values;
                const int to = at < H * D ? at_keys : at < (H + KH) * D ? at_values : R;
                for (int r = from; adapted[b] && r < to; r++)
                    low += (double)to_float(u[(size_t)b * R + r]) * to_float(v[(size_t)at * VW + r - from]);
                return (double)to_float(to_bf16((float)(product[(size_t)b * W + at] + to_float(bias[at]) + low)));
            };
            const int i = d % (D / 2);
            if (h >= H + KH) return whole(h * D + d);
            const double x = whole(h * D + i), y = whole(h * D + i + D / 2), co = cosines[(size_t)pos[b] * D / 2 + i],
                         si = sines[(size_t)pos[b] * D / 2 + i];
            return (double)to_float(to_bf16((float)(d < D / 2 ? x * co - y * si : y * co + x * si)));
        };
        double new_err = 0;
        for (int b = 0; b < c.B; b++)
            for (int h = 0; h < KH; h++)
                for (int d = 0; d < D; d++) {
                    const size_t at = row_of(b, pos[b]) * KH * D + h * D + d;
                    const double k = column(b, H + h, d), x = column(b, H + KH + h, d);
                    new_err = std::max({new_err, fabs(to_float(K[at]) - k) / (1 + fabs(k)),
                                        fabs(to_float(V[at]) - x) / (1 + fabs(x))});
                }
        if (!(new_err < 1e-2)) worst = 1e9, puts("WRONG: the new key and value");
        double err = 0, norm = 0;
        for (int b = 0; b < c.B; b++)
            for (int h = 0; h < KH * G; h++) {
                int kh = h / G, L = pos[b] + 1, beg = c.win ? std::max(0, L - c.win) : 0;
                std::vector<double> s;
                double m = sinks[h];
                auto row = [&](int p) { return row_of(b, p); };
                std::vector<double> Q;
                for (int d = 0; d < D; d++) Q.push_back(column(b, h, d));
                for (int p = beg; p < L; p++) {
                    double x = 0;
                    for (int d = 0; d < D; d++) x += Q[d] * to_float(K[row(p) * KH * D + kh * D + d]);
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
