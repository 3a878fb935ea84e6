//! The low-rank product on slices. Gradients of A and B are sums over rows: each run of rows makes a partial sum,
//! and the partial sums are added in the order of the rows.

use burn::backend::{Flex, TensorMetadata};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{LowRankKernel, Saved};
use crate::cpu::matmul::{Into, Matrix, matmul};
use crate::cpu::{contiguous, f32s, split_mut, tensor_f32};
use crate::op::linear::tasks;

impl LowRankKernel for Flex {
    fn low_rank_forward(saved: Saved<Self>) -> FlexTensor {
        let saved = saved.contiguous();
        let s = saved.sizes();
        let (x, a, b) = (f32s(&saved.x), f32s(&saved.a), f32s(&saved.b));
        let mut y = vec![0.0; s.n_rows * s.d_out];
        let tasks = tasks(&saved.groups, s.n_rows);
        let outs = split_mut(&mut y, tasks.iter().map(|t| t.rows.len() * s.d_out));
        tasks.par_iter().zip(outs).for_each(|(task, y)| {
            let n = task.rows.len();
            let x = Matrix::packed(&x[task.rows.start * s.d_in..task.rows.end * s.d_in], n, s.d_in);
            let mut h = vec![0.0; n * s.rank];
            matmul(&mut h, s.rank, Into::Overwrite, 1.0, x, s.a(a, task.matrix).t());
            let h = Matrix::packed(&h, n, s.rank);
            matmul(y, s.d_out, Into::Overwrite, saved.scaling, h, s.b(b, task.matrix).t());
        });
        tensor_f32(y, [s.n_rows, s.d_out])
    }

    /// With h = x A^T and dh = scaling · dy B: dx = dh A, dA = dh^T x, dB = scaling · dy^T h.
    fn low_rank_backward(saved: Saved<Self>, grad: FlexTensor) -> [FlexTensor; 3] {
        let (saved, grad) = (saved.contiguous(), contiguous(grad));
        let s = saved.sizes();
        let (x, a, b, grad) = (f32s(&saved.x), f32s(&saved.a), f32s(&saved.b), f32s(&grad));
        let mut dx = vec![0.0; s.n_rows * s.d_in];
        let tasks = tasks(&saved.groups, s.n_rows);
        let outs = split_mut(&mut dx, tasks.iter().map(|t| t.rows.len() * s.d_in));
        let partial: Vec<_> = tasks
            .par_iter()
            .zip(outs)
            .map(|(task, dx)| {
                let n = task.rows.len();
                let x = Matrix::packed(&x[task.rows.start * s.d_in..task.rows.end * s.d_in], n, s.d_in);
                let dy =
                    Matrix::packed(&grad[task.rows.start * s.d_out..task.rows.end * s.d_out], n, s.d_out);
                let (a, b) = (s.a(a, task.matrix), s.b(b, task.matrix));
                let (mut h, mut dh) = (vec![0.0; n * s.rank], vec![0.0; n * s.rank]);
                matmul(&mut h, s.rank, Into::Overwrite, 1.0, x, a.t());
                matmul(&mut dh, s.rank, Into::Overwrite, saved.scaling, dy, b);
                let (h, dh) = (Matrix::packed(&h, n, s.rank), Matrix::packed(&dh, n, s.rank));
                matmul(dx, s.d_in, Into::Overwrite, 1.0, dh, a);
                let (mut da, mut db) = (vec![0.0; s.rank * s.d_in], vec![0.0; s.d_out * s.rank]);
                matmul(&mut da, s.d_in, Into::Overwrite, 1.0, dh.t(), x);
                matmul(&mut db, s.rank, Into::Overwrite, saved.scaling, dy.t(), h);
                (da, db)
            })
            .collect();
        let (mut da, mut db) = (vec![0.0; a.len()], vec![0.0; b.len()]);
        for (task, (part_a, part_b)) in tasks.iter().zip(&partial) {
            add(&mut da[task.matrix * part_a.len()..][..part_a.len()], part_a);
            add(&mut db[task.matrix * part_b.len()..][..part_b.len()], part_b);
        }
        [tensor_f32(dx, [s.n_rows, s.d_in]), tensor_f32(da, saved.a.shape()), tensor_f32(db, saved.b.shape())]
    }
}

impl Saved<Flex> {
    fn contiguous(self) -> Self {
        Self { x: contiguous(self.x), a: contiguous(self.a), b: contiguous(self.b), ..self }
    }

    fn sizes(&self) -> Sizes {
        let (x, a, b) = (self.x.shape(), self.a.shape(), self.b.shape());
        assert!(x[1] == a[2] && a[1] == b[2] && a[0] == b[0], "low-rank factors {a:?}, {b:?} against {x:?}");
        Sizes { n_rows: x[0], d_in: x[1], d_out: b[1], rank: a[1] }
    }
}

#[derive(Clone, Copy)]
struct Sizes {
    n_rows: usize,
    d_in: usize,
    d_out: usize,
    rank: usize,
}

impl Sizes {
    /// Matrix `e` of all A, `[rank, in]`.
    fn a(self, a: &[f32], e: usize) -> Matrix<'_> {
        let size = self.rank * self.d_in;
        Matrix::packed(&a[e * size..][..size], self.rank, self.d_in)
    }

    /// Matrix `e` of all B, `[out, rank]`.
    fn b(self, b: &[f32], e: usize) -> Matrix<'_> {
        let size = self.d_out * self.rank;
        Matrix::packed(&b[e * size..][..size], self.d_out, self.rank)
    }
}

fn add(to: &mut [f32], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}
