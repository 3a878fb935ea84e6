//! The weights of a model as its forward pass reads them.

use burn::tensor::{Int, Tensor};
use descant_kernels::{DecoderLayer, FrozenWeight, HostTable, gather_rows};

use super::formats::Formats;

/// A frozen product: weight and bias.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) weight: FrozenWeight,
    /// `[matrices, out]`
    pub(crate) bias: Tensor<2>,
}

/// One decoder layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerWeights {
    pub(crate) input_norm: Tensor<1>,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) output: Linear,
    pub(crate) sinks: Tensor<1>,
    pub(crate) post_norm: Tensor<1>,
    pub(crate) router: Linear,
    pub(crate) gate_up: Linear,
    pub(crate) down: Linear,
    /// All of the above as one operator, where the device has one.
    pub(crate) whole: Option<DecoderLayer>,
}

/// The whole model.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    pub(crate) embedding: Embedding,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) norm: Tensor<1>,
    /// `[vocabulary, hidden]`
    pub(crate) head: Tensor<2>,
    /// How they came.
    pub(crate) formats: Formats,
}

/// The embedding, `[vocabulary, hidden]`.
#[derive(Debug, Clone)]
pub(crate) enum Embedding {
    /// Where the model lies.
    Here(Box<Tensor<2>>),
    /// Beside its card.
    Host(HostTable),
}

impl Embedding {
    /// The rows of these ids; where they are read by index, `indices` makes the tensor.
    pub(crate) fn rows(&self, ids: &[u32], indices: impl FnOnce(Vec<i32>) -> Tensor<1, Int>) -> Tensor<2> {
        match self {
            Self::Here(table) => {
                let rows: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
                gather_rows(table, &rows)
            }
            Self::Host(table) => table.select(&indices(ids.iter().map(|&id| id as i32).collect())),
        }
    }
}
