//! Golden files as tensors.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{DType, Device, Tensor, TensorData};
use descant_lora::{LoraAdapters, Pair};
use descant_model::{Site, SiteKind};
use safetensors::{Dtype, SafeTensors};

/// Shape and values of one tensor.
#[derive(Debug, Clone)]
pub(crate) struct Golden {
    pub(crate) shape: Vec<usize>,
    pub(crate) floats: Vec<f32>,
    pub(crate) ints: Vec<i64>,
}

pub(crate) fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden").join(name)
}

pub(crate) fn read(path: &str) -> BTreeMap<String, Golden> {
    let bytes = std::fs::read(folder(path)).expect("the fixture is there");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let one = |name: &str| {
        let view = file.tensor(name).expect("the name comes from the file");
        let (mut floats, mut ints) = (Vec::new(), Vec::new());
        let data = view.data();
        match view.dtype() {
            Dtype::F32 => {
                floats = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            }
            Dtype::I64 => {
                let int = |b: &[u8]| i64::from_le_bytes(b.try_into().expect("chunks of eight"));
                ints = data.chunks_exact(8).map(int).collect();
            }
            other => panic!("{name} is {other:?}"),
        }
        Golden { shape: view.shape().to_vec(), floats, ints }
    };
    file.names().into_iter().map(|name| (name.to_owned(), one(name))).collect()
}

pub(crate) fn json(path: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(folder(path)).expect("the fixture is there")).expect("JSON")
}

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

pub(crate) fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |m, (x, y)| m.max((x - y).abs()))
}

/// Norm of the difference over the norm of `b`.
pub(crate) fn relative_norm(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = a.iter().zip(b).map(|(x, y)| square(x - y)).sum();
    (difference / b.iter().map(|x| square(*x)).sum::<f64>()).sqrt()
}
