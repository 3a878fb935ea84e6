//! Golden files as adapters.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};
use descant_lora::{LoraAdapters, Pair};
use descant_model::{Site, SiteKind};
pub(crate) use descant_testkit::golden::{Golden, folder, json, max_difference, read, relative_norm};

/// The dense pairs of a golden file, keys `PREFIXmodel.layers.N.self_attn.X_proj.lora_ASUFFIX`.
pub(crate) fn attention_pairs(
    tensors: &BTreeMap<String, Golden>,
    prefix: &str,
    suffix: &str,
    layers: usize,
    scaling: f32,
    device: &Device,
) -> BTreeMap<Site, Pair> {
    let mut pairs = BTreeMap::new();
    for layer in 0..layers {
        for kind in [SiteKind::Query, SiteKind::Key, SiteKind::Value, SiteKind::Output] {
            let factor = |which: &str| {
                let key =
                    format!("{prefix}model.layers.{layer}.self_attn.{}.lora_{which}{suffix}", kind.name());
                let golden = &tensors[&key];
                leaf(golden.floats.clone(), [1, golden.shape[0], golden.shape[1]], device)
            };
            pairs.insert(Site { layer, kind }, Pair { a: factor("A"), b: factor("B"), scaling });
        }
    }
    pairs
}

/// The expert pairs of a PEFT file, put into our order by the definition: row e * r + j of A, column j * E + e of B.
pub(crate) fn expert_pairs(
    tensors: &BTreeMap<String, Golden>,
    layers: usize,
    n_experts: usize,
    scaling: f32,
    device: &Device,
) -> BTreeMap<Site, Pair> {
    let mut pairs = BTreeMap::new();
    for layer in 0..layers {
        for (kind, wrapper) in [(SiteKind::GateUp, "base_layer."), (SiteKind::Down, "")] {
            let key = |which: &str| {
                format!("base_model.model.model.layers.{layer}.mlp.experts.{wrapper}lora_{which}.weight")
            };
            let (a, b) = (&tensors[&key("A")], &tensors[&key("B")]);
            let (rank, d_in, d_out) = (a.shape[0] / n_experts, a.shape[1], b.shape[0]);
            let mut ordered = vec![0.0; b.floats.len()];
            for e in 0..n_experts {
                for o in 0..d_out {
                    for j in 0..rank {
                        ordered[(e * d_out + o) * rank + j] =
                            b.floats[o * rank * n_experts + j * n_experts + e];
                    }
                }
            }
            let a = leaf(a.floats.clone(), [n_experts, rank, d_in], device);
            let b = leaf(ordered, [n_experts, d_out, rank], device);
            pairs.insert(Site { layer, kind }, Pair { a, b, scaling });
        }
    }
    pairs
}

pub(crate) fn adapters(pairs: BTreeMap<Site, Pair>) -> LoraAdapters {
    LoraAdapters::from_pairs(pairs)
}

fn leaf(values: Vec<f32>, shape: [usize; 3], device: &Device) -> Tensor<3> {
    let tensor = Tensor::from_data(TensorData::new(values, shape), (device, DType::F32));
    if device.is_autodiff() { tensor.require_grad() } else { tensor }
}

pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32")
}
