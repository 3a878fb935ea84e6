// decode/rows.cu against sums in f64: routing, an adapter's rows at experts, and the new rows of the cache, with and
// without adapters. run.sh makes kernels.h.
#include "block.h"
#include "kernels.h"
std::mt19937 rng(3);
std::normal_distribution<float> normal;
template <class T> struct Al {
    T* p;
    size_t n;
    Al(size_t n) : n(n) {
        p = (T*)aligned_alloc(256, (n * sizeof(T) + 511) / 256 * 256);
        memset(p, 0xff, n * sizeof(T));
    }
    T& operator[](size_t i) { return p[i]; }
    T* data() { return p; }
};
Al<bf16> rb(size_t n, float k = 1) {
    Al<bf16> v(n);
    for (size_t i = 0; i < n; i++) v[i] = to_bf16(normal(rng) * k);
    return v;
}
Al<float> rf(size_t n, float k = 1) {
    Al<float> v(n);
    for (size_t i = 0; i < n; i++) v[i] = normal(rng) * k;
    return v;
}
double rd(bf16 x) { return to_float(x); }
double r16(double x) { return to_float(to_bf16((float)x)); }
int bad = 0;
void need(bool ok, const char* what) {
    if (!ok) {
        bad++;
        printf("WRONG %s\n", what);
    }
}
int main() {
    for (int D : {2880, 64})
        for (int E : {32, 128, 5})
            for (int B : {1, 3})
                for (int R : {0, 8, 16, 24})
                    for (int fine = 0; fine < 2; fine++)
                        for (int mode = 0; mode < 2; mode++) {
                            if (D == 2880 && (E == 128 || R == 24) && B == 3) continue;
                            if ((R || fine) == false && mode) continue;
                            const int k = 4;
                            auto prod = rf((size_t)B * D);
                            auto x = rb((size_t)B * D), bias = rb(D), u = rb((size_t)B * std::max(R, 1)),
                                 v = rb((size_t)D * std::max(R, 1), .3f), router = rb((size_t)E * D, .05f);
                            auto fr = rf((size_t)E * D, .05f), norm = rf(D), rbias = rf(E);
                            Al<bf16> mid((size_t)B * D), nor((size_t)B * D);
                            Al<float> lg((size_t)B * E), wt((size_t)B * k);
                            Al<int> ex((size_t)B * k), pairs((size_t)B * k), places((size_t)B * k), off(E + 1),
                                adapted(B);
                            Al<u32> cnt(B);
                            for (int b = 0; b < B; b++) cnt[b] = 0, adapted[b] = mode == 0 ? 1 : b & 1;
                            bool staged = R > 0 && (size_t)D * R * 2 <= (96 << 10);
                            bool ad = R || fine;
                            run(
                                {(E + 3) / 4, B, 1}, 128,
                                [&] {
                                    if (ad)
                                        route_adapted(prod.data(), x.data(), bias.data(), u.data(), v.data(),
                                                      norm.data(), router.data(), fine ? fr.data() : nullptr,
                                                      rbias.data(), adapted.data(), mid.data(), nor.data(), lg.data(),
                                                      ex.data(), wt.data(), pairs.data(), places.data(), off.data(),
                                                      cnt.data(), D, E, k, R, 1e-5f, staged);
                                    else
                                        route_rows(prod.data(), x.data(), bias.data(), nullptr, nullptr, norm.data(),
                                                   router.data(), nullptr, rbias.data(), adapted.data(), mid.data(),
                                                   nor.data(), lg.data(), ex.data(), wt.data(), pairs.data(),
                                                   places.data(), off.data(), cnt.data(), D, E, k, 0, 1e-5f, 0);
                                },
                                E % 3 == 0);
                            for (int b = 0; b < B; b++) {
                                bool on = ad && adapted[b];
                                double sum = 0, e1 = 0, n1 = 0;
                                std::vector<double> f(D), nn(D);
                                for (int d = 0; d < D; d++) {
                                    double low = 0;
                                    if (on)
                                        for (int r = 0; r < R; r++) low += rd(u[b * R + r]) * rd(v[(size_t)d * R + r]);
                                    double y = prod[(size_t)b * D + d] + rd(bias[d]) + rd(x[(size_t)b * D + d]) + low;
                                    f[d] = rd(mid[(size_t)b * D + d]);
                                    e1 += (f[d] - y) * (f[d] - y);
                                    n1 += y * y;
                                    sum += f[d] * f[d];
                                }
                                need(sqrt(e1 / n1) < 4e-3, "middle");
                                double sc = 1 / sqrt(sum / D + 1e-5), e2 = 0, n2 = 0;
                                for (int d = 0; d < D; d++) {
                                    double y = f[d] * sc * norm[d];
                                    nn[d] = rd(nor[(size_t)b * D + d]);
                                    e2 += (nn[d] - y) * (nn[d] - y);
                                    n2 += y * y;
                                }
                                need(sqrt(e2 / n2) < 4e-3, "normed");
                                std::vector<double> L(E);
                                double le = 0;
                                for (int e = 0; e < E; e++) {
                                    double s = rbias[e];
                                    for (int d = 0; d < D; d++)
                                        s += nn[d] * (on && fine ? (double)fr[(size_t)e * D + d]
                                                                 : rd(router[(size_t)e * D + d]));
                                    L[e] = s;
                                    le = std::max(le, fabs(s - lg[(size_t)b * E + e]));
                                }
                                need(le < 1e-3, "logits");
                                std::vector<int> idx(E);
                                for (int e = 0; e < E; e++) idx[e] = e;
                                std::stable_sort(idx.begin(), idx.end(), [&](int p, int q) {
                                    return lg[(size_t)b * E + p] > lg[(size_t)b * E + q];
                                });
                                double z = 0;
                                for (int i = 0; i < k; i++)
                                    z += exp(lg[(size_t)b * E + idx[i]] - lg[(size_t)b * E + idx[0]]);
                                for (int i = 0; i < k; i++) {
                                    need(ex[b * k + i] == idx[i], "chosen");
                                    need(fabs(wt[b * k + i] -
                                              exp(lg[(size_t)b * E + idx[i]] - lg[(size_t)b * E + idx[0]]) / z) < 1e-5,
                                         "weights");
                                }
                                need(cnt[b] == 0, "counter");
                            }
                            if (B == 1) {
                                std::vector<int> s(ex.p, ex.p + k);
                                std::sort(s.begin(), s.end());
                                for (int i = 0; i < k; i++)
                                    need(ex[pairs[i]] == s[i] && places[pairs[i]] == i, "pairs");
                                for (int e = 0; e <= E; e++) {
                                    int c = 0;
                                    for (int i = 0; i < k; i++) c += s[i] < e;
                                    need(off[e] == c, "offsets");
                                }
                            }
                            // expert_rows
                            if (R)
                                for (int gathered = 0; gathered < 2; gathered++) {
                                    int RANK = R <= 16 ? 16 : 64, P = B * k;
                                    Al<int> pr(P), exs(P);
                                    for (int i = 0; i < P; i++) pr[i] = P - 1 - i, exs[i] = ex[i];
                                    auto xx = rb((size_t)(gathered ? B : P) * D), a = rb((size_t)E * R * D, .05f);
                                    Al<bf16> uu((size_t)P * RANK);
                                    run({P, 1, 1}, 256, [&] {
                                        expert_rows(xx.data(), a.data(), exs.data(), pr.data(), adapted.data(),
                                                    uu.data(), D, R, RANK, k, gathered ? k : 0);
                                    });
                                    for (int pl = 0; pl < P; pl++) {
                                        int pair = pr[pl];
                                        for (int r = 0; r < RANK; r++) {
                                            double s = 0;
                                            if (r < R && adapted[pair / k])
                                                for (int d = 0; d < D; d++)
                                                    s += rd(xx[(size_t)(gathered ? pair / k : pl) * D + d]) *
                                                         rd(a[((size_t)exs[pair] * R + r) * D + d]);
                                            need(fabs(s - rd(uu[(size_t)(gathered ? pair : pl) * RANK + r])) <
                                                     2e-2 + 8e-3 * fabs(s),
                                                 "expert rows");
                                        }
                                    }
                                }
                        }
    puts("routing done");
    for (int D : {64, 32, 16})
        for (int B : {1, 3})
            for (int R : {0, 8, 24, 40})
                for (int win : {0, 8})
                    for (int mode = 0; mode < 2; mode++) {
                        const int H = 8, KH = 2, W = (H + 2 * KH) * D, pages = 4;
                        auto qkv = rf((size_t)B * W);
                        auto bias = rb(W), u = rb((size_t)B * std::max(R, 1)), v = rb((size_t)W * std::max(R, 1), .3f);
                        auto cs = rf(300 * D / 2), sn = rf(300 * D / 2);
                        Al<int> slots(B), pos(B), tbl(B * pages), first(B), adapted(B);
                        for (int b = 0; b < B; b++)
                            slots[b] = B - 1 - b, pos[b] = 70 + b * 50, first[b] = b * pages,
                            adapted[b] = mode == 0 ? 1 : b & 1;
                        for (int i = 0; i < B * pages; i++) tbl[i] = B * pages - 1 - i;
                        size_t rows = (size_t)B * pages * PAGE;
                        Al<bf16> q((size_t)B * H * D), K(rows * KH * D), V(rows * KH * D);
                        int n = W / 2;
                        run({(n + 127) / 128, B, 1}, 128, [&] {
                            if (R)
                                place_adapted(qkv.data(), bias.data(), u.data(), v.data(), cs.data(), sn.data(),
                                              slots.data(), pos.data(), tbl.data(), first.data(), adapted.data(),
                                              q.data(), K.data(), V.data(), H, KH, D, R, win);
                            else
                                place(qkv.data(), bias.data(), nullptr, nullptr, cs.data(), sn.data(), slots.data(),
                                      pos.data(), tbl.data(), first.data(), adapted.data(), q.data(), K.data(),
                                      V.data(), H, KH, D, 0, win);
                        });
                        for (int b = 0; b < B; b++)
                            for (int h = 0; h < H + 2 * KH; h++)
                                for (int i = 0; i < D / 2; i++) {
                                    double pr[2];
                                    for (int j = 0; j < 2; j++) {
                                        int at = h * D + i + j * D / 2;
                                        double low = 0;
                                        if (R && adapted[b])
                                            for (int r = 0; r < R; r++)
                                                low += rd(u[b * R + r]) * rd(v[(size_t)at * R + r]);
                                        pr[j] = r16(qkv[(size_t)b * W + at] + rd(bias[at]) + low);
                                    }
                                    if (h < H + KH) {
                                        double c = cs[(size_t)pos[b] * D / 2 + i], s = sn[(size_t)pos[b] * D / 2 + i];
                                        double y0 = pr[0] * c - pr[1] * s, y1 = pr[1] * c + pr[0] * s;
                                        pr[0] = y0, pr[1] = y1;
                                    }
                                    size_t row = win ? (size_t)slots[b] * win + pos[b] % win
                                                     : (size_t)tbl[first[b] + pos[b] / PAGE] * PAGE + pos[b] % PAGE;
                                    bf16* to = h < H        ? q.p + (size_t)b * H * D + h * D
                                               : h < H + KH ? K.p + row * KH * D + (h - H) * D
                                                            : V.p + row * KH * D + (h - H - KH) * D;
                                    for (int j = 0; j < 2; j++)
                                        need(fabs(pr[j] - rd(to[i + j * D / 2])) < 1e-2 + 1.2e-2 * fabs(pr[j]),
                                             "place");
                                }
                    }
    puts("place done");
    puts(bad ? "WRONG" : "ok");
    return bad != 0;
}
