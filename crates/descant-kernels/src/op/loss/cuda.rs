//! lm_head and cross-entropy on a CUDA card: the logits of some rows, their losses and gradients over them, the product
//! back, and on to the next rows in the same buffer.

use burn::backend::TensorMetadata as _;
use burn::backend::tensor::Device;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::rows::{pieces, rows_at_once};
use super::total::TotalKernel;
use super::{LogitsRoom, LossKernel};
use crate::cuda::plain::{EACH, LOGITS};
use crate::cuda::{self, Arg, MatmulSpec, Matrices, Result, Run};
use crate::memory::arena::Lease;
use crate::memory::table::WORKSPACE;
use crate::memory::workspace::Turn;

/// Shared memory that the kernel has beside the kept logits, and the driver's own.
const OTHER_SHARED: u32 = 2 * 1024;

/// Losses of rows of logits, and their gradients times `factor` (or one, where 0) over them.
pub(crate) fn cross_entropy(
    run: &Run<'_>,
    logits: u64,
    targets: u64,
    factor: u64,
    losses: u64,
    [rows, vocabulary]: [usize; 2],
    with_gradient: bool,
) -> Result<()> {
    let room = (run.gpu().architecture().shared_memory() - OTHER_SHARED) / 16;
    let kept = if with_gradient { room.min((vocabulary / 8) as u32) } else { 0 };
    let mut arguments = [logits, targets, factor, losses].map(Arg::Ptr).to_vec();
    arguments.extend([Arg::size(vocabulary), Arg::U32(kept), Arg::I32(with_gradient.into())]);
    run.launch(run.kernel("loss", "cross_entropy", &[])?, rows, LOGITS.threads, 16 * kept, &arguments)
}

/// `out = x` with each row times its factor; `out` may be `x`.
pub(crate) fn scale_rows(
    run: &Run<'_>,
    x: u64,
    factors: u64,
    out: u64,
    [rows, width]: [usize; 2],
) -> Result<()> {
    let vectors = rows * width / 8;
    let mut arguments = [x, factors, out].map(Arg::Ptr).to_vec();
    arguments.extend([Arg::I64(vectors as i64), Arg::size(width)]);
    run.launch(run.kernel("loss", "scale_rows", &[])?, EACH.over(vectors), EACH.threads, 0, &arguments)
}

/// Where the whole operator reads and writes; `gradient` 0 for none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Losses {
    /// bf16 `[rows, hidden]`
    pub(crate) hidden: u64,
    /// bf16 `[vocabulary, hidden]`
    pub(crate) head: u64,
    /// i32 `[rows]`
    pub(crate) targets: u64,
    /// f32 `[rows]`, what each loss counts in the gradient; 0 for ones.
    pub(crate) factor: u64,
    /// f32 `[rows]`
    pub(crate) values: u64,
    /// bf16 `[rows, hidden]`, may be `hidden`.
    pub(crate) gradient: u64,
    /// bf16 `[rows_at_once, vocabulary]`
    pub(crate) logits: u64,
    /// Rows that `logits` holds.
    pub(crate) rows_at_once: usize,
    /// For the products, address and bytes.
    pub(crate) workspace: (u64, usize),
}

/// All rows, at most so many at a time as [`rows_at_once`] says.
pub(crate) fn losses(run: &Run<'_>, at: &Losses, [rows, width, vocabulary]: [usize; 3]) -> Result<()> {
    for (start, n) in pieces(rows, at.rows_at_once) {
        let row = |base: u64, bytes: usize| if base == 0 { 0 } else { base + (start * bytes) as u64 };
        let (hidden, gradient) = (row(at.hidden, 2 * width), row(at.gradient, 2 * width));
        let product = MatmulSpec::forward(n, vocabulary, width);
        let matrices =
            Matrices { a: hidden, b: at.head, c: None, d: at.logits, bias: None, workspace: at.workspace };
        let (flops, numbers) = (2.0 * (n * width * vocabulary) as f64, (n * vocabulary) as f64);
        let bytes = 2.0 * ((vocabulary + n) * width) as f64 + 2.0 * numbers;
        run.stage("lm_head", flops, bytes, || run.blas().matmul(&product, &matrices))?;
        let (targets, factor, losses) = (row(at.targets, 4), row(at.factor, 4), row(at.values, 4));
        let passes = if gradient == 0 { 1.0 } else { 2.0 };
        run.stage("cross-entropy", 0.0, 2.0 * passes * numbers, || {
            cross_entropy(run, at.logits, targets, factor, losses, [n, vocabulary], gradient != 0)
        })?;
        if gradient != 0 {
            let product = MatmulSpec::backward(n, width, vocabulary);
            let matrices = Matrices { a: at.logits, d: gradient, ..matrices };
            run.stage("lm_head, back", flops, bytes, || run.blas().matmul(&product, &matrices))?;
        }
    }
    Ok(())
}

