//! Rows by index on a CUDA card: gathering, and the writes of a key-value cache.

use burn::backend::TensorMetadata as _;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::CacheOp;
use crate::cuda::{self, Arg, Result, Run};

/// `out[i] = table[ids[i]]`, zeros where an id is negative; rows of `table` are `stride` apart.
#[expect(dead_code, reason = "the embedding is to use it where it lies in host memory")]
pub(crate) fn gather_rows(
    run: &Run<'_>,
    table: u64,
    ids: u64,
    out: u64,
    [rows, width]: [usize; 2],
    stride: usize,
) -> Result<()> {
    let vectors = rows * width / 8;
    let mut arguments = [table, ids, out].map(Arg::Ptr).to_vec();
    arguments.extend([Arg::I64(vectors as i64), Arg::size(width), Arg::size(stride)]);
    run.launch(run.kernel("cache", "gather_rows", &[])?, vectors.div_ceil(1024), 256u32, 0, &arguments)
}

/// `cache[rows[i]] = values[i]` for distinct rows; rows of `values` are `stride` apart.
pub(crate) fn write_rows(
    run: &Run<'_>,
    cache: u64,
    rows: u64,
    values: u64,
    [count, width]: [usize; 2],
    stride: usize,
) -> Result<()> {
    let vectors = count * width / 8;
    let mut arguments = [cache, rows, values].map(Arg::Ptr).to_vec();
    arguments.extend([Arg::I64(vectors as i64), Arg::size(width), Arg::size(stride)]);
    run.launch(run.kernel("cache", "write_rows", &[])?, vectors.div_ceil(256), 256u32, 0, &arguments)
}

impl CacheOp for CubeBackend {
    fn write_rows(cache: CubeTensor, rows: CubeTensor, values: CubeTensor) -> CubeTensor {
        let (rows, values) = (cuda::contiguous(rows), cuda::contiguous(values));
        let cache = cuda::owned(cache);
        let [count, width] = cuda::matrix(&values);
        let count = count.min(rows.shape().num_elements());
        cuda::gpu_of(&cache).enqueue(cuda::handles([&cache, &rows, &values]), move |run, p| {
            write_rows(run, p[0], p[1], p[2], [count, width], width)
        });
        cache
    }
}
