//! The tensors of a published gpt-oss checkpoint: their names, shapes and types, and nothing else anywhere.
//!
//! Every tensor of the files is accounted for: one that is missing, extra, misshapen or mistyped is an error.
//! Packed experts stay packed; everything else becomes the device's compute type.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use descant_kernels::FrozenWeight;
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::shards::visit_tensors;

/// Elements of an MXFP4 block.
const BLOCK: usize = descant_quant::mxfp4::BLOCK;
/// The scale byte that stands for NaN.
const NAN_SCALE: u8 = 255;

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
}

/// The whole model.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    /// `[vocabulary, hidden]`
    pub(crate) embedding: Tensor<2>,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) norm: Tensor<1>,
    /// `[vocabulary, hidden]`
    pub(crate) head: Tensor<2>,
}

impl Weights {
    /// Reads the shards of `dir`.
    pub(crate) fn load(dir: &Path, config: &Config, device: &Device) -> Result<Self> {
        let expected = expected(config);
        let mut read = Read { dir, tensors: BTreeMap::new() };
        visit_tensors(dir, |path, name, view| {
            let Some(kind) = expected.get(name) else {
                return Err(Error::TensorExtra { path: path.display().to_string(), name: name.to_owned() });
            };
            read.tensors.insert(name.to_owned(), load_tensor(path, name, &view, kind, device)?);
            Ok(())
        })?;
        read.assemble(config)
    }
}

/// What the configuration says of a tensor.
enum Kind {
    Float(Vec<usize>),
    /// Packed bytes; `scales` are checked for NaN.
    Bytes {
        shape: Vec<usize>,
        scales: bool,
    },
}

enum Loaded {
    Float(Vec<usize>, Tensor<1>),
    Bytes(Vec<usize>, Tensor<1, Int>),
}

/// Every tensor that belongs to this configuration.
fn expected(config: &Config) -> BTreeMap<String, Kind> {
    let (hidden, inner, experts) = (config.hidden_size, config.intermediate_size, config.num_local_experts);
    let mut all = BTreeMap::new();
    let mut float = |name: String, shape: &[usize]| {
        all.insert(name, Kind::Float(shape.to_vec()));
    };
    float("model.embed_tokens.weight".into(), &[config.vocab_size, hidden]);
    float("model.norm.weight".into(), &[hidden]);
    float("lm_head.weight".into(), &[config.vocab_size, hidden]);
    for n in 0..config.num_hidden_layers {
        let p = format!("model.layers.{n}");
        float(format!("{p}.input_layernorm.weight"), &[hidden]);
        float(format!("{p}.post_attention_layernorm.weight"), &[hidden]);
        let (query, key_value) = (config.query_width(), config.key_value_width());
        for (name, d_in, d_out) in
            [("q", hidden, query), ("k", hidden, key_value), ("v", hidden, key_value), ("o", query, hidden)]
        {
            float(format!("{p}.self_attn.{name}_proj.weight"), &[d_out, d_in]);
            float(format!("{p}.self_attn.{name}_proj.bias"), &[d_out]);
        }
        float(format!("{p}.self_attn.sinks"), &[config.num_attention_heads]);
        float(format!("{p}.mlp.router.weight"), &[experts, hidden]);
        float(format!("{p}.mlp.router.bias"), &[experts]);
    }
    for n in 0..config.num_hidden_layers {
        for (name, d_in, d_out) in [("gate_up", hidden, 2 * inner), ("down", inner, hidden)] {
            let p = format!("model.layers.{n}.mlp.experts.{name}_proj");
            all.insert(format!("{p}_bias"), Kind::Float(vec![experts, d_out]));
            if config.mxfp4 {
                let scales = vec![experts, d_out, d_in / BLOCK];
                let blocks = vec![experts, d_out, d_in / BLOCK, BLOCK / 2];
                all.insert(format!("{p}_blocks"), Kind::Bytes { shape: blocks, scales: false });
                all.insert(format!("{p}_scales"), Kind::Bytes { shape: scales, scales: true });
            } else {
                all.insert(p, Kind::Float(vec![experts, d_in, d_out]));
            }
        }
    }
    all
}

