//! A layer on an NVIDIA card: what is prepared once.

use std::sync::{Arc, OnceLock};

use burn::backend::tensor::Device as BackendDevice;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::fp8::Fp8;
use super::frozen::FrozenTensors;
use super::types::{LayerPlace, LayerSpec, LayerTensors};
use crate::cuda::{CudaError, Gpu, empty, gpu_of, index_of};
use crate::memory::budget::Need;
use crate::memory::{Chunks, LayerSizes, Workspace};
use crate::op::experts::ExpertForm;
use crate::op::experts::cuda::wants_order;
use crate::op::experts::matrices::ExpertData;
use crate::op::linear::FrozenWeight;
use crate::site::{ExpertPath, Paths, SiteKind};
use crate::stream::StreamedMatrix;

/// A layer's frozen tensors on their card.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) gpu: Gpu,
    pub(crate) spec: LayerSpec,
    pub(super) place: LayerPlace,
    pub(crate) sizes: LayerSizes,
    pub(crate) frozen: FrozenTensors<CubeTensor>,
    /// Where its experts come from, if they stream.
    pub(crate) streamed: Option<StreamedMatrix>,
    pub(super) workspace: Workspace,
    /// What its experts' products in fp8 are made with, once a training was to have them.
    fp8: OnceLock<Fp8>,
}

impl Prepared {
    /// `None` where the tensors are on no CUDA card, or in a form that the operators here do not read.
    pub(super) fn new(
        of: &LayerTensors,
        spec: LayerSpec,
        place: LayerPlace,
        workspace: &Workspace,
    ) -> Option<Self> {
        index_of(&of.router.device())?;
        let [n_experts, hidden] = of.router.dims();
        let frozen = FrozenTensors::new(of)?;
        let sizes = LayerSizes {
            hidden,
            query: spec.n_heads * spec.head_dim,
            key_value: spec.n_kv * spec.head_dim,
            n_heads: spec.n_heads,
            n_experts,
            top_k: spec.top_k,
            inner: of.down.d_in(),
            packed_attention: frozen.qkv.is_packed() || frozen.output.is_packed(),
        };
        let streamed = match (&of.gate_up, &of.down) {
            (FrozenWeight::Streamed(gate_up), FrozenWeight::Streamed(down)) if gate_up.is_beside(down) => {
                Some(gate_up.clone())
            }
            (FrozenWeight::Streamed(_), _) | (_, FrozenWeight::Streamed(_)) => return None,
            _ => None,
        };
        let gpu = gpu_of(&frozen.input_norm);
        Some(Self {
            gpu,
            spec,
            place,
            sizes,
            frozen,
            streamed,
            workspace: workspace.clone(),
            fp8: OnceLock::new(),
        })
    }

    /// The backend's name for where it is.
    pub(crate) fn device(&self) -> BackendDevice<CubeBackend> {
        self.frozen.input_norm.device.clone()
    }

    /// Room for the experts that each of so many tokens goes to.
    pub(super) fn room_for_choice(&self, tokens: usize) -> CubeTensor {
        empty([tokens, self.sizes.top_k], DType::I32, &self.device())
    }

    /// What a pass of so many tokens needs, with the longest sequence of it.
    pub(super) fn need(&self, paths: Paths, tokens: usize, longest: usize) -> Need {
        Need {
            sizes: self.sizes,
            paths,
            tokens,
            in_order: self.in_order(),
            longest,
            windows: Arc::clone(&self.place.windows),
            // What the memory is laid out for decides.
            chunks: Chunks::Long,
            experts: ExpertForm::Bf16,
        }
    }

    /// Makes ready for steps in these numbers; which products stay in bf16.
    pub(super) fn prepare_experts(&self, experts: ExpertForm) -> Result<Vec<SiteKind>, CudaError> {
        if experts == ExpertForm::Bf16 {
            return Ok(Vec::new());
        }
        let fp8 = if let Some(fp8) = self.fp8.get() {
            fp8
        } else {
            if self.place.index == 0 {
                self.gpu.compile_fp8_ahead();
            }
            let fp8 = Fp8::new(&self.gpu, &self.frozen, &self.sizes)?;
            self.fp8.get_or_init(|| fp8)
        };
        let kept = ExpertPath::ALL.into_iter().filter(|path| fp8.of(*path).is_none());
        Ok(kept.map(ExpertPath::site).collect())
    }

    /// What products in fp8 are made with.
    pub(super) fn fp8(&self) -> Result<&Fp8, CudaError> {
        let missing = || CudaError::backend("experts in fp8 were claimed, and the layer was not made ready");
        self.fp8.get().ok_or_else(missing)
    }

    /// Whether the experts' products want their rows in order.
    pub(super) fn in_order(&self) -> bool {
        let packed = |data: &ExpertData<CubeTensor>| data.packing().is_packed();
        (packed(&self.frozen.gate_up) || packed(&self.frozen.down)) && wants_order(&self.gpu)
    }
}
