//! Rows by index on a CUDA card: the launches, and the operators made of them.

use burn::backend::TensorMetadata as _;
use burn::backend::tensor::Device;
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::choice::{Choice, indices};
use super::node::SelectKernel;
use crate::cuda::plain::EACH;
use crate::cuda::{self, Arg, Result, Run};

/// Numbers of two bytes that the kernels move at a time.
const VECTOR: usize = 8;

/// Whether the kernels move such rows, 16 bytes at a time.
pub(super) fn fits(x: &Tensor<2>) -> bool {
    matches!(x.dtype(), DType::BF16 | DType::F32) && halves(x.dims()[1], x.dtype()).is_multiple_of(VECTOR)
}

/// Numbers of two bytes that such a row is as long as.
fn halves(width: usize, dtype: DType) -> usize {
    width * dtype.size() / DType::BF16.size()
}

/// `out[i] = table[rows[i]]`, rows of `width` bf16.
pub(crate) fn gather(
    run: &Run<'_>,
    table: u64,
    rows: u64,
    out: u64,
    [count, width]: [usize; 2],
) -> Result<()> {
    launch(run, "gather_rows", [table, rows, out], [count, width])
}

fn launch(run: &Run<'_>, entry: &'static str, at: [u64; 3], [count, width]: [usize; 2]) -> Result<()> {
    let vectors = count * width / VECTOR;
    let mut arguments = at.map(Arg::Ptr).to_vec();
    arguments.extend([Arg::I64(vectors as i64), Arg::size(width)]);
    let bytes = 4.0 * (count * width) as f64;
    run.stage("rows by index", 0.0, bytes, || {
        run.launch_early(run.kernel("select", entry, &[])?, EACH.over(vectors), EACH.threads, 0, &arguments)
    })
}

/// One of the kernels over whole tensors.
fn rows_of(x: CubeTensor, indices: &CubeTensor, entry: &'static str) -> CubeTensor {
    let x = cuda::contiguous(x);
    let ([_, width], count, dtype) = (cuda::matrix(&x), indices.shape().num_elements(), x.dtype);
    let device: &Device<CubeBackend> = &x.device;
    let out = cuda::empty([count, width], dtype, device);
    cuda::gpu_of(&x).enqueue(cuda::handles([&x, indices, &out]), move |run, p| {
        launch(run, entry, [p[0], p[1], p[2]], [count, halves(width, dtype)])
    });
    out
}

/// See [`super::gather_rows`].
pub(super) fn gather_rows(table: &Tensor<2>, rows: &[usize]) -> Tensor<2> {
    let rows = indices(rows.iter().map(|&row| row as i32).collect(), &table.device());
    let table = cuda::primitive(table.clone()).expect("a table on a card is in no graph");
    cuda::tensor(rows_of(table, &rows, "gather_rows"))
}

impl SelectKernel for CubeBackend {
    fn chosen(x: CubeTensor, choice: &Choice) -> CubeTensor {
        rows_of(x, &choice.rows, "gather_rows")
    }

    fn spread(grad: CubeTensor, choice: &Choice) -> CubeTensor {
        rows_of(grad, &choice.places, "spread_rows")
    }
}
