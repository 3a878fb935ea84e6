//! The trainable path on a CUDA card, by the grouped kernels: factors padded with zeros to their width, bf16 for the
//! products, f32 for the gradients. Few rows, as in generation, have a kernel of their own, which reads the factors as
//! they are.

use burn::backend::TensorMetadata as _;
use burn::backend::ops::FloatTensorOps as _;
use burn::tensor::{DType, Shape, Slice};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::{LowRankKernel, Saved};
use crate::cuda::geometry::LOW_RANK_FEW;
use crate::cuda::{self, Arg, Result, Run};
use crate::op::experts::cuda::{Factor, Gradient, Output, Sorted, low_rank_gradient, product};
use crate::op::experts::matrices::{ExpertData, Experts, Side};
use crate::op::experts::{LowRank, RANK_WIDTH};
use crate::op::linear::RowGroups;
use crate::op::linear::cuda::{Offsets, write_offsets};

/// Rows up to which each of them goes through its pair on its own.
const FEW_ROWS: usize = 32;

/// Sizes of both factors.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    count: usize,
    rank: usize,
    d_in: usize,
    d_out: usize,
    rows: usize,
}

impl Sizes {
    fn of(saved: &Saved<CubeBackend>) -> Self {
        let [count, rank, d_in] = saved.a.shape().dims();
        let [_, d_out, _] = saved.b.shape().dims::<3>();
        Self { count, rank, d_in, d_out, rows: saved.x.shape()[0] }
    }

    /// A at its address, `[count, 64, in]`.
    fn a(self, address: u64) -> Experts {
        Experts { data: ExpertData::Bf16(address), count: self.count, rows: RANK_WIDTH, columns: self.d_in }
    }

    /// B at its address, `[count, out, 64]`.
    fn b(self, address: u64) -> Experts {
        Experts { data: ExpertData::Bf16(address), count: self.count, rows: self.d_out, columns: RANK_WIDTH }
    }

    fn factor(self, features: usize) -> LowRank {
        LowRank { experts: self.count, features, rank: self.rank }
    }
}

/// A factor in bf16 with zeros up to 64 in dimension `dim`.
fn padded(factor: CubeTensor, dim: usize, scaling: f32) -> CubeTensor {
    let factor = if scaling.to_bits() == 1.0f32.to_bits() {
        factor
    } else {
        CubeBackend::float_mul_scalar(factor, scaling.into())
    };
    let factor = cuda::halves(factor);
    let mut dims: [usize; 3] = factor.shape().dims();
    if dims[dim] == RANK_WIDTH {
        return factor;
    }
    let slices: Vec<Slice> = dims.iter().map(|n| Slice::from(0..*n)).collect();
    dims[dim] = RANK_WIDTH;
    cuda::contiguous(CubeBackend::float_slice_assign(
        cuda::zeros(Shape::from(dims), DType::BF16, &factor.device),
        &slices,
        factor,
    ))
}

/// All rows of a matrix of this width, as the kernels read them.
fn all(data: u64, stride: usize, offsets: u64, rows: usize) -> Sorted {
    // Bf16 has no form for few.
    Sorted { data, stride, pairs: None, top_k: 1, offsets, places: rows, is_apart: false }
}

/// One grouped product.
fn times(run: &Run<'_>, a: &Sorted, matrices: &Experts, side: Side, out: u64) -> Result<()> {
    product(run, a, matrices, side, &Output { out: Some(out), ..Output::default() })
}

/// Few rows through both factors, in one launch.
fn few(saved: Saved<CubeBackend>, s: Sizes) -> CubeTensor {
    let (x, a, b) = (cuda::halves(saved.x), cuda::floats(saved.a), cuda::floats(saved.b));
    let y = cuda::empty([s.rows, s.d_out], DType::BF16, &x.device);
    let mut handles = cuda::handles([&x, &a, &b, &y]);
    if let RowGroups::Sorted { offsets, .. } = saved.groups {
        handles.push(cuda::contiguous(offsets).handle);
    }
    let scaling = saved.scaling;
    cuda::gpu_of(&x).enqueue(handles, move |run, p| {
        let offsets = p.get(4).copied().unwrap_or(0);
        let sizes = [s.count, s.rank, s.d_in, s.d_out];
        let mut arguments = Arg::list([p[0], p[1], p[2], offsets, p[3]], sizes);
        arguments.push(Arg::F32(scaling));
        let block = LOW_RANK_FEW.threads;
        let grid = (s.d_out.div_ceil(block as usize) as u32, s.rows as u32);
        run.launch(run.kernel("low_rank/few", "low_rank_few", &[])?, grid, block, 0, &arguments)
    });
    y
}

