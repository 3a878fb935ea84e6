//! The choice of tokens on a CUDA card: a launch, and an id a row to read.

use burn::backend::TensorMetadata as _;
use burn::tensor::{DType, Tensor};

pub(crate) use super::draw::mask_bytes;
use super::draw::{Drawn, DrawnRow};
use crate::DeviceError;
use crate::cuda::plain::LOGITS;
use crate::cuda::structures::DRAWN_BYTES;
use crate::cuda::{self, Arg, DeviceMemory, Event, HostMemory, Result, Run};

/// Ids below this are exact in f32.
const MAX_IDS: usize = 1 << 24;

/// Whether there are kernels for these logits.
pub(super) fn has_form(logits: &Tensor<2>) -> bool {
    let [_, width] = logits.dims();
    logits.dtype() == DType::BF16 && width.is_multiple_of(8) && width < MAX_IDS
}

/// See [`best_tokens`](super::best_tokens).
pub(super) fn best_tokens(logits: Tensor<2>) -> std::result::Result<Vec<u32>, DeviceError> {
    let logits = cuda::contiguous(cuda::primitive(logits)?);
    let [rows, width] = cuda::matrix(&logits);
    let ids = cuda::empty([rows], DType::F32, &logits.device);
    cuda::gpu_of(&logits).enqueue(cuda::handles([&logits, &ids]), move |run, p| {
        let arguments = [Arg::Ptr(p[0]), Arg::Ptr(p[1]), Arg::size(width)];
        run.launch(run.kernel("pick", "best_tokens", &[])?, rows, LOGITS.threads, 0, &arguments)
    });
    debug_assert_eq!(ids.shape().num_elements(), rows);
    Ok(cuda::read(ids)?.into_iter().map(|id| id as u32).collect())
}

/// Where the kernel finds what belongs to rows of logits: addresses, 0 for none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) logits: u64,
    pub(crate) draws: u64,
    pub(crate) seen: u64,
    pub(crate) drawn: u64,
    /// Of a step of generation.
    pub(crate) ids: u64,
    pub(crate) positions: u64,
}

/// Draws a token of each of so many rows.
pub(crate) fn draw(run: &Run<'_>, at: At, rows: usize, vocabulary: usize) -> Result<()> {
    let addresses = [at.logits, at.draws, at.seen, at.drawn, at.ids, at.positions];
    let arguments = Arg::list(addresses, [vocabulary]);
    run.launch(run.kernel("pick/draw", "draw_tokens", &[])?, rows, LOGITS.threads, 0, &arguments)
}

/// See [`draw_tokens`](super::draw_tokens).
pub(super) fn draw_tokens(logits: Tensor<2>, rows: &[DrawnRow<'_>]) -> Result<Vec<Drawn>> {
    let logits = cuda::contiguous(cuda::primitive(logits)?);
    let [count, width] = cuda::matrix(&logits);
    let draws: Vec<u8> = rows.iter().flat_map(DrawnRow::bytes).collect();
    let seen: Vec<u8> = rows.iter().flat_map(|row| row.mask(width)).collect();
    let gpu = cuda::gpu_of(&logits);
    // Read by the host once the card has written it.
    let drawn = HostMemory::new(&gpu, count * DRAWN_BYTES)?;
    let to = drawn.address();
    let scratch = DeviceMemory::new(&gpu, draws.len() + seen.len())?;
    gpu.call(vec![logits.handle.clone()], move |run, p| {
        let (at_draws, at_seen) = (scratch.address(), scratch.address() + draws.len() as u64);
        run.upload(at_draws, &draws)?;
        run.upload(at_seen, &seen)?;
        let at = At { logits: p[0], draws: at_draws, seen: at_seen, drawn: to, ids: 0, positions: 0 };
        draw(run, at, count, width)?;
        let done = Event::new(false)?;
        done.record(run.stream)?;
        done.wait()
    })?;
    Ok(drawn.bytes().chunks_exact(DRAWN_BYTES).map(Drawn::read).collect())
}
