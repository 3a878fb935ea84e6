//! RMSNorm on a CUDA card: the launches, and the operator made of them.

use burn::backend::TensorMetadata as _;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::NormKernel;
use crate::cuda::plain::NORM;
use crate::cuda::{self, Arg, CudaError, Result, Run};

/// Where the rows of a normalization lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    /// Rows.
    pub(crate) count: usize,
    /// Features.
    pub(crate) width: usize,
    /// Elements from a row of the result, or of its gradient, to the next.
    pub(crate) stride: usize,
    /// What is added to the mean square.
    pub(crate) epsilon: f64,
}

impl Rows {
    /// What both kernels take: addresses, then the sizes.
    fn arguments<const N: usize>(&self, addresses: [u64; N]) -> Vec<Arg<'static>> {
        let mut arguments = Arg::list(addresses, [self.count, self.width, self.stride]);
        arguments.push(Arg::F32(self.epsilon as f32));
        arguments
    }

    /// Bytes of so many such matrices of bf16.
    fn bytes(&self, matrices: usize) -> f64 {
        2.0 * (matrices * self.count * self.width) as f64
    }

    /// The kernels move 16 bytes at a time.
    fn check(&self) -> Result<()> {
        if self.width.is_multiple_of(8) && self.stride.is_multiple_of(8) {
            return Ok(());
        }
        let what = format!("rows of {} features, {} apart", self.width, self.stride);
        Err(CudaError::NoKernel { operator: "rms_norm", what })
    }

    /// Blocks that fill the card, each going over several rows.
    fn grid(&self, run: &Run<'_>, per_multiprocessor: usize) -> usize {
        self.count.min(run.gpu().multiprocessors() as usize * per_multiprocessor)
    }
}

/// `out[t] = x[t] / rms(x[t]) * weight`, and the factors `1 / rms` where `inv_rms` is wanted.
pub(crate) fn forward(
    run: &Run<'_>,
    x: u64,
    weight: u64,
    out: u64,
    inv_rms: Option<u64>,
    rows: Rows,
) -> Result<()> {
    rows.check()?;
    let kernel = run.kernel("norm", "rms_norm", &[])?;
    let arguments = rows.arguments([x, weight, out, inv_rms.unwrap_or(0)]);
    run.launch_early(kernel, rows.grid(run, 16), NORM.threads, 0, &arguments)
}

/// `dx = residual + J^T dy`; without `inv_rms` the factors are computed again. `dx` may be `residual`.
pub(crate) fn backward(
    run: &Run<'_>,
    x: u64,
    weight: u64,
    inv_rms: Option<u64>,
    dy: u64,
    residual: Option<u64>,
    dx: u64,
    rows: Rows,
) -> Result<()> {
    rows.check()?;
    let kernel = run.kernel("norm", "rms_norm_backward", &[])?;
    let arguments = rows.arguments([x, weight, inv_rms.unwrap_or(0), dy, residual.unwrap_or(0), dx]);
    run.launch_early(kernel, rows.grid(run, 8), NORM.threads, 0, &arguments)
}

impl NormKernel for CubeBackend {
    fn rms_norm_forward(x: CubeTensor, weight: CubeTensor, epsilon: f64) -> CubeTensor {
        let (x, weight) = (cuda::contiguous(x), cuda::floats(weight));
        let [count, width] = cuda::matrix(&x);
        let y = cuda::empty(x.shape(), DType::BF16, &x.device);
        let rows = Rows { count, width, stride: width, epsilon };
        cuda::gpu_of(&x).enqueue(cuda::handles([&x, &weight, &y]), move |run, p| {
            run.stage("norm", 0.0, rows.bytes(2), || forward(run, p[0], p[1], p[2], None, rows))
        });
        y
    }

    fn rms_norm_backward(x: CubeTensor, weight: CubeTensor, epsilon: f64, grad: CubeTensor) -> CubeTensor {
        let (x, weight, grad) = (cuda::contiguous(x), cuda::floats(weight), cuda::contiguous(grad));
        let [count, width] = cuda::matrix(&x);
        let dx = cuda::empty(x.shape(), DType::BF16, &x.device);
        let rows = Rows { count, width, stride: width, epsilon };
        cuda::gpu_of(&x).enqueue(cuda::handles([&x, &weight, &grad, &dx]), move |run, p| {
            run.stage("norm, back", 0.0, rows.bytes(3), || {
                backward(run, p[0], p[1], None, p[2], None, p[3], rows)
            })
        });
        dx
    }
}
