//! What experts' products in fp8 read beside packed weights: rows in E4M3, and the references of weights. The launches.
//!
//! The definitions are in descant-quant: `e4m3`, and `mxfp4/reference.rs`.

use burn_cubecl::tensor::CubeTensor;
use descant_quant::mxfp4::{BLOCK, REACH};

use super::matrices::{PackedData, Side};
use crate::cuda::geometry::ROWS_FP8;
use crate::cuda::{Arg, CudaError, DeviceMemory, Gpu, Result, Run, copy_to_host};

/// Rows of an activation in E4M3, sorted by expert, one a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fp8Rows {
    /// `[places, width]`, in the order of `fp8.cuh`.
    pub(crate) data: u64,
    pub(crate) factors: RowFactors,
    /// `[experts + 1]`, i32.
    pub(crate) offsets: u64,
    pub(crate) places: usize,
}

/// What rows are multiplied with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RowFactors {
    /// `[places]`, f32.
    Each(u64),
    /// All with the same.
    Fixed(f32),
}

/// Rows in bf16 to E4M3: with `places`, i32 `[rows, k]`, each to its `k` places; without, where they are.
pub(crate) fn rows(
    run: &Run<'_>,
    x: u64,
    places: Option<u64>,
    [out, factors]: [u64; 2],
    [n_rows, width, k]: [usize; 3],
) -> Result<()> {
    let kernel = run.kernel("experts/fp8_rows_sm90", "rows_fp8", &[])?;
    let arguments = Arg::list([x, places.unwrap_or(0), out, factors], [n_rows, width, k]);
    let warps = ROWS_FP8.threads as usize / 32;
    run.launch_early(kernel, n_rows.div_ceil(warps), ROWS_FP8.threads, 0, &arguments)
}

/// The powers of two that the weights of a layer's matrices share, as published scales.
#[derive(Debug)]
pub(crate) struct References {
    memory: DeviceMemory,
    /// Bytes of those of the forward, which come first.
    forward: usize,
}

impl References {
    /// Those of `count` matrices of `rows` and `columns`; none where scales that would share one lie too far apart.
    ///
    /// # Errors
    /// The card refuses.
    pub(crate) fn new(
        gpu: &Gpu,
        data: &PackedData<CubeTensor>,
        [count, rows, columns]: [usize; 3],
    ) -> Result<Option<Self>> {
        let PackedData::Mxfp4 { scales, .. } = data else {
            return Err(CudaError::NoKernel { operator: "experts in fp8", what: "NF4".to_owned() });
        };
        let (across, lines) = (columns / BLOCK, count * rows);
        // Distances of scales behind the references, where an i32 may lie.
        let spans = (lines + count * across).next_multiple_of(size_of::<i32>());
        let memory = DeviceMemory::new(gpu, spans + 2 * size_of::<i32>())?;
        let at = memory.address();
        let mut found = [0; 2 * size_of::<i32>()];
        gpu.call(vec![scales.handle.clone()], |run, scales| {
            let kernel = |entry| run.kernel("experts/fp8_rows_sm90", entry, &[]);
            let (spans, threads) = (at + spans as u64, ROWS_FP8.threads);
            run.memset(spans, 0, found.len())?;
            let arguments = Arg::list([scales[0], at, spans], [lines, across]);
            let blocks = lines.div_ceil(threads as usize);
            run.launch(kernel("references_forward")?, blocks, threads, 0, &arguments)?;
            let arguments = Arg::list([scales[0], at + lines as u64, spans], [rows, across]);
            run.launch(kernel("references_backward")?, count * across, threads, 0, &arguments)?;
            copy_to_host(run.stream, &mut found, spans)
        })?;
        let spans = found.chunks_exact(4).map(|of| i32::from_le_bytes([of[0], of[1], of[2], of[3]]));
        Ok(spans
            .max()
            .is_some_and(|span| span <= i32::from(REACH))
            .then_some(Self { memory, forward: lines }))
    }

    /// All of them: those of the forward, then those of the backward.
    ///
    /// # Errors
    /// The card refuses.
    pub(crate) fn read(&self, gpu: &Gpu, [count, rows, columns]: [usize; 3]) -> Result<Vec<u8>> {
        let mut all = vec![0; count * (rows + columns / BLOCK)];
        gpu.call(Vec::new(), |run, _| copy_to_host(run.stream, &mut all, self.memory.address()))?;
        Ok(all)
    }

    /// Those of products that sum over this side: u8 `[experts, rows]`, or `[experts, columns / 32]`.
    pub(crate) fn of(&self, side: Side) -> u64 {
        match side {
            Side::Columns => self.memory.address(),
            Side::Rows => self.memory.address() + self.forward as u64,
        }
    }
}
