//! The frozen tensors of a layer, generic over what a tensor is at a stage: tensors of a card, buffers, addresses.

use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;

use super::types::{DenseWeight, LayerTensors};
use crate::cuda::{contiguous, primitive};
use crate::memory::LayerSizes;
use crate::op::experts::matrices::{ExpertData, Experts, PackedData};
use crate::op::linear::FrozenWeight;

/// As [`LayerTensors`], with the experts' matrices in one of the forms that kernels read.
#[derive(Debug, Clone)]
pub(crate) struct FrozenTensors<T> {
    pub(crate) input_norm: T,
    /// Query, key and value below each other.
    pub(crate) qkv: DenseData<T>,
    pub(crate) qkv_bias: T,
    pub(crate) sinks: T,
    pub(crate) output: DenseData<T>,
    pub(crate) output_bias: T,
    pub(crate) post_norm: T,
    pub(crate) router: T,
    pub(crate) router_bias: T,
    pub(crate) gate_up: ExpertData<T>,
    pub(crate) gate_up_bias: T,
    pub(crate) down: ExpertData<T>,
    pub(crate) down_bias: T,
}

/// A dense matrix.
#[derive(Debug, Clone)]
pub(crate) enum DenseData<T> {
    /// bf16.
    Plain(T),
    /// Matrices below each other, and how many numbers each has.
    Packed(Vec<(PackedData<T>, usize)>),
}

impl<T> DenseData<T> {
    fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> DenseData<U> {
        match self {
            Self::Plain(weight) => DenseData::Plain(f(weight)),
            Self::Packed(parts) => {
                DenseData::Packed(parts.iter().map(|(data, numbers)| (data.map(f), *numbers)).collect())
            }
        }
    }

    pub(super) fn is_packed(&self) -> bool {
        matches!(self, Self::Packed(_))
    }
}

impl<T> FrozenTensors<T> {
    pub(crate) fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> FrozenTensors<U> {
        FrozenTensors {
            input_norm: f(&self.input_norm),
            qkv: self.qkv.map(f),
            qkv_bias: f(&self.qkv_bias),
            sinks: f(&self.sinks),
            output: self.output.map(f),
            output_bias: f(&self.output_bias),
            post_norm: f(&self.post_norm),
            router: f(&self.router),
            router_bias: f(&self.router_bias),
            gate_up: self.gate_up.map(f),
            gate_up_bias: f(&self.gate_up_bias),
            down: self.down.map(f),
            down_bias: f(&self.down_bias),
        }
    }
}

impl FrozenTensors<CubeTensor> {
    /// `None` where a tensor is on no CUDA card, or in a form that no kernel here reads.
    pub(super) fn new(of: &LayerTensors) -> Option<Self> {
        fn plain<const D: usize>(tensor: &Tensor<D>) -> Option<CubeTensor> {
            primitive(tensor.clone()).ok().map(contiguous)
        }
        Some(Self {
            input_norm: plain(&of.input_norm)?,
            qkv: dense(&of.attention_input)?,
            qkv_bias: plain(&of.attention_input_bias)?,
            sinks: plain(&of.sinks)?,
            output: dense(&of.output)?,
            output_bias: plain(&of.output_bias)?,
            post_norm: plain(&of.post_norm)?,
            router: plain(&of.router)?,
            router_bias: plain(&of.router_bias)?,
            gate_up: bank(&of.gate_up)?,
            gate_up_bias: plain(&of.gate_up_bias)?,
            down: bank(&of.down)?,
            down_bias: plain(&of.down_bias)?,
        })
    }
}

impl FrozenTensors<u64> {
    /// The experts' first matrices.
    pub(crate) fn gate_up(&self, sizes: &LayerSizes) -> Experts {
        Experts::new(self.gate_up, sizes.n_experts, 2 * sizes.inner, sizes.hidden)
    }

    /// The experts' second matrices.
    pub(crate) fn down(&self, sizes: &LayerSizes) -> Experts {
        Experts::new(self.down, sizes.n_experts, sizes.hidden, sizes.inner)
    }
}

fn dense(weight: &DenseWeight) -> Option<DenseData<CubeTensor>> {
    match weight {
        DenseWeight::Plain(weight) => Some(DenseData::Plain(contiguous(primitive(weight.clone()).ok()?))),
        DenseWeight::Packed(parts) => {
            let part = |part: &FrozenWeight| match bank(part)? {
                ExpertData::Packed(data) => Some((data, part.d_out() * part.d_in())),
                ExpertData::Bf16(_) | ExpertData::Streamed(_) => None,
            };
            parts.iter().map(part).collect::<Option<_>>().map(DenseData::Packed)
        }
    }
}

fn bank(weight: &FrozenWeight) -> Option<ExpertData<CubeTensor>> {
    match weight {
        FrozenWeight::Mxfp4Tiles { blocks, scales } => Some(ExpertData::Packed(PackedData::Mxfp4 {
            blocks: contiguous(primitive(blocks.clone()).ok()?),
            scales: contiguous(primitive(scales.clone()).ok()?),
        })),
        FrozenWeight::Nf4 { blocks, scales, tables } => Some(ExpertData::Packed(PackedData::Nf4 {
            blocks: contiguous(primitive(blocks.clone()).ok()?),
            scales: contiguous(primitive(scales.clone()).ok()?),
            tables: contiguous(primitive(tables.clone()).ok()?),
        })),
        FrozenWeight::Transposed(weight) => {
            Some(ExpertData::Bf16(contiguous(primitive(weight.clone()).ok()?)))
        }
        FrozenWeight::Streamed(matrix) => Some(ExpertData::Streamed(matrix.packing)),
        // A card reads tiles.
        FrozenWeight::Dense(_) | FrozenWeight::Mxfp4 { .. } => None,
    }
}
