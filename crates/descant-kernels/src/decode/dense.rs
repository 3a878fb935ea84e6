//! A step's rows times a dense matrix: a kernel for few rows and one for more, whose sums have one order, so that a
//! sequence's bits do not depend on how many are beside it.
//!
//! With room for more than `WIDE_ROWS` sequences cuBLASLt is much faster (docs/benchmarks.md). Its algorithms differ from
//! size to size, so it always has as many rows as there is room for, `MANY_ROWS` or `STEP_ROWS`, however few are at work:
//! of such a decoder, too, a sequence's bits do not depend on others. Rows that are nobody's give what nobody reads.

use super::bound::PathFactors;
use super::buffers::{Buffers, SHARED_TILES};
use super::types::THIN_ROWS;
use crate::cuda::geometry::{THIN, THIN_COLUMNS, WIDE, WIDE_BAND, WIDE_COLUMNS, WIDE_SHARES, wide_shared};
use crate::cuda::{Arg, Element, MatmulSpec, Matrices, Result, Run};
use crate::memory::table::WORKSPACE;

/// Blocks a multiprocessor of a thin product.
const THIN_BLOCKS: u32 = 2;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Dense {
    pub(super) x: u64,
    /// The weight of a norm that comes first.
    pub(super) norm: Option<(u64, f64)>,
    pub(super) weight: u64,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// The low-rank path beside it, and where rows by its A go.
    pub(super) path: PathFactors,
    pub(super) u: u64,
    pub(super) to: To,
}

/// What a result is, and where it goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum To {
    F32(u64),
    Bf16(u64),
}

impl Dense {
    pub(super) fn product(&self, run: &Run<'_>, name: &'static str, rows: usize, at: &Buffers) -> Result<()> {
        let numbers = self.inputs * (self.outputs + self.path.columns);
        run.stage(name, 2.0 * (rows * numbers) as f64, 2.0 * numbers as f64, || match (rows, at.many) {
            (_, Some(padded)) => self.many(run, rows, padded, at),
            (..=THIN_ROWS, None) => self.thin(run, rows),
            (_, None) => self.wide(run, rows, at),
        })
    }

    /// With a kernel that reads the matrix once.
    fn thin(&self, run: &Run<'_>, rows: usize) -> Result<()> {
        let PathFactors { columns, a, .. } = self.path;
        let (norm, epsilon) = self.norm.unwrap_or((0, 0.0));
        let (out, half) = self.to.addresses();
        let addresses = [self.x, norm, self.weight, a, out, half, self.u];
        let mut arguments = Arg::list(addresses, [rows, self.inputs, self.outputs, columns]);
        arguments.push(Arg::F32(epsilon as f32));
        let tiles = self.outputs.div_ceil(THIN_COLUMNS) + columns.div_ceil(THIN_COLUMNS);
        let blocks = (THIN_BLOCKS * run.gpu().multiprocessors()).min(tiles as u32);
        // Rows lie apart so that their columns are in different banks.
        let apart = if self.inputs.is_multiple_of(64) { 64 } else { 0 };
        let of_norm = if self.norm.is_some() { self.inputs * size_of::<f32>() } else { 0 };
        let shared = (rows * (self.inputs * 2 + apart) + of_norm) as u32;
        run.launch_early(run.kernel("decode/thin", "thin", &[])?, blocks, THIN.threads, shared, &arguments)
    }

    /// With one that goes by tiles of rows, in the same order of every sum: the norm has a launch of its own.
    fn wide(&self, run: &Run<'_>, rows: usize, at: &Buffers) -> Result<()> {
        let x = self.normed(run, rows, at)?;
        let PathFactors { columns, a, .. } = self.path;
        let (out, half) = self.to.addresses();
        let tiles = self.outputs.div_ceil(WIDE_COLUMNS) + columns.div_ceil(WIDE_COLUMNS);
        let is_shared = tiles <= SHARED_TILES;
        let (entry, bands) = match (is_shared, rows.div_ceil(WIDE_BAND)) {
            (false, 1) => ("wide_1", 1),
            (false, _) => ("wide_2", 2),
            (true, 1) => ("wide_shared_1", 1),
            (true, 2) => ("wide_shared_2", 2),
            (true, _) => ("wide_shared_4", 4),
        };
        let shares = if is_shared { WIDE_SHARES } else { 1 };
        let addresses = [x, self.weight, a, out, half, self.u, at.workspace, at.arrived];
        let arguments = Arg::list(addresses, [rows, self.inputs, self.outputs, columns]);
        let grid = [rows.div_ceil(bands * WIDE_BAND) as u32, tiles as u32, shares as u32];
        let (threads, shared) = (WIDE.threads * bands as u32, wide_shared(bands) as u32);
        run.launch_early(run.kernel("decode/wide", entry, &[])?, grid, threads, shared, &arguments)
    }

    /// With cuBLASLt, as so many rows.
    fn many(&self, run: &Run<'_>, rows: usize, padded: usize, at: &Buffers) -> Result<()> {
        let x = self.normed(run, rows, at)?;
        let multiply = |b, outputs, to: To| {
            let mut spec = MatmulSpec::forward(padded, outputs, self.inputs);
            let (element, d) = match to {
                To::F32(d) => (Element::F32, d),
                To::Bf16(d) => (Element::Bf16, d),
            };
            (spec.c.element, spec.d.element) = (element, element);
            let workspace = (at.workspace, WORKSPACE);
            run.blas().matmul(&spec, &Matrices { a: x, b, c: None, d, bias: None, workspace })
        };
        multiply(self.weight, self.outputs, self.to)?;
        match self.path {
            PathFactors { columns: 0, .. } => Ok(()),
            PathFactors { columns, a, .. } => multiply(a, columns, To::Bf16(self.u)),
        }
    }

    /// Where the rows lie behind the norm, if there is one.
    fn normed(&self, run: &Run<'_>, rows: usize, at: &Buffers) -> Result<u64> {
        let Some((weight, epsilon)) = self.norm else { return Ok(self.x) };
        let mut arguments = Arg::list([self.x, weight, at.normed], [self.inputs]);
        arguments.push(Arg::F32(epsilon as f32));
        let kernel = run.kernel("decode/rows", "norm_rows", &[])?;
        run.launch_early(kernel, rows, THIN.threads, 0, &arguments)?;
        Ok(at.normed)
    }
}

impl To {
    /// For f32 and for bf16, one of them 0.
    fn addresses(self) -> (u64, u64) {
        match self {
            Self::F32(out) => (out, 0),
            Self::Bf16(half) => (0, half),
        }
    }
}
