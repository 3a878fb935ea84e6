//! The writes of a key-value cache on a CUDA card.

use burn::backend::TensorMetadata as _;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::CacheOp;
use crate::cuda::plain::EACH;
use crate::cuda::{self, Arg, Result, Run};

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
    run.launch(run.kernel("cache", "write_rows", &[])?, EACH.over(vectors), EACH.threads, 0, &arguments)
}

impl CacheOp for CubeBackend {
    fn write_rows(cache: CubeTensor, rows: CubeTensor, values: CubeTensor) -> CubeTensor {
        let (rows, values) = (cuda::contiguous(rows), cuda::contiguous(values));
        // In place, whoever else holds it: a decoder does.
        let cache = cuda::contiguous(cache);
        let [count, width] = cuda::matrix(&values);
        let count = count.min(rows.shape().num_elements());
        cuda::gpu_of(&cache).enqueue(cuda::handles([&cache, &rows, &values]), move |run, p| {
            write_rows(run, p[0], p[1], p[2], [count, width], width)
        });
        cache
    }
}
