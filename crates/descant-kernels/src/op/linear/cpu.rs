//! The product on slices: runs of rows in parallel, packed weights decoded a band of output features at a time.

use std::ops::Range;

use burn::backend::{Flex, TensorMetadata};
use burn_flex::FlexTensor;
use descant_quant::nf4;
use rayon::prelude::*;

use super::{LinearKernel, RowGroups, WeightPrimitive};
use crate::cpu::matmul::{Into, Matrix, matmul};
use crate::cpu::{contiguous, f32s, i32s, split_mut, tensor_f32, u8s};

/// Output features that are decoded at once: a band of 2880 inputs is 1.5 MB, within a core's cache.
const BAND: usize = 128;
/// Rows of a task on large inputs; a packed weight is decoded once a task.
const LARGE_TASK: usize = 512;
/// Rows of a task on small inputs, so that decoding a batch keeps all cores busy.
const SMALL_TASK: usize = 32;
/// Why a weight that streams, or that lies in tiles, is not met here.
const NO_CARD: &str = "only a card reads weights that stream or lie in tiles";

impl LinearKernel for Flex {
    fn linear_forward(
        x: FlexTensor,
        weight: WeightPrimitive<Self>,
        bias: FlexTensor,
        groups: RowGroups<Self>,
    ) -> FlexTensor {
        let (x, bias) = (contiguous(x), contiguous(bias));
        let (n_rows, d_in) = (x.shape()[0], x.shape()[1]);
        let d_out = bias.shape()[1];
        let weight = weight.contiguous();
        let bank = weight.bank(d_in, d_out);
        let (x, bias) = (f32s(&x), f32s(&bias));
        let mut y = vec![0.0; n_rows * d_out];
        let tasks = tasks(&groups, n_rows);
        let outs = split_mut(&mut y, tasks.iter().map(|t| t.rows.len() * d_out));
        tasks.par_iter().zip(outs).for_each(|(task, y)| {
            for row in y.chunks_exact_mut(d_out) {
                row.copy_from_slice(&bias[task.matrix * d_out..][..d_out]);
            }
            let n = task.rows.len();
            let x = Matrix::packed(&x[task.rows.start * d_in..task.rows.end * d_in], n, d_in);
            bank.for_each_band(task.matrix, |band, w| {
                matmul(&mut y[band.start..], d_out, Into::Accumulate, 1.0, x, w.t());
            });
        });
        tensor_f32(y, [n_rows, d_out])
    }

    fn linear_backward(
        grad: FlexTensor,
        weight: WeightPrimitive<Self>,
        groups: RowGroups<Self>,
    ) -> FlexTensor {
        let grad = contiguous(grad);
        let (n_rows, d_out) = (grad.shape()[0], grad.shape()[1]);
        let d_in = weight.d_in();
        let weight = weight.contiguous();
        let bank = weight.bank(d_in, d_out);
        let grad = f32s(&grad);
        let mut dx = vec![0.0; n_rows * d_in];
        let tasks = tasks(&groups, n_rows);
        let outs = split_mut(&mut dx, tasks.iter().map(|t| t.rows.len() * d_in));
        tasks.par_iter().zip(outs).for_each(|(task, dx)| {
            bank.for_each_band(task.matrix, |band, w| {
                let n = task.rows.len();
                let grad = &grad[task.rows.start * d_out + band.start..];
                let grad = Matrix::rows(grad, n, band.len(), d_out);
                matmul(dx, d_in, Into::Accumulate, 1.0, grad, w);
            });
        });
        tensor_f32(dx, [n_rows, d_in])
    }
}

/// Rows of one matrix.
pub(crate) struct Task {
    pub(crate) matrix: usize,
    pub(crate) rows: Range<usize>,
}

/// The rows of each group, cut into pieces by their number alone.
pub(crate) fn tasks(groups: &RowGroups<Flex>, n_rows: usize) -> Vec<Task> {
    let ranges: Vec<Range<usize>> = match groups {
        RowGroups::One { .. } => std::iter::once(0..n_rows).collect(),
        RowGroups::Sorted { offsets, .. } => {
            let offsets = contiguous(offsets.clone());
            i32s(&offsets).windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect()
        }
    };
    let size = if n_rows >= LARGE_TASK { LARGE_TASK } else { SMALL_TASK };
    let mut tasks = Vec::new();
    for (matrix, range) in ranges.into_iter().enumerate() {
        for start in range.clone().step_by(size) {
            tasks.push(Task { matrix, rows: start..range.end.min(start + size) });
        }
    }
    tasks
}