/// Where logits lie, and what products of them work in. Between the layers of a model their scratch is free; elsewhere there
/// is some of our own.
pub(super) struct LogitsPlace {
    lease: Option<Lease>,
    own: [CubeTensor; 2],
}

impl LogitsPlace {
    /// For so many bytes of logits.
    pub(super) fn new(turn: &mut Turn<'_>, bytes: usize, device: &Device<CubeBackend>) -> Self {
        let lease = turn.scratch(WORKSPACE + bytes);
        let own = [bytes, WORKSPACE].map(|bytes| {
            let bytes = if lease.is_some() { 1 } else { bytes };
            cuda::empty([bytes], DType::U8, device)
        });
        Self { lease, own }
    }

    /// The memory of our own, for the closure that uses the place.
    pub(super) fn own(&self) -> [&CubeTensor; 2] {
        [&self.own[0], &self.own[1]]
    }

    /// Addresses of both inside that closure, where those of our own are given, and the bytes of what products work in.
    pub(super) fn begin(&self, run: &Run<'_>, [logits, workspace]: [u64; 2]) -> Result<(u64, (u64, usize))> {
        let Some(lease) = &self.lease else { return Ok((logits, (workspace, WORKSPACE))) };
        lease.begin(run)?;
        let at = lease.scratch_address();
        Ok((at + WORKSPACE as u64, (at, WORKSPACE)))
    }
}

impl LossKernel for CubeBackend {
    fn losses(
        hidden: CubeTensor,
        head: CubeTensor,
        targets: CubeTensor,
        room: LogitsRoom,
        with_gradient: bool,
    ) -> (CubeTensor, Option<CubeTensor>) {
        let (hidden, head, targets) =
            (cuda::contiguous(hidden), cuda::contiguous(head), cuda::contiguous(targets));
        let ([rows, width], [vocabulary, _]) = (cuda::matrix(&hidden), cuda::matrix(&head));
        let device = &hidden.device;
        let values = cuda::empty([rows], DType::F32, device);
        let gradient = with_gradient.then(|| cuda::empty(hidden.shape(), DType::BF16, device));
        let gpu = cuda::gpu_of(&hidden);
        let most = rows_at_once(rows, vocabulary, room.bytes);
        let mut turn = room.within.turn();
        let logits = LogitsPlace::new(&mut turn, 2 * most * vocabulary, device);
        // Without a gradient its place is taken by something that nobody writes.
        let place = gradient.as_ref().unwrap_or(&values);
        let [own, workspace] = logits.own();
        let all = cuda::handles([&hidden, &head, &targets, &values, place, own, workspace]);
        gpu.enqueue(all, move |run, p| {
            let (logits, workspace) = logits.begin(run, [p[5], p[6]])?;
            let at = Losses {
                hidden: p[0],
                head: p[1],
                targets: p[2],
                factor: 0,
                values: p[3],
                gradient: if with_gradient { p[4] } else { 0 },
                logits,
                rows_at_once: most,
                workspace,
            };
            losses(run, &at, [rows, width, vocabulary])
        });
        drop(turn);
        (values, gradient)
    }

    fn scale_rows(x: CubeTensor, factors: CubeTensor) -> CubeTensor {
        let (x, factors) = (cuda::contiguous(x), cuda::floats(factors));
        let sizes = cuda::matrix(&x);
        let out = cuda::empty(x.shape(), DType::BF16, &x.device);
        cuda::gpu_of(&x).enqueue(cuda::handles([&x, &factors, &out]), move |run, p| {
            let bytes = 4.0 * (sizes[0] * sizes[1]) as f64;
            run.stage("scale rows", 0.0, bytes, || scale_rows(run, p[0], p[1], p[2], sizes))
        });
        out
    }
}

impl TotalKernel for CubeBackend {
    fn total(losses: CubeTensor, weights: CubeTensor) -> CubeTensor {
        let (losses, weights) = (cuda::contiguous(losses), cuda::contiguous(weights));
        let (n, sum) = (losses.shape().num_elements(), cuda::empty([1], DType::F32, &losses.device));
        cuda::gpu_of(&sum).enqueue(cuda::handles([&losses, &weights, &sum]), move |run, p| {
            let arguments = Arg::list([p[0], p[1], p[2]], [n]);
            run.launch(run.kernel("loss", "weighted_sum", &[])?, 1usize, LOGITS.threads, 0, &arguments)
        });
        sum
    }

    fn times(weights: CubeTensor, factor: CubeTensor) -> CubeTensor {
        let (weights, factor) = (cuda::contiguous(weights), cuda::contiguous(factor));
        let (n, out) =
            (weights.shape().num_elements(), cuda::empty(weights.shape(), DType::F32, &weights.device));
        cuda::gpu_of(&out).enqueue(cuda::handles([&weights, &factor, &out]), move |run, p| {
            let arguments = Arg::list([p[0], p[1], p[2]], [n]);
            run.launch(run.kernel("loss", "times_one", &[])?, EACH.over(n), EACH.threads, 0, &arguments)
        });
        out
    }
}
