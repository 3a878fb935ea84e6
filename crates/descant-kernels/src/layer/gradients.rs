//! The launch of `gradients.cu`: the gradients of a layer's dense low-rank pairs.

use super::lora::Fields;
use crate::cuda::geometry::{PAIR_COLUMNS, PAIR_GRADIENTS, PAIR_RANKS};
use crate::cuda::structures::{JOB_BYTES, JOBS_BYTES};
use crate::cuda::{Arg, Result, Run};

/// Numbers of bf16 that are copied at a time, so that rows of ranks begin at multiples of it.
const VECTOR: usize = 8;

/// Which factor a gradient is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Factor {
    /// `[rank, width]`
    A,
    /// `[width, rank]`
    B,
}

/// The gradient of one factor: f32, written whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct FactorGradient {
    pub(super) to: u64,
    pub(super) factor: Factor,
    /// First of its columns among those of the thin rows, and how many.
    pub(super) first: usize,
    pub(super) rank: usize,
    pub(super) alpha: f32,
}

/// Sums over tokens of thin rows times wide ones.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// bf16 `[tokens, width]`, rows `wide_stride` apart.
    pub(super) wide: u64,
    pub(super) width: usize,
    pub(super) wide_stride: usize,
    /// bf16 rows of `ranks`, which begin where 16 bytes do.
    pub(super) thin: u64,
    pub(super) ranks: usize,
    pub(super) parts: Vec<FactorGradient>,
}

impl Job {
    /// Without the thin columns before and behind those that are used.
    fn cut(&self) -> (u64, usize, Vec<FactorGradient>) {
        let first = self.parts.iter().map(|part| part.first).min().unwrap_or(0) / VECTOR * VECTOR;
        let end = self.parts.iter().map(|part| part.first + part.rank).max().unwrap_or(0);
        let parts = self.parts.iter().map(|part| FactorGradient { first: part.first - first, ..*part });
        (self.thin + (2 * first) as u64, end.next_multiple_of(VECTOR) - first, parts.collect())
    }
}

/// All of them in one launch.
pub(super) fn pair_gradients(run: &Run<'_>, jobs: &[Job], tokens: usize) -> Result<()> {
    let mut fields = Fields::default();
    let (mut blocks, mut bytes) = (0, 8);
    fields.sizes(&[jobs.len(), tokens]);
    for job in jobs {
        let (thin, ranks, parts) = job.cut();
        fields.pointer(job.wide).pointer(thin).sizes(&[job.width, job.wide_stride, ranks, job.ranks]);
        fields.sizes(&[blocks, parts.len()]);
        for part in &parts {
            fields.pointer(part.to).sizes(&[part.first, part.rank]).factor(part.alpha);
            fields.sizes(&[usize::from(part.factor == Factor::B)]);
        }
        bytes += JOB_BYTES;
        fields.fill(bytes);
        blocks += job.width.div_ceil(PAIR_COLUMNS) * ranks.div_ceil(PAIR_RANKS);
    }
    fields.fill(JOBS_BYTES);
    let kernel = run.kernel("layer/gradients", "pair_gradients", &[])?;
    run.launch_early(kernel, blocks, PAIR_GRADIENTS.threads, 0, &[Arg::Struct(&fields.0)])
}
