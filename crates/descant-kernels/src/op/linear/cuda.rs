//! Products with frozen weights on a CUDA card: a dense one by cuBLASLt, sorted rows by the grouped kernels, which
//! read packed weights as they are.

use burn::backend::TensorMetadata as _;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::server::Handle;
use descant_quant::mxfp4::{BLOCK, tiles};
use descant_quant::nf4;

use super::{GROUPED_FEATURES, LinearKernel, Mxfp4Piece, RowGroups, WeightPrimitive};
use crate::cuda::geometry::{TILES, UNPACK};
use crate::cuda::{self, Arg, CudaError, Element, MatmulSpec, Result, Run};
use crate::memory::table::WORKSPACE;
use crate::op::experts::cuda::{Output, Sorted, is_few, product};
use crate::op::experts::matrices::{ExpertData, Experts, PackedData, Side};
use crate::stream::slots::Course;
use crate::stream::{Half, StreamedMatrix};

/// Blocks a multiprocessor that unpack a matrix: as many as fit.
const UNPACK_BLOCKS: u32 = 8;

/// Matrices of a product, ready to be read: `[count, rows, columns]`.
pub(crate) struct Matrices {
    /// Where they lie; what has an address only inside a closure is not in it.
    data: ExpertData<()>,
    /// One buffer, or the pieces of packed ones; none of those that stream.
    buffers: Vec<Handle>,
    streamed: Option<StreamedMatrix>,
    count: usize,
    rows: usize,
    columns: usize,
    /// Whether rows are output features.
    rows_are_out: bool,
}

impl Matrices {
    fn of(weight: WeightPrimitive<CubeBackend>) -> Self {
        let dense = |weight: CubeTensor, rows_are_out| {
            let weight = cuda::halves(weight);
            let [count, rows, columns] = weight.shape().dims();
            let (data, buffers) = (ExpertData::Bf16(()), vec![weight.handle]);
            Self { data, buffers, streamed: None, count, rows, columns, rows_are_out }
        };
        match weight {
            WeightPrimitive::Dense { weight } => dense(weight, true),
            WeightPrimitive::Transposed { weight } => dense(weight, false),
            WeightPrimitive::Mxfp4Tiles { blocks, scales } => {
                let (blocks, scales) = (cuda::contiguous(blocks), cuda::contiguous(scales));
                let [count, bands, parts, _] = scales.shape().dims();
                let (rows, columns) = (bands * tiles::ROWS, parts * super::weight::BLOCK);
                let buffers = vec![blocks.handle, scales.handle];
                let data = ExpertData::Packed(PackedData::Mxfp4 { blocks: (), scales: () });
                Self { data, buffers, streamed: None, count, rows, columns, rows_are_out: true }
            }
            WeightPrimitive::Mxfp4 { .. } => unreachable!("only the CPU reads MXFP4 as published"),
            WeightPrimitive::Nf4 { blocks, scales, tables } => {
                let [blocks, scales, tables] = [blocks, scales, tables].map(cuda::contiguous);
                let [count, rows, parts] = scales.shape().dims();
                let columns = parts * nf4::BLOCK;
                let buffers = vec![blocks.handle, scales.handle, tables.handle];
                let data = ExpertData::Packed(PackedData::Nf4 { blocks: (), scales: (), tables: () });
                Self { data, buffers, streamed: None, count, rows, columns, rows_are_out: true }
            }
            WeightPrimitive::Streamed { matrix } => {
                let [count, rows, columns] = matrix.shape;
                let (data, buffers) = (ExpertData::Streamed(matrix.packing), Vec::new());
                Self { data, buffers, streamed: Some(matrix), count, rows, columns, rows_are_out: true }
            }
        }
    }

    fn features(&self) -> (usize, usize) {
        if self.rows_are_out { (self.columns, self.rows) } else { (self.rows, self.columns) }
    }

