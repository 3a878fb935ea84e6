//! Clamped SwiGLU on a CUDA card: the launches, and the operator made of them.

use burn::backend::TensorMetadata as _;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::SwigluKernel;
use crate::cuda::plain::{EACH, SWIGLU_BACKWARD, SWIGLU_FP8_VECTORS, SWIGLU_VECTORS};
use crate::cuda::{self, Arg, Result, Run};

/// `h = swiglu(pre)` for `rows` of `width` results.
pub(crate) fn forward(run: &Run<'_>, pre: u64, h: u64, rows: usize, width: usize, limit: f32) -> Result<()> {
    let kernel = run.kernel("swiglu", "swiglu", &[])?;
    let vectors = rows * width / 8;
    let arguments = [Arg::Ptr(pre), Arg::Ptr(h), Arg::I64(vectors as i64), Arg::F32(limit)];
    run.launch(kernel, EACH.over(vectors.div_ceil(SWIGLU_VECTORS)), EACH.threads, 0, &arguments)
}

/// Addresses of the backward; 0 where there is none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backward {
    /// `[rows, 2 · width]`
    pub(crate) pre: u64,
    /// `[rows, width]`, without the router's weight.
    pub(crate) dh: u64,
    /// `[rows, 2 · width]`; may be `pre`, or none where there are `codes`.
    pub(crate) dpre: u64,
    /// The same in E4M3, `[rows, 2 · width]`, and each row's factor, f32 `[rows]`; or none. Then pairs, weights
    /// and their gradient are given.
    pub(crate) codes: u64,
    pub(crate) factors: u64,
    /// The activation again, or none.
    pub(crate) h_out: u64,
    /// Pair of each row, or none.
    pub(crate) pairs: u64,
    /// The router's weight of each pair, or none.
    pub(crate) weights: u64,
    /// Gradient of each pair's weight, without what the second product's bias gives; or none.
    pub(crate) d_weights: u64,
}

/// Whether a row of so many results fits a block that also writes it in E4M3.
pub(crate) fn fits_fp8(width: usize) -> bool {
    width <= 8 * SWIGLU_FP8_VECTORS * SWIGLU_BACKWARD.threads as usize
}

/// The gradient of the activation's input, and where asked that of the router's weights.
pub(crate) fn backward(run: &Run<'_>, at: &Backward, [rows, width]: [usize; 2], limit: f32) -> Result<()> {
    let Backward { pre, dh, dpre, h_out, pairs, weights, d_weights, .. } = *at;
    let mut arguments = [pre, dh, dpre, h_out].map(Arg::Ptr).to_vec();
    let (unit, entry) = if at.codes == 0 {
        ("swiglu", "swiglu_backward")
    } else {
        arguments.extend([at.codes, at.factors].map(Arg::Ptr));
        ("swiglu/fp8_sm90", "swiglu_backward_fp8")
    };
    arguments.extend(Arg::list([pairs, weights, d_weights], [width]));
    arguments.push(Arg::F32(limit));
    run.launch_early(run.kernel(unit, entry, &[])?, rows, SWIGLU_BACKWARD.threads, 0, &arguments)
}

impl SwigluKernel for CubeBackend {
    fn swiglu_forward(gate_up: CubeTensor, limit: f32) -> CubeTensor {
        let pre = cuda::contiguous(gate_up);
        let [rows, inputs] = cuda::matrix(&pre);
        let h = cuda::empty([rows, inputs / 2], DType::BF16, &pre.device);
        cuda::gpu_of(&pre).enqueue(cuda::handles([&pre, &h]), move |run, p| {
            forward(run, p[0], p[1], rows, inputs / 2, limit)
        });
        h
    }

    fn swiglu_backward(gate_up: CubeTensor, limit: f32, grad: CubeTensor) -> CubeTensor {
        let (pre, grad) = (cuda::contiguous(gate_up), cuda::contiguous(grad));
        let [rows, inputs] = cuda::matrix(&pre);
        let dx = cuda::empty(pre.shape(), DType::BF16, &pre.device);
        cuda::gpu_of(&pre).enqueue(cuda::handles([&pre, &grad, &dx]), move |run, p| {
            let at = Backward { pre: p[0], dh: p[1], dpre: p[2], ..Backward::default() };
            backward(run, &at, [rows, inputs / 2], limit)
        });
        dx
    }
}
