//! A step's rows times a dense matrix: a kernel of ours that reads the matrix once, or cuBLASLt where rows are many.

use super::bound::PathFactors;
use super::buffers::Buffers;
use super::types::THIN_ROWS;
use crate::cuda::geometry::{THIN, THIN_COLUMNS};
use crate::cuda::{Arg, Element, MatmulSpec, Matrices, Result, Run};
use crate::memory::table::WORKSPACE;
use crate::op::norm::cuda as norm;

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
        run.stage(name, 2.0 * (rows * numbers) as f64, 2.0 * numbers as f64, || {
            if rows <= THIN_ROWS { self.thin(run, rows) } else { self.wide(run, rows, at) }
        })
    }

    /// With a kernel that reads the matrix once.
    fn thin(&self, run: &Run<'_>, rows: usize) -> Result<()> {
        let PathFactors { columns, a, .. } = self.path;
        let (norm, epsilon) = self.norm.unwrap_or((0, 0.0));
        let (out, half) = match self.to {
            To::F32(out) => (out, 0),
            To::Bf16(half) => (0, half),
        };
        let pointers = [self.x, norm, self.weight, a, out, half, self.u].map(Arg::Ptr);
        let sizes = [rows, self.inputs, self.outputs, columns].map(Arg::size);
        let arguments = [&pointers[..], &sizes, &[Arg::F32(epsilon as f32)]].concat();
        let tiles = self.outputs.div_ceil(THIN_COLUMNS) + columns.div_ceil(THIN_COLUMNS);
        let blocks = (THIN_BLOCKS * run.gpu().multiprocessors()).min(tiles as u32);
        // Rows lie apart so that their columns are in different banks.
        let apart = if self.inputs.is_multiple_of(64) { 64 } else { 0 };
        let of_norm = if self.norm.is_some() { self.inputs * size_of::<f32>() } else { 0 };
        let shared = (rows * (self.inputs * 2 + apart) + of_norm) as u32;
        run.launch_early(run.kernel("decode/thin", "thin", &[])?, blocks, THIN.threads, shared, &arguments)
    }

    /// With cuBLASLt.
    fn wide(&self, run: &Run<'_>, rows: usize, at: &Buffers) -> Result<()> {
        let mut x = self.x;
        if let Some((weight, epsilon)) = self.norm {
            let all = norm::Rows { count: rows, width: self.inputs, stride: self.inputs, epsilon };
            x = at.normed;
            norm::forward(run, self.x, weight, x, None, all)?;
        }
        let multiply = |b, outputs, to: To| {
            let mut spec = MatmulSpec::forward(rows, outputs, self.inputs);
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
}
