// layer/gradients.cu, layer/thin.cu, op/route/route.cu and op/route/sort.cu against sums in f64 and a plain sort:
// tokens, columns and ranks behind the last tile, ranks that begin where no 16 bytes do, ties. run.sh makes kernels.h.
#include <algorithm>

#include "block.h"
#define __grid_constant__
template <> u64 __shfl_xor_sync(u32, u64 v, int x) {
    u32 low = exchange((u32)v, LANE() ^ x), high = exchange((u32)(v >> 32), LANE() ^ x);
    return (u64)high << 32 | low;
}
inline void multiply32_free(float* c, uint4 a0, uint4 a1, uint4 b) {
    u32 first[4] = {a0.x, a1.x, a0.y, a1.y}, second[4] = {a0.z, a1.z, a0.w, a1.w};
    multiply16(c, first, b.x, b.y);
    multiply16(c, second, b.z, b.w);
}
namespace gradients {
#include "gradients.h"
}
namespace thin {
#include "thin.h"
}
namespace route {
#include "route.h"
}
namespace sorting {
#include "sort.h"
}
static std::mt19937 dice(7);
static std::vector<bf16> some(size_t n) {
    std::normal_distribution<float> normal;
    std::vector<bf16> all(n + 8);
    for (auto& x : all) x = to_bf16(normal(dice));
    return all;
}
static bf16* aligned(std::vector<bf16>& v) { return (bf16*)(((uintptr_t)v.data() + 15) / 16 * 16); }
static int failures = 0;
static void check(const char* what, double off, double allowed) {
    bool good = off <= allowed;
    printf("%-28s %.2e%s\n", what, off, good ? "" : "  WRONG");
    failures += !good;
}
struct Off {
    double difference = 0, norm = 0;
    void add(double a, double b) { difference += (a - b) * (a - b), norm += b * b; }
    double relative() { return sqrt(difference / norm); }
};

static void test_gradients(int tokens) {
    using namespace gradients;
    const int width = 72, x_ld = 88, s_ld = 48, total = 41;
    auto x = some((size_t)tokens * x_ld), s = some((size_t)tokens * s_ld);
    bf16 *xp = aligned(x), *sp = aligned(s);
    // A of three sites beside each other, then B of one whose columns begin in the middle.
    const int first[3] = {0, 3, 37}, rank[3] = {3, 34, 4};
    std::vector<float> a[3], b(width * 4, -1.0f);
    Jobs jobs = {};
    jobs.count = 2, jobs.tokens = tokens;
    Job& j = jobs.all[0];
    j.x = xp, j.s = sp, j.width = width, j.x_ld = x_ld, j.ranks = 48, j.s_ld = s_ld, j.first_block = 0, j.n_parts = 3;
    for (int p = 0; p < 3; p++) {
        a[p].assign(width * rank[p], -1.0f);
        j.parts[p] = {a[p].data(), first[p], rank[p], 1.0f, 0};
    }
    Job& k = jobs.all[1];
    k = j;
    k.s = sp + 32, k.ranks = 16, k.first_block = 2 * 2, k.n_parts = 1;
    k.parts[0] = {b.data(), 37 - 32, 4, 0.5f, 1};
    run({4 + 2, 1, 1}, 128, [&] { pair_gradients(jobs); });
    Off of_a, of_b;
    for (int c = 0; c < width; c++)
        for (int r = 0; r < total; r++) {
            double sum = 0;
            for (int t = 0; t < tokens; t++) sum += (double)to_float(sp[t * s_ld + r]) * to_float(xp[t * x_ld + c]);
            for (int p = 0; p < 3; p++)
                if (r >= first[p] && r < first[p] + rank[p]) of_a.add(a[p][(r - first[p]) * width + c], sum);
            if (r >= 37) of_b.add(b[c * 4 + r - 37], 0.5 * sum);
        }
    check("gradients of A", of_a.relative(), 1e-6);
    check("gradients of B", of_b.relative(), 1e-6);
}

