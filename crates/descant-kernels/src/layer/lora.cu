// The low-rank pairs of a layer between their f32 form, which the optimizer holds, and the bf16 form that products
// read.
//
// Matrices are small (a rank is a few columns), so each thread moves one element, or 16 bytes where there is one an
// expert; grids cover these, blocks have 256 threads. All of a layer's pairs at one product are in one matrix: A below
// each other, B in blocks of its diagonal.
#include "step.cuh"

#define PIECE 8  // columns of 16 bytes

// A small f32 matrix of rows x columns there, stored so or transposed, and its place in a larger one.
struct Part {
    const float* from;
    int row, column, rows, columns;
    float factor;
    int transposed;
};
// A bf16 matrix with rows of `ld`, made of parts that do not overlap; zero where none is.
struct Packed {
    bf16* to;
    int rows, ld, n_parts;
    Part parts[PARTS];
};
struct AllPacked {
    Packed all[FACTORS];
};
static_assert(sizeof(Part) == PART_BYTES && sizeof(Packed) == PACKED_BYTES, "as the host writes them");
static_assert(sizeof(AllPacked) == ALL_BYTES, "nothing between them");
// Grid: (elements of the largest / 256, matrices).
extern "C" __global__ void pack(const __grid_constant__ AllPacked matrices) {
    wait_for_earlier();
    const Packed& m = matrices.all[blockIdx.y];
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= m.rows * m.ld) return;
    int i = n / m.ld, j = n % m.ld;
    float value = 0.0f;
    for (int p = 0; p < m.n_parts; p++) {
        const Part& part = m.parts[p];
        int r = i - part.row, c = j - part.column;
        if (r >= 0 && r < part.rows && c >= 0 && c < part.columns)
            value = part.from[part.transposed ? c * part.rows + r : r * part.columns + c] * part.factor;
    }
    m.to[n] = to_bf16(value);
}

// One matrix an expert (blockIdx.y): to[e][i, j] = from[e][i, j] * factor, or from[e][j, i] where
// `transposed`, for i < rows, j < columns, and zero for the columns up to `ld`. A thread makes PIECE columns.
extern "C" __global__ void pack_experts(const float* __restrict__ from, bf16* __restrict__ to, int rows, int columns,
                                        int ld, int transposed, float factor) {
    const int n = blockIdx.x * blockDim.x + threadIdx.x, pieces = ld / PIECE;
    if (n >= rows * pieces) return;
    const int i = n / pieces, first = n % pieces * PIECE;
    from += (u64)blockIdx.y * rows * columns;
    float x[PIECE];
#pragma unroll
    for (int k = 0; k < PIECE; k++) {
        const int j = first + k;
        x[k] = j < columns ? from[transposed ? j * rows + i : i * columns + j] * factor : 0.0f;
    }
    store16(to + ((u64)blockIdx.y * rows * pieces + n) * PIECE, pack8(x));
}

// For both matrices (blockIdx.y): x[place, j] *= weights[pairs[place]], in the first `columns` of rows of `ld`. A
// thread makes PIECE columns.
extern "C" __global__ void weigh_rows(bf16* __restrict__ u, bf16* __restrict__ du, const int* __restrict__ pairs,
                                      const float* __restrict__ weights, int places, int columns, int ld) {
    const int n = blockIdx.x * blockDim.x + threadIdx.x, pieces = (columns + PIECE - 1) / PIECE;
    if (n >= places * pieces) return;
    const int place = n / pieces;
    bf16* at = (blockIdx.y ? du : u) + (u64)place * ld + n % pieces * PIECE;
    const float weight = weights[pairs[place]];
    float x[PIECE];
    unpack8(load16(at), x);
#pragma unroll
    for (int k = 0; k < PIECE; k++) x[k] *= weight;
    store16(at, pack8(x));
}

// The router with its pair merged, in f32, because a small change would vanish in bf16:
// merged[e, j] = w[e, j] + factor * sum_r b[e, r] a[r, j].
extern "C" __global__ void merge_router(const bf16* __restrict__ w, const float* __restrict__ a,
                                        const float* __restrict__ b, float* __restrict__ merged, int experts,
                                        int hidden, int rank, float factor) {
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= experts * hidden) return;
    int e = n / hidden, j = n % hidden;
    float sum = 0.0f;
    for (int r = 0; r < rank; r++) sum += b[e * rank + r] * a[r * hidden + j];
    merged[n] = to_float(w[n]) + factor * sum;
}

// The gradient of the whole router weight from those of the chosen logits: to[e, j] = sum_t d_logit[t, e] x[t, j],
// where a token has `k` gradients and they are of the experts it chose. With `add` the sum begins with what is there.
// Grid (hidden / 256, experts): a block goes over all tokens in order and skips those that did not choose its expert.
extern "C" __global__ void router_gradient(const float* __restrict__ d_logits, const int* __restrict__ experts,
                                           const bf16* __restrict__ x, float* __restrict__ to, int add, int tokens,
                                           int hidden, int k) {
    int j = blockIdx.x * blockDim.x + threadIdx.x, e = blockIdx.y;
    float sum = add && j < hidden ? to[(u64)e * hidden + j] : 0.0f;
    for (int t = 0; t < tokens; t++)
        for (int slot = 0; slot < k; slot++)
            if (experts[t * k + slot] == e && j < hidden)
                sum += d_logits[t * k + slot] * to_float(x[(u64)t * hidden + j]);
    if (j < hidden) to[(u64)e * hidden + j] = sum;
}

// da[r, j] = factor * sum_e b[e, r] whole[e, j].
extern "C" __global__ void router_gradient_a(const float* __restrict__ whole, const float* a,
                                             const float* __restrict__ b, float* __restrict__ da, int experts,
                                             int hidden, int rank, float factor) {
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= rank * hidden) return;
    int r = n / hidden, j = n % hidden;
    float sum = 0.0f;
    for (int e = 0; e < experts; e++) sum += b[e * rank + r] * whole[(u64)e * hidden + j];
    da[n] = factor * sum;
}

// db[e, r] = factor * sum_j whole[e, j] a[r, j].
extern "C" __global__ void router_gradient_b(const float* __restrict__ whole, const float* __restrict__ a,
                                             const float* b, float* __restrict__ db, int experts, int hidden, int rank,
                                             float factor) {
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= experts * rank) return;
    int e = n / rank, r = n % rank;
    float sum = 0.0f;
    for (int j = 0; j < hidden; j++) sum += whole[(u64)e * hidden + j] * a[(u64)r * hidden + j];
    db[n] = factor * sum;
}
