// op/attention/forward.cu, backward.cu, backward_window.cu and Hopper's backward in one pass against sums in f64:
// several sequences, with a window and without, tiles of keys split in every way. run.sh makes kernels.h, of one of
// them.
#ifdef ONE_PASS
#include "warpgroup.h"
#else
#include "block.h"
#endif
#ifdef SHARED
alignas(1024) static u8 shared[SHARED];
#else
alignas(1024) static u8 shared[SHARED_OF_FEATURE * HEAD_DIM];
#endif
inline float exp2_fast(float x) { return exp2f(x); }
#include "kernels.h"

int main() {
    std::mt19937 rng(11);
    std::normal_distribution<float> normal;
    const int KV = 2, HEADS = KV * GROUP, D = HEAD_DIM, LD = (HEADS + 2 * KV) * D;
    const double scale = 1 / sqrt(D);
    double worst = 0;
    struct Case {
        std::vector<int> lengths;
        int window, split;
    };
#ifdef WINDOW_PASS
    // Strips of so many blocks of keys; no bit depends on it.
    const std::vector<Case> cases{{{1, 9}, 5, 1}, {{150, 13, 70}, 128, 1}, {{150, 13, 70}, 128, 3}, {{300}, 40, 2}};
#elif defined ONE_PASS
    const std::vector<Case> cases{{{1, 9}, 0, 1}, {{150, 13, 300}, 0, 1}, {{128, 257}, 0, 1}};
#else
    const std::vector<Case> cases{{{1, 9}, 0, 4}, {{70, 2}, 0, 1}, {{70}, 9, 2}, {{150}, 20, 4}};
#endif
    for (const Case& c : cases) {
        int T = 0;
        for (int n : c.lengths) T += n;
        auto halves = [&](size_t n) {
            auto x = (bf16*)aligned_alloc(64, (n * 2 + 63) / 64 * 64);
            for (size_t i = 0; i < n; i++) x[i] = to_bf16(normal(rng));
            return x;
        };
        auto qkv = halves((size_t)T * LD), d_out = halves((size_t)T * HEADS * D), out = halves((size_t)T * HEADS * D),
             got = halves((size_t)T * LD);
        std::vector<float> sinks(HEADS), lse(HEADS * T), delta(HEADS * T, NAN), lse_got(HEADS * T, NAN);
        for (float& x : sinks) x = normal(rng);
        // Definition.
        std::vector<double> y((size_t)T * HEADS * D), grad((size_t)T * LD);
        auto at = [&](int t, int column) { return (double)to_float(qkv[(size_t)t * LD + column]); };
        for (int start = 0, s = 0; s < (int)c.lengths.size(); start += c.lengths[s++])
            for (int h = 0; h < HEADS; h++)
                for (int i = 0; i < c.lengths[s]; i++) {
                    const int t = start + i, first = c.window ? std::max(0, i - c.window + 1) : 0, kv = h / GROUP;
                    const int key = (HEADS + kv) * D, value = key + KV * D;
                    std::vector<double> p, dp;
                    double sum = exp((double)sinks[h]);
                    for (int j = first; j <= i; j++) {
                        double x = 0;
                        for (int d = 0; d < D; d++) x += at(t, h * D + d) * at(start + j, key + d);
                        p.push_back(exp(x * scale)), sum += p.back();
                    }
                    double dot = 0;
                    for (int j = first; j <= i; j++) {
                        double x = 0;
                        for (int d = 0; d < D; d++) {
                            y[((size_t)t * HEADS + h) * D + d] += p[j - first] / sum * at(start + j, value + d);
                            x += to_float(d_out[((size_t)t * HEADS + h) * D + d]) * at(start + j, value + d);
                        }
                        p[j - first] /= sum, dp.push_back(x), dot += p[j - first] * x;
                    }
                    lse[h * T + t] = log2(sum);
                    for (int j = first; j <= i; j++) {
                        const double ds = p[j - first] * (dp[j - first] - dot) * scale;
                        for (int d = 0; d < D; d++) {
                            grad[(size_t)t * LD + h * D + d] += ds * at(start + j, key + d);
                            grad[(size_t)(start + j) * LD + key + d] += ds * at(t, h * D + d);
                            grad[(size_t)(start + j) * LD + value + d] +=
                                p[j - first] * to_float(d_out[((size_t)t * HEADS + h) * D + d]);
                        }
                    }
                }
        for (size_t i = 0; i < y.size(); i++) out[i] = to_bf16(y[i]);
        for (size_t i = 0; i < grad.size(); i++) got[i] = 0x7fc0;
        auto tiles = [&](int step, int split) {
            std::vector<int> all;
            for (int start = 0, s = 0; s < (int)c.lengths.size(); start += c.lengths[s++])
                for (int first = 0; first < c.lengths[s]; first += step)
                    for (int x : {start, c.lengths[s], start, c.lengths[s], first, split, s, 0}) all.push_back(x);
            const int n = all.size() / TILE_INTS;
            auto list = (int*)aligned_alloc(64, (all.size() * 4 + 63) / 64 * 64);
            std::copy(all.begin(), all.end(), list);
            return std::pair(list, n);
        };
#ifdef WINDOW_PASS
        const auto strips = tiles(c.split * STRIP_KEYS, c.split * STRIP_KEYS);
#else
        const auto queries = tiles(QUERY_ROWS / GROUP, 0), keys = tiles(KEY_ROWS / c.split, c.split);
#endif
        auto error = [&](const bf16* a, size_t ld, const std::vector<double>& b, int begin, int end) {
            double difference = 0, norm = 0;
            for (int t = 0; t < T; t++)
                for (int i = begin; i < end; i++) {
                    const double x = to_float(a[t * ld + i]) - b[t * ld + i];
                    difference += x * x, norm += b[t * ld + i] * b[t * ld + i];
                }
            const double e = sqrt(difference / norm);
            worst = std::max(worst, std::isnan(e) ? 1e9 : e);
            return e;
        };
        const bf16 *q = qkv, *k = qkv + HEADS * D, *v = k + KV * D;
        memset(shared, 0xff, sizeof shared);
        printf("head %d, group %d, %d tokens, window %d, split %d:", D, GROUP, T, c.window, c.split);
#ifdef FORWARD
        for (size_t i = 0; i < y.size(); i++) out[i] = 0x7fc0;
        run({KV, queries.second, 1}, THREADS, [&] {
            attention_forward(q, k, v, sinks.data(), out, lse_got.data(), queries.first, LD, LD, HEADS * D, T, c.window,
                              scale);
        });
        double far = 0;
        for (int i = 0; i < HEADS * T; i++)
            far = std::max(far, std::isnan(lse_got[i]) ? 1e9 : fabs(lse_got[i] - lse[i]));
        worst = std::max(worst, far);
        printf(" forward %.1e, lse %.1e\n", error(out, HEADS * D, y, 0, HEADS * D), far);
#elif defined WINDOW_PASS
        run({KV, strips.second, 1}, THREADS, [&] {
            attention_backward_window(q, k, v, out, d_out, lse.data(), got, got + HEADS * D, got + (HEADS + KV) * D,
                                      strips.first, LD, LD, HEADS * D, HEADS * D, LD, LD, T, c.window, scale);
        });
#elif defined ONE_PASS
        // Counted by fours; what was there before the first sum is not read.
        const int n_tiles = T / (SUM_ROWS / GROUP) + (int)c.lengths.size() + 1, run_of_turns = 2;
        std::vector<u32> turns(1 + KV * n_tiles);
        std::vector<float> sums((size_t)KV * n_tiles * SUM_ROWS * D, NAN);
        run({(T + DELTA_ROWS - 1) / DELTA_ROWS, (HEADS + DELTA_HEADS - 1) / DELTA_HEADS, 1}, DELTA_THREADS, [&] {
            attention_delta(out, d_out, delta.data(), HEADS * D, T, HEADS);
        });
        phases.clear(), meetings.clear();
        run({1, 1, 1}, THREADS, [&] {
            attention_backward_one(q, k, v, d_out, lse.data(), delta.data(), sums.data(), turns.data(),
                                   got + HEADS * D, got + (HEADS + KV) * D, keys.first, LD, LD, HEADS * D, LD, T,
                                   scale, keys.second * KV, KV, n_tiles, run_of_turns);
        });
        run({KV, queries.second, 1}, SUM_THREADS,
            [&] { attention_queries(sums.data(), got, queries.first, LD, scale, n_tiles); });
#else
        run({KV, queries.second, 1}, THREADS, [&] {
            attention_backward_q(q, k, v, out, d_out, lse.data(), got, delta.data(), queries.first, LD, LD, HEADS * D,
                                 HEADS * D, LD, T, c.window, scale);
        });
        memset(shared, 0xff, sizeof shared);
        run({KV, keys.second, 1}, THREADS, [&] {
            attention_backward_kv(q, k, v, d_out, lse.data(), delta.data(), got + HEADS * D, got + (HEADS + KV) * D,
                                  keys.first, LD, LD, HEADS * D, LD, T, c.window, scale);
        });
#endif
#ifndef FORWARD
        const double dq = error(got, LD, grad, 0, HEADS * D), dkv = error(got, LD, grad, HEADS * D, LD);
        printf(" dq %.1e, dk and dv %.1e\n", dq, dkv);
#endif
    }
    puts(worst < 1e-2 ? "ok" : "WRONG");
    return worst < 1e-2 ? 0 : 1;
}