static void test_thin(int T) {
    using namespace thin;
    const int K = 104, C = 48;
    auto x = some((size_t)T * K), w = some((size_t)C * K);
    bf16 *xp = aligned(x), *wp = aligned(w);
    std::vector<bf16> u(T * C, 0x7fc0);
    Parts parts = {{{0, 5, 0, 40}, {5, 9, 40, 64}, {9, 40, 64, K}}};
    for (int c = 0; c < C; c++)
        for (int k = 0; k < K; k++) {
            bool in = false;
            for (auto& p : parts.all) in |= c >= p.first && c < p.end && k >= p.from && k < p.to;
            if (!in) wp[c * K + k] = 0;
        }
    run({(T + 15) / 16, 2, 1}, 512, [&] { thin_rows(xp, wp, u.data(), T, K, C, parts); });
    Off off;
    for (int t = 0; t < T; t++)
        for (int c = 0; c < C; c++) {
            double sum = 0;
            for (int k = 0; k < K; k++) sum += (double)to_float(xp[t * K + k]) * to_float(wp[c * K + k]);
            off.add(to_float(u[t * C + c]), sum);
        }
    check("thin rows", off.relative(), 3e-3);
}

static void test_route(int T, int E, bool few) {
    using namespace route;
    const int D = 96, k = 4;
    auto x = some((size_t)T * D), w = some((size_t)E * D);
    bf16 *xp = aligned(x), *wp = aligned(w);
    for (int c = 0; c < D; c++) wp[(E - 1) * D + c] = wp[c];  // Expert 0 and the last always tie.
    std::vector<float> bias(E), logits(T * E), weights(T * k);
    for (int e = 0; e < E; e++) bias[e] = e == E - 1 ? bias[0] : e * 0.01f;
    std::vector<int> experts(T * k);
    if (few)
        run({(T + 15) / 16, 1, 1}, 256,
            [&] { router_choice_few(xp, wp, bias.data(), logits.data(), experts.data(), weights.data(), T, D, E, k); });
    else
        run({(T + 31) / 32, 1, 1}, 256,
            [&] { router_choice(xp, wp, bias.data(), logits.data(), experts.data(), weights.data(), T, D, E, k); });
    Off off, of_weights;
    int wrong = 0;
    for (int t = 0; t < T; t++) {
        std::vector<double> l(E);
        for (int e = 0; e < E; e++) {
            double sum = bias[e];
            for (int c = 0; c < D; c++) sum += (double)to_float(xp[t * D + c]) * to_float(wp[e * D + c]);
            off.add(logits[t * E + e], sum);
            l[e] = logits[t * E + e];
        }
        std::vector<bool> taken(E);
        double all = 0, top = 0;
        for (int i = 0; i < k; i++) {
            int best = -1;
            for (int e = 0; e < E; e++)
                if (!taken[e] && (best < 0 || l[e] > l[best])) best = e;
            taken[best] = true;
            wrong += experts[t * k + i] != best;
            if (i == 0) top = l[best];
            all += exp(l[best] - top);
        }
        for (int i = 0; i < k; i++) of_weights.add(weights[t * k + i], exp(l[experts[t * k + i]] - top) / all);
    }
    check("logits", off.relative(), 1e-6);
    check("weights", of_weights.relative(), 1e-6);
    check("other experts", wrong, 0);
    const int P = T * k;
    std::vector<int> pairs(P, -1), places(P, -1), offsets(E + 1, -1);
    run({1, 1, 1}, 1024, [&] { sorting::sort_few_pairs(experts.data(), pairs.data(), places.data(), offsets.data(), P, E); });
    std::vector<int> order(P);
    for (int i = 0; i < P; i++) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return experts[a] < experts[b]; });
    int misplaced = offsets[E] != P;
    for (int i = 0; i < P; i++) misplaced += pairs[i] != order[i] || places[order[i]] != i;
    for (int e = 0; e < E; e++) {
        int before = 0;
        for (int i = 0; i < P; i++) before += experts[i] < e;
        misplaced += offsets[e] != before;
    }
    check("misplaced pairs", misplaced, 0);
}

int main() {
    test_gradients(150);
    test_gradients(7);
    test_thin(21);
    test_thin(37);
    test_route(19, 32, true);
    test_route(40, 37, false);
    test_route(300, 8, true);
    return failures != 0;
}
