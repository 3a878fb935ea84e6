// Copies of the adapters as the dense and grouped products read them: bf16, padded, at their place in wider matrices.
#include "common.cuh"

#define MAX_PARTS 63

// One region of a packed matrix: out[m, i, j] = scale * from[m, i, j - column] where the source has that element, else 0,
// for i < out_rows, j < out_columns. `from` f32 [matrices, rows, columns] dense; `to` bf16 with rows of stride ld, matrices
// `stride` elements apart. A of rank r: columns = D, out_rows padded to what the product wants; B beside a frozen weight:
// rows = N, columns = r, column = where its u lies, out_columns = the 64 extra columns, scale = the adapter's scaling.
struct Part {
    u64 from, to;
    int matrices, rows, columns, out_rows, out_columns, column, ld;
    float scale;
    u64 stride, first; // `first`: elements of the parts before.
};
struct Parts {
    u64 total; // Elements of all parts.
    int count, unused;
    Part parts[MAX_PARTS];
};

// All parts at once. Grid: any (ceil(total / 1024) is enough). Block: 256.
extern "C" __global__ void __launch_bounds__(256) pack_lora(const __grid_constant__ Parts table) {
    for (u64 item = (u64)blockIdx.x * 256 + threadIdx.x; item < table.total; item += (u64)gridDim.x * 256) {
        int low = 0, high = table.count - 1;
        while (low < high) {
            int middle = (low + high + 1) / 2;
            if (table.parts[middle].first <= item) low = middle;
            else high = middle - 1;
        }
        const Part& part = table.parts[low];
        u64 index = item - part.first;
        int j = index % part.out_columns, i = index / part.out_columns % part.out_rows;
        u64 m = index / part.out_columns / part.out_rows;
        int column = j - part.column;
        float value = 0.0f;
        if (i < part.rows && column >= 0 && column < part.columns)
            value = part.scale * ((const float*)part.from)[(m * part.rows + i) * part.columns + column];
        ((bf16*)part.to)[m * part.stride + (u64)i * part.ld + j] = to_bf16(value);
    }
}
