//! Rotary position embedding on a CUDA card: the launch, and the operator made of it.

use burn::backend::TensorMetadata as _;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::{RotaryKernel, Turn};
use crate::cuda::plain::{EACH, ROTARY_HEADS};
use crate::cuda::{self, Arg, Result, Run};

/// Heads to turn, in rows that may hold more than them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    /// Rows.
    pub(crate) n_tokens: usize,
    /// Heads that are turned, from the beginning of a row.
    pub(crate) count: usize,
    /// Features of a head.
    pub(crate) dim: usize,
    /// Elements from a row to the next, of what is read and of what is written.
    pub(crate) strides: [usize; 2],
}

/// Turns the heads of `x` by `sign` times the angles into `out`, which may be `x`.
pub(crate) fn turn(
    run: &Run<'_>,
    x: u64,
    cos: u64,
    sin: u64,
    out: u64,
    heads: Heads,
    sign: f32,
) -> Result<()> {
    let kernel = run.kernel("rotary", "rotary", &[])?;
    let threads = heads.n_tokens * heads.count.div_ceil(ROTARY_HEADS) * (heads.dim / 16);
    let [from, to] = heads.strides;
    let mut arguments = Arg::list([x, cos, sin, out], [heads.n_tokens, heads.count, heads.dim, from, to]);
    arguments.push(Arg::F32(sign));
    run.launch_early(kernel, EACH.over(threads), EACH.threads, 0, &arguments)
}

impl RotaryKernel for CubeBackend {
    fn turn(x: CubeTensor, cos: CubeTensor, sin: CubeTensor, way: Turn) -> CubeTensor {
        let (x, cos, sin) = (cuda::contiguous(x), cuda::floats(cos), cuda::floats(sin));
        let [n_tokens, count, dim] = x.shape().dims();
        let y = cuda::empty(x.shape(), DType::BF16, &x.device);
        let heads = Heads { n_tokens, count, dim, strides: [count * dim; 2] };
        let sign = if way == Turn::Forward { 1.0 } else { -1.0 };
        cuda::gpu_of(&x).enqueue(cuda::handles([&x, &cos, &sin, &y]), move |run, p| {
            turn(run, p[0], p[1], p[2], p[3], heads, sign)
        });
        y
    }
}