    /// Whether cuBLASLt multiplies it. Its algorithms differ with the number of rows, so rows that are apart take the
    /// grouped kernels where they serve.
    fn is_one_dense(&self, groups: &RowGroups<CubeBackend>) -> bool {
        let is_served = [self.rows, self.columns].iter().all(|n| n.is_multiple_of(GROUPED_FEATURES));
        self.count == 1
            && self.rows_are_out
            && self.data == ExpertData::Bf16(())
            && !(groups.apart() && is_served)
    }

    /// Does the product with them at the addresses of their buffers. Those that stream are brought to the card first,
    /// but for a product of few rows, which reads what it needs over the bus where it can.
    fn product(&self, run: &Run<'_>, addresses: &[u64], a: &Sorted, side: Side, to: &Output) -> Result<()> {
        let mut addresses = addresses.iter().copied();
        let mut next = |(): &()| addresses.next().expect("an address a buffer");
        let data = self.data.map(&mut next);
        let experts = |data| Experts { data, count: self.count, rows: self.rows, columns: self.columns };
        let Some(StreamedMatrix { ring, layer, half, .. }) = &self.streamed else {
            return product(run, a, &experts(data), side, to);
        };
        if is_few(a, self.count, side)
            && let Some(data) = ring.in_place(*layer, *half)?
        {
            return product(run, a, &experts(data), side, to);
        }
        let entered = ring.enter(run, *layer)?;
        product(run, a, &experts(entered.half(*half)), side, to)?;
        // The other half of the layer is wanted next.
        let course = (*half == Half::Down).then_some(Course::Round);
        ring.leave(run, &entered, course, false)
    }
}

/// Where each matrix' rows begin.
pub(crate) enum Offsets {
    /// On the card already.
    Known(CubeTensor),
    /// All rows to one matrix: to be written by the launch.
    One(CubeTensor, usize),
}

impl Offsets {
    pub(crate) fn of(groups: RowGroups<CubeBackend>, rows: usize, like: &CubeTensor) -> Self {
        match groups {
            RowGroups::One { .. } => Self::One(cuda::empty([2], DType::I32, &like.device), rows),
            RowGroups::Sorted { offsets, .. } => Self::Known(cuda::contiguous(offsets)),
        }
    }

    pub(crate) fn handle(&self) -> Handle {
        match self {
            Self::Known(offsets) | Self::One(offsets, _) => offsets.handle.clone(),
        }
    }

    /// Rows to write before the first product.
    pub(crate) fn rows(&self) -> Option<usize> {
        match self {
            Self::Known(_) => None,
            Self::One(_, rows) => Some(*rows),
        }
    }
}

/// Writes the offsets of one matrix, where they are not known: byte by byte, because a copy from the host would have to
/// be waited for.
pub(crate) fn write_offsets(run: &Run<'_>, offsets: u64, rows: Option<usize>) -> Result<()> {
    let Some(rows) = rows else { return Ok(()) };
    run.memset(offsets, 0, 2 * size_of::<i32>())?;
    let bytes = (offsets + size_of::<i32>() as u64..).zip((rows as i32).to_le_bytes());
    bytes.filter(|(_, byte)| *byte != 0).try_for_each(|(at, byte)| run.memset(at, byte, 1))
}

/// `x` times each row's matrix, or its transpose on the way back.
fn grouped(
    x: &CubeTensor,
    matrices: Matrices,
    bias: Option<&CubeTensor>,
    groups: RowGroups<CubeBackend>,
    back: bool,
) -> CubeTensor {
    let [rows, stride] = cuda::matrix(x);
    let (d_in, d_out) = matrices.features();
    let out = cuda::empty([rows, if back { d_in } else { d_out }], DType::BF16, &x.device);
    let is_apart = groups.apart();
    let offsets = Offsets::of(groups, rows, x);
    let known = offsets.rows();
    let side = if matrices.rows_are_out == back { Side::Rows } else { Side::Columns };
    let mut handles = cuda::handles([x, &out]);
    handles.push(offsets.handle());
    handles.extend(bias.map(|bias| bias.handle.clone()));
    let first = handles.len();
    handles.extend(matrices.buffers.clone());
    cuda::gpu_of(x).enqueue(handles, move |run, p| {
        write_offsets(run, p[2], known)?;
        let a = Sorted { data: p[0], stride, pairs: None, top_k: 1, offsets: p[2], places: rows, is_apart };
        let bias = (first > 3).then(|| p[3]);
        let to = Output { bias, out: Some(p[1]), ..Output::default() };
        matrices.product(run, &p[first..], &a, side, &to)
    });
    out
}