fn load_tensor(
    path: &Path,
    name: &str,
    view: &TensorView<'_>,
    kind: &Kind,
    device: &Device,
) -> Result<Loaded> {
    let path = || path.display().to_string();
    let (Kind::Float(shape) | Kind::Bytes { shape, .. }) = kind;
    if view.shape() != shape.as_slice() {
        return Err(Error::TensorShape {
            path: path(),
            name: name.to_owned(),
            expected: shape.clone(),
            actual: view.shape().to_vec(),
        });
    }
    let mistyped = |expected| Error::TensorType {
        path: path(),
        name: name.to_owned(),
        expected,
        actual: format!("{:?}", view.dtype()),
    };
    let not_finite = |element| Error::TensorNotFinite { path: path(), name: name.to_owned(), element };
    match kind {
        Kind::Float(_) => {
            let values = floats(view).ok_or_else(|| mistyped("BF16, F16 or F32"))?;
            if let Some(element) = values.iter().position(|x| !x.is_finite()) {
                return Err(not_finite(element));
            }
            let n = values.len();
            Ok(Loaded::Float(
                shape.clone(),
                Tensor::from_data(TensorData::new(values, [n]), (device, DType::F32)),
            ))
        }
        Kind::Bytes { scales, .. } => {
            if view.dtype() != Dtype::U8 {
                return Err(mistyped("U8"));
            }
            if let (true, Some(element)) = (scales, view.data().iter().position(|&s| s == NAN_SCALE)) {
                return Err(not_finite(element));
            }
            let data = TensorData::new(view.data().to_vec(), [view.data().len()]);
            Ok(Loaded::Bytes(shape.clone(), Tensor::from_data(data, (device, DType::U8))))
        }
    }
}

/// The values as f32, `None` for a type that is no float we read. Bytes are little-endian and maybe unaligned.
fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let pairs = || view.data().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    Some(match view.dtype() {
        Dtype::F32 => {
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        Dtype::BF16 => pairs().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
        Dtype::F16 => pairs().map(|bits| f16::from_bits(bits).to_f32()).collect(),
        _ => return None,
    })
}

/// Tensors that were read, and how the layers take them.
struct Read<'a> {
    dir: &'a Path,
    tensors: BTreeMap<String, Loaded>,
}

impl Read<'_> {
    fn assemble(mut self, config: &Config) -> Result<Weights> {
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for n in 0..config.num_hidden_layers {
            let p = format!("model.layers.{n}");
            layers.push(LayerWeights {
                input_norm: self.float(&format!("{p}.input_layernorm.weight"))?,
                query: self.dense(&format!("{p}.self_attn.q_proj"))?,
                key: self.dense(&format!("{p}.self_attn.k_proj"))?,
                value: self.dense(&format!("{p}.self_attn.v_proj"))?,
                output: self.dense(&format!("{p}.self_attn.o_proj"))?,
                sinks: self.float(&format!("{p}.self_attn.sinks"))?,
                post_norm: self.float(&format!("{p}.post_attention_layernorm.weight"))?,
                router: self.dense(&format!("{p}.mlp.router"))?,
                gate_up: self.experts(&format!("{p}.mlp.experts.gate_up_proj"), config.mxfp4)?,
                down: self.experts(&format!("{p}.mlp.experts.down_proj"), config.mxfp4)?,
            });
        }
        Ok(Weights {
            embedding: self.float("model.embed_tokens.weight")?,
            layers,
            norm: self.float("model.norm.weight")?,
            head: self.float("lm_head.weight")?,
        })
    }

    fn take(&mut self, name: &str) -> Result<Loaded> {
        self.tensors
            .remove(name)
            .ok_or_else(|| Error::TensorMissing { dir: self.dir.to_owned(), name: name.to_owned() })
    }

    /// A float tensor of as many axes as it was read with.
    fn float<const D: usize>(&mut self, name: &str) -> Result<Tensor<D>> {
        match self.take(name)? {
            Loaded::Float(shape, tensor) => Ok(tensor.reshape(axes::<D>(&shape))),
            Loaded::Bytes(..) => unreachable!("`expected` says which tensors are bytes"),
        }
    }

    fn bytes<const D: usize>(&mut self, name: &str) -> Result<Tensor<D, Int>> {
        match self.take(name)? {
            Loaded::Bytes(shape, tensor) => Ok(tensor.reshape(axes::<D>(&shape))),
            Loaded::Float(..) => unreachable!("`expected` says which tensors are bytes"),
        }
    }

    fn dense(&mut self, name: &str) -> Result<Linear> {
        let weight: Tensor<2> = self.float(&format!("{name}.weight"))?;
        let bias: Tensor<1> = self.float(&format!("{name}.bias"))?;
        Ok(Linear { weight: FrozenWeight::Dense(weight.unsqueeze()), bias: bias.unsqueeze() })
    }

    fn experts(&mut self, name: &str, mxfp4: bool) -> Result<Linear> {
        let weight = if mxfp4 {
            FrozenWeight::Mxfp4 {
                blocks: self.bytes(&format!("{name}_blocks"))?,
                scales: self.bytes(&format!("{name}_scales"))?,
            }
        } else {
            FrozenWeight::Transposed(self.float(name)?)
        };
        Ok(Linear { weight, bias: self.float(&format!("{name}_bias"))? })
    }
}

fn axes<const D: usize>(shape: &[usize]) -> [usize; D] {
    shape.try_into().expect("`expected` gives each tensor the axes its taker asks for")
}
