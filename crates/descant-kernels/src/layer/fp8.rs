//! What a layer's products in fp8 are made with, found once before a training.

use burn_cubecl::tensor::CubeTensor;

use super::frozen::FrozenTensors;
use crate::cuda::{CudaError, Gpu, Result};
use crate::memory::LayerSizes;
use crate::op::experts::fp8_rows::References;
use crate::op::experts::matrices::ExpertData;
use crate::site::ExpertPath;

/// What both sizes of matrices are multiples of.
const MULTIPLE: usize = 64;

/// A layer's experts for training steps in fp8: the references of their matrices. None of those that E5M2 does not hold
/// exactly, whose products stay in bf16.
#[derive(Debug)]
pub(super) struct Fp8 {
    gate_up: Option<References>,
    down: Option<References>,
}

impl Fp8 {
    /// Looks through the scales of a layer's matrices.
    ///
    /// # Errors
    /// There are no such kernels for this card or these matrices.
    pub(super) fn new(gpu: &Gpu, frozen: &FrozenTensors<CubeTensor>, sizes: &LayerSizes) -> Result<Self> {
        let refused = |what: &str| CudaError::NoKernel { operator: "experts in fp8", what: what.to_owned() };
        if !gpu.is_hopper() {
            return Err(refused("a card of another capability than 9.0, or portable kernels"));
        }
        let of = |data: &ExpertData<CubeTensor>, path: ExpertPath| match data {
            ExpertData::Packed(data) => {
                let [rows, columns] = sizes.matrix(path.site());
                if ![rows, columns].iter().all(|size| size.is_multiple_of(MULTIPLE)) {
                    let what = format!("matrices of {rows} x {columns}, which {MULTIPLE} does not divide");
                    return Err(refused(&what));
                }
                References::new(gpu, data, [sizes.n_experts, rows, columns])
            }
            ExpertData::Streamed(_) => Err(refused("experts that stream from the host")),
            ExpertData::Bf16(_) => Err(refused("experts that are not packed")),
        };
        Ok(Self {
            gate_up: of(&frozen.gate_up, ExpertPath::GateUp)?,
            down: of(&frozen.down, ExpertPath::Down)?,
        })
    }

    /// The references of a path's matrices.
    pub(super) fn of(&self, path: ExpertPath) -> Option<&References> {
        match path {
            ExpertPath::GateUp => self.gate_up.as_ref(),
            ExpertPath::Down => self.down.as_ref(),
        }
    }
}
