// decode/thin.cu against sums in f64, with a norm and without, an adapter's rows behind the matrix; and a row's bits in
// batches of every size against those it has alone. run.sh makes kernels.h.
#include "block.h"
alignas(128) static u8 rows[100000];
inline uint4 __ldcs(const uint4* p) { return *p; }
#include "kernels.h"

int main() {
    std::mt19937 rng(7);
    std::normal_distribution<float> normal;
    double worst = 0;
    int differ = 0;
    // Some times each: rounding shows another order of sums in one batch of thirty.
    for (int K : {64, 160, 2880, 2880, 2880, 2880})
        for (int with_norm = 0; with_norm < 2; with_norm++) {
            const int most = 8, N = 20, R = 8, blocks = 2;
            auto halves = [&](size_t n, float k) {
                auto x = aligned<bf16>(n);
                for (size_t i = 0; i < n; i++) x[i] = to_bf16(normal(rng) * k);
                return x;
            };
            auto x = halves((size_t)most * K, 1), w = halves((size_t)N * K, .1f), more = halves((size_t)R * K, .1f);
            auto norm = aligned<float>(K);
            for (int k = 0; k < K; k++) norm[k] = 1 + normal(rng) * .2f;
            std::vector<float> alone((size_t)most * N), out((size_t)most * N);
            std::vector<bf16> u((size_t)most * R), u_alone((size_t)most * R);
            auto launch = [&](const bf16* x, int B, float* out, bf16* u) {
                run({blocks, 1, 1}, THREADS,
                    [&] { thin(x, with_norm ? norm : nullptr, w, more, out, nullptr, u, B, K, N, R, 1e-5f); });
            };
            for (int b = 0; b < most; b++) launch(x + (size_t)b * K, 1, &alone[b * N], &u_alone[b * R]);
            for (int B = 1; B <= most; B++) {
                launch(x, B, out.data(), u.data());
                differ += memcmp(out.data(), alone.data(), (size_t)B * N * 4) != 0;
                differ += memcmp(u.data(), u_alone.data(), (size_t)B * R * 2) != 0;
            }
            double error = 0, size = 0;
            for (int b = 0; b < most; b++) {
                double squares = 0;
                for (int k = 0; k < K; k++) squares += pow(to_float(x[(size_t)b * K + k]), 2);
                for (int n = 0; n < N + R; n++) {
                    double y = 0;
                    for (int k = 0; k < K; k++) {
                        double a = to_float(x[(size_t)b * K + k]);
                        if (with_norm) a *= norm[k] / sqrt(squares / K + 1e-5);
                        y += a * to_float(n < N ? w[(size_t)n * K + k] : more[(size_t)(n - N) * K + k]);
                    }
                    const double d = y - (n < N ? out[b * N + n] : to_float(u[b * R + n - N]));
                    error += d * d, size += y * y;
                }
            }
            worst = std::max(worst, sqrt(error / size));
            printf("thin, %d in%s: %.1e\n", K, with_norm ? ", norm" : "", sqrt(error / size));
        }
    if (differ) printf("%d batches differ from their rows alone\n", differ);
    puts(worst < 4e-3 && !differ ? "ok" : "WRONG");
    return worst < 4e-3 && !differ ? 0 : 1;
}
