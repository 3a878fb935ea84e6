// decode/rows.cu against sums in f64: routing, and an adapter's rows at experts, with and without adapters. run.sh
// makes kernels.h.
#include "block.h"
#include <algorithm>
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
// Pairs in the order of their experts, whose own keep theirs.
void sort_pairs(int P, int E) {
    Al<int> experts(P), pairs(P), places(P), offsets(E + 1);
    std::vector<int> expected(P);
    for (int p = 0; p < P; p++) experts[p] = rng() % (rng() % E + 1), expected[p] = p;
    std::stable_sort(expected.begin(), expected.end(), [&](int a, int b) { return experts[a] < experts[b]; });
    run({1, 1, 1}, 1024, [&] { sort_few(experts.data(), pairs.data(), places.data(), offsets.data(), P, E); });
    for (int p = 0; p < P; p++) need(pairs[p] == expected[p] && places[expected[p]] == p, "order of pairs");
    for (int e = 0; e <= E; e++) {
        int before = 0;
        for (int p = 0; p < P; p++) before += experts[p] < e;
        need(offsets[e] == before, "offsets of experts");
    }
}
int main() {
    sort_pairs(37, 5);
    sort_pairs(1024, 128);
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
                            bool ad = R || fine;
                            const auto route = fine ? route_fine : R ? route_adapted : route_rows;
                            run(
                                {std::max(1, (E + ROUTE_EXPERTS - 1) / ROUTE_EXPERTS / (B > 2 ? 4 : B)), B, 1},
                                ROUTE_THREADS,
                                [&] {
                                    route(prod.data(), x.data(), bias.data(), u.data(), v.data(), norm.data(),
                                          router.data(), fine ? fr.data() : nullptr, rbias.data(), adapted.data(),
                                          mid.data(), nor.data(), lg.data(), ex.data(), wt.data(), pairs.data(),
                                          places.data(), off.data(), cnt.data(), D, E, k, R, mode ^ (B > 1),
                                          B > 1 ? 2 : 1, 1e-5f);
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
                                    run({P, RANK / LOW_RANKS, 1}, LOW_THREADS, [&] {
                                        expert_rows(xx.data(), a.data(), exs.data(), pr.data(), adapted.data(),
                                                    uu.data(), D, R, RANK, k, gathered ? k : 0, !gathered);
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
    // The likeliest token, with ties, and with what is not a number: in the first place it is the largest.
    for (int V : {8, 504, 4096})
        for (int parts : {1, 3, 64})
            for (int first : {0, 1}) {
                const int B = 2;
                auto logits = rb((size_t)B * V);
                logits[V / 2] = logits[V - 1] = to_bf16(50.0f);
                logits[V + 5] = 0x7fc0;
                if (first) logits[0] = 0x7fc0;
                Al<u64> best(B);
                for (int b = 0; b < B; b++) best[b] = 0;
                run({parts, B, 1}, 256, [&] { likeliest(logits.data(), best.p, V); });
                for (int b = 0; b < B; b++) {
                    int id = 0;
                    for (int i = 0; i < V; i++)
                        if (to_float(logits[b * V + i]) > to_float(logits[b * V + id])) id = i;
                    need((int)~(u32)best[b] == id, "likeliest");
                }
            }
    puts(bad ? "WRONG" : "ok");
    return bad != 0;
}