impl LowRankKernel for CubeBackend {
    fn low_rank_forward(saved: Saved<Self>) -> CubeTensor {
        let s = Sizes::of(&saved);
        if s.rows <= FEW_ROWS && !saved.groups.apart() {
            return few(saved, s);
        }
        let x = cuda::halves(saved.x);
        let (a, b) = (padded(saved.a, 1, 1.0), padded(saved.b, 2, saved.scaling));
        let offsets = Offsets::of(saved.groups, s.rows, &x);
        let known = offsets.rows();
        let inner = cuda::empty([s.rows, RANK_WIDTH], DType::BF16, &x.device);
        let y = cuda::empty([s.rows, s.d_out], DType::BF16, &x.device);
        let mut handles = cuda::handles([&x, &a, &b, &inner, &y]);
        handles.push(offsets.handle());
        cuda::gpu_of(&x).enqueue(handles, move |run, p| {
            write_offsets(run, p[5], known)?;
            times(run, &all(p[0], s.d_in, p[5], s.rows), &s.a(p[1]), Side::Columns, p[3])?;
            times(run, &all(p[3], RANK_WIDTH, p[5], s.rows), &s.b(p[2]), Side::Columns, p[4])
        });
        y
    }

    /// With h = x A^T and dh = scaling · dy B: dx = dh A, dA = dh^T x, dB = scaling · dy^T h.
    fn low_rank_backward(saved: Saved<Self>, grad: CubeTensor) -> [CubeTensor; 3] {
        let s = Sizes::of(&saved);
        let scaling = saved.scaling;
        let (x, grad) = (cuda::halves(saved.x), cuda::halves(grad));
        let [da, db] =
            [saved.a.shape(), saved.b.shape()].map(|shape| cuda::zeros(shape, DType::F32, &x.device));
        let (a, b) = (padded(saved.a, 1, 1.0), padded(saved.b, 2, scaling));
        let offsets = Offsets::of(saved.groups, s.rows, &x);
        let known = offsets.rows();
        let [inner, d_inner] = [(); 2].map(|()| cuda::empty([s.rows, RANK_WIDTH], DType::BF16, &x.device));
        let dx = cuda::empty(x.shape(), DType::BF16, &x.device);
        let (of_a, of_b) = (s.factor(s.d_in), s.factor(s.d_out));
        let bytes = of_a.workspace(s.rows).max(of_b.workspace(s.rows));
        let workspace = cuda::empty([bytes.max(1)], DType::U8, &x.device);
        let mut handles = cuda::handles([&x, &grad, &a, &b, &inner, &d_inner, &dx, &da, &db, &workspace]);
        handles.push(offsets.handle());
        cuda::gpu_of(&x).enqueue(handles, move |run, p| {
            let at = |data, stride| all(data, stride, p[10], s.rows);
            write_offsets(run, p[10], known)?;
            let (x, grad) = (at(p[0], s.d_in), at(p[1], s.d_out));
            times(run, &x, &s.a(p[2]), Side::Columns, p[4])?;
            times(run, &grad, &s.b(p[3]), Side::Rows, p[5])?;
            times(run, &at(p[5], RANK_WIDTH), &s.a(p[2]), Side::Rows, p[6])?;
            let to = |grad, factor, alpha| Gradient { grad, factor, alpha, workspace: p[9] };
            low_rank_gradient(run, &x, p[5], to(p[7], Factor::A, 1.0), of_a)?;
            low_rank_gradient(run, &grad, p[4], to(p[8], Factor::B, scaling), of_b)
        });
        [dx, da, db]
    }
}