/// The same by cuBLASLt for one dense matrix.
fn dense(x: &CubeTensor, matrices: &Matrices, bias: Option<&CubeTensor>, back: bool) -> CubeTensor {
    let [rows, _] = cuda::matrix(x);
    let (d_in, d_out) = matrices.features();
    let mut spec =
        if back { MatmulSpec::backward(rows, d_in, d_out) } else { MatmulSpec::forward(rows, d_out, d_in) };
    spec.bias = bias.map(|_| Element::Bf16);
    let out = cuda::empty([rows, spec.n], DType::BF16, &x.device);
    let workspace = cuda::empty([WORKSPACE], DType::U8, &x.device);
    let mut handles = cuda::handles([x, &out, &workspace]);
    handles.extend(matrices.buffers.clone());
    handles.extend(bias.map(|bias| bias.handle.clone()));
    cuda::gpu_of(x).enqueue(handles, move |run, p| {
        let bias = p.get(4).copied();
        let workspace = (p[2], WORKSPACE);
        let matrices = cuda::Matrices { a: p[0], b: p[3], c: None, d: p[1], bias, workspace };
        run.blas().matmul(&spec, &matrices)
    });
    out
}

/// Writes `numbers` of a packed matrix to `to`, in bf16.
pub(crate) fn unpack(run: &Run<'_>, data: &PackedData, numbers: usize, to: u64) -> Result<()> {
    let PackedData::Nf4 { blocks, scales, tables } = *data else {
        return Err(CudaError::NoKernel { operator: "unpack", what: data.packing().name().to_owned() });
    };
    let arguments = Arg::list([blocks, scales, tables, to], [numbers]);
    let grid = (run.gpu().multiprocessors() * UNPACK_BLOCKS) as usize;
    let kernel = run.kernel("linear/unpack", "unpack_nf4", &[])?;
    run.launch(kernel, grid, UNPACK.threads, UNPACK.shared, &arguments)
}

/// Puts published MXFP4 that has arrived at `at` in the order of tiles, in place.
pub(crate) fn in_tiles(
    run: &Run<'_>,
    piece: Mxfp4Piece,
    at: u64,
    [count, rows, columns]: [usize; 3],
) -> Result<()> {
    let (entry, row) = match piece {
        Mxfp4Piece::Blocks => ("blocks_in_tiles", columns / 2),
        Mxfp4Piece::Scales => ("scales_in_tiles", columns / BLOCK),
    };
    let kernel = run.kernel("linear/tiles", entry, &[])?;
    let (bands, shared) = (count * rows / tiles::ROWS, (tiles::ROWS * row) as u32);
    run.launch(kernel, bands, TILES.threads, shared, &[Arg::Ptr(at), Arg::size(columns)])
}

impl LinearKernel for CubeBackend {
    fn linear_forward(
        x: CubeTensor,
        weight: WeightPrimitive<Self>,
        bias: CubeTensor,
        groups: RowGroups<Self>,
    ) -> CubeTensor {
        let (x, bias, matrices) = (cuda::halves(x), cuda::halves(bias), Matrices::of(weight));
        if matrices.is_one_dense(&groups) {
            return dense(&x, &matrices, Some(&bias), false);
        }
        grouped(&x, matrices, Some(&bias), groups, false)
    }

    fn linear_backward(
        grad: CubeTensor,
        weight: WeightPrimitive<Self>,
        groups: RowGroups<Self>,
    ) -> CubeTensor {
        let (grad, matrices) = (cuda::halves(grad), Matrices::of(weight));
        if matrices.is_one_dense(&groups) {
            return dense(&grad, &matrices, None, true);
        }
        grouped(&grad, matrices, None, groups, true)
    }
}