impl WeightPrimitive<Flex> {
    fn d_in(&self) -> usize {
        match self {
            Self::Dense { weight } => weight.shape()[2],
            Self::Transposed { weight } => weight.shape()[1],
            Self::Mxfp4 { scales, .. } => scales.shape()[2] * super::weight::BLOCK,
            Self::Nf4 { scales, .. } => scales.shape()[2] * nf4::BLOCK,
            Self::Streamed { .. } | Self::Mxfp4Tiles { .. } => unreachable!("{NO_CARD}"),
        }
    }

    fn contiguous(self) -> Self {
        match self {
            Self::Dense { weight } => Self::Dense { weight: contiguous(weight) },
            Self::Transposed { weight } => Self::Transposed { weight: contiguous(weight) },
            Self::Mxfp4 { blocks, scales } => {
                Self::Mxfp4 { blocks: contiguous(blocks), scales: contiguous(scales) }
            }
            Self::Nf4 { blocks, scales, tables } => Self::Nf4 {
                blocks: contiguous(blocks),
                scales: contiguous(scales),
                tables: contiguous(tables),
            },
            Self::Streamed { .. } | Self::Mxfp4Tiles { .. } => unreachable!("{NO_CARD}"),
        }
    }

    fn bank(&self, d_in: usize, d_out: usize) -> Bank<'_> {
        let form = match self {
            Self::Dense { weight } => Form::Dense(f32s(weight)),
            Self::Transposed { weight } => Form::Transposed(f32s(weight)),
            Self::Mxfp4 { blocks, scales } => Form::Mxfp4 { blocks: u8s(blocks), scales: u8s(scales) },
            Self::Nf4 { blocks, scales, tables } => Form::Nf4 {
                matrices: scales.shape()[0],
                stack: nf4::View { blocks: u8s(blocks), scales: u8s(scales), tables: f32s(tables) },
            },
            Self::Streamed { .. } | Self::Mxfp4Tiles { .. } => unreachable!("{NO_CARD}"),
        };
        Bank { form, d_in, d_out }
    }
}

/// Frozen matrices as slices.
struct Bank<'a> {
    form: Form<'a>,
    d_in: usize,
    d_out: usize,
}

enum Form<'a> {
    Dense(&'a [f32]),
    Transposed(&'a [f32]),
    Mxfp4 { blocks: &'a [u8], scales: &'a [u8] },
    Nf4 { matrices: usize, stack: nf4::View<'a> },
}

impl Bank<'_> {
    /// Calls `f` with bands of output features and their weights `[band, in]`, in order.
    fn for_each_band(&self, matrix: usize, mut f: impl FnMut(Range<usize>, Matrix<'_>)) {
        let size = self.d_in * self.d_out;
        match self.form {
            Form::Dense(w) => {
                f(0..self.d_out, Matrix::packed(&w[matrix * size..][..size], self.d_out, self.d_in));
            }
            Form::Transposed(w) => {
                f(0..self.d_out, Matrix::packed(&w[matrix * size..][..size], self.d_in, self.d_out).t());
            }
            Form::Mxfp4 { blocks, scales } => {
                let row_blocks = self.d_in / super::weight::BLOCK;
                let row_bytes = self.d_in / 2;
                self.decoded(f, |rows, out| {
                    let first = matrix * self.d_out + rows.start;
                    descant_quant::mxfp4::decode(
                        &blocks[first * row_bytes..][..rows.len() * row_bytes],
                        &scales[first * row_blocks..][..rows.len() * row_blocks],
                        out,
                    );
                });
            }
            Form::Nf4 { matrices, stack } => {
                let row_blocks = self.d_in / nf4::BLOCK;
                self.decoded(f, |rows, out| stack.decode(matrices, matrix, rows.start * row_blocks, out));
            }
        }
    }

    /// The bands of a packed matrix, of which `decode` gives some rows.
    fn decoded(
        &self,
        mut f: impl FnMut(Range<usize>, Matrix<'_>),
        decode: impl Fn(&Range<usize>, &mut [f32]),
    ) {
        let mut decoded = vec![0.0; BAND.min(self.d_out) * self.d_in];
        for start in (0..self.d_out).step_by(BAND) {
            let band = start..self.d_out.min(start + BAND);
            let (n, decoded) = (band.len(), &mut decoded[..band.len() * self.d_in]);
            decode(&band, decoded);
            f(band, Matrix::packed(decoded, n, self.d_in));
        }
    }
}
