//! The tensors of a checkpoint, to the bit, under names that say where they belong.
//!
//! ```text
//! adapter.safetensors      layers.0.q_proj.a                F32  the tensor's shape
//! optimizer.safetensors    layers.0.q_proj.a.first          F32  the tensor's shape     train.optimizer = "adamw"
//!                          layers.0.q_proj.a.second
//!                          layers.0.q_proj.a.first.codes    U8   [elements]             "adamw_8bit"
//!                          layers.0.q_proj.a.first.scales   F32  [blocks of 256]
//!                          layers.0.q_proj.a.second.codes
//!                          layers.0.q_proj.a.second.scales
//! ```

use burn::tensor::Tensor;
use descant_kernels::MomentFormat;
use descant_lora::LoraAdapters;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use super::defect::Defect;
use super::form::{ADAPTER, OPTIMIZER};
use crate::state::{SavedMoments, TrainerState};

const MOMENTS: [&str; 2] = ["first", "second"];

/// Name and shape of every trainable tensor, in their one order.
fn named(adapters: &LoraAdapters) -> Vec<(String, [usize; 3])> {
    let names = adapters.pairs().keys().flat_map(|site| ["a", "b"].map(|part| format!("{site}.{part}")));
    names.zip(adapters.tensors().map(Tensor::dims)).collect()
}

/// A tensor on its way into a file.
struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn floats(name: String, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { name, dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    fn codes(name: String, values: &[u8]) -> Self {
        Self { name, dtype: Dtype::U8, shape: vec![values.len()], bytes: values.to_vec() }
    }
}

pub(super) fn adapter(adapters: &LoraAdapters, state: &TrainerState) -> Vec<u8> {
    let tensors = named(adapters).into_iter().zip(&state.adapters);
    file(&tensors.map(|((name, shape), values)| Stored::floats(name, &shape, values)).collect::<Vec<_>>())
}

pub(super) fn optimizer(adapters: &LoraAdapters, state: &TrainerState) -> Vec<u8> {
    let mut stored = Vec::new();
    for ((name, shape), moments) in named(adapters).into_iter().zip(&state.moments) {
        for (which, moment) in MOMENTS.into_iter().enumerate() {
            let name = format!("{name}.{moment}");
            match moments {
                SavedMoments::Float(pair) => stored.push(Stored::floats(name, &shape, &pair[which])),
                SavedMoments::Blocks { codes, scales } => {
                    let (codes, scales) = (&codes[which], &scales[which]);
                    stored.push(Stored::codes(format!("{name}.codes"), codes));
                    stored.push(Stored::floats(format!("{name}.scales"), &[scales.len()], scales));
                }
            }
        }
    }
    file(&stored)
}

fn file(tensors: &[Stored]) -> Vec<u8> {
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
        (&tensor.name, view.expect("the values were counted by this shape"))
    });
    serialize(views, None).expect("names and shapes are a header")
}

/// Fills in the tensors of a state.
pub(super) fn read(
    adapters: &LoraAdapters,
    state: &mut TrainerState,
    adapter: &[u8],
    optimizer: &[u8],
) -> Result<(), Defect> {
    let mut adapter = Tensors::parse(ADAPTER, adapter)?;
    let mut optimizer = Tensors::parse(OPTIMIZER, optimizer)?;
    for (name, shape) in named(adapters) {
        state.adapters.push(adapter.floats(&name, &shape)?);
        let [first, second] = MOMENTS.map(|moment| format!("{name}.{moment}"));
        state.moments.push(if optimizer.has(&format!("{first}.codes")) {
            let count = shape.iter().product::<usize>();
            let mut codes = |of: &str| optimizer.codes(&format!("{of}.codes"), count);
            let codes = [codes(&first)?, codes(&second)?];
            let mut scales =
                |of: &str| optimizer.floats(&format!("{of}.scales"), &[MomentFormat::Blocks.scales(count)]);
            SavedMoments::Blocks { codes, scales: [scales(&first)?, scales(&second)?] }
        } else {
            SavedMoments::Float([optimizer.floats(&first, &shape)?, optimizer.floats(&second, &shape)?])
        });
    }
    adapter.nothing_beyond()?;
    optimizer.nothing_beyond()
}

struct Tensors<'a> {
    file: &'static str,
    content: SafeTensors<'a>,
    taken: usize,
}

impl<'a> Tensors<'a> {
    fn parse(file: &'static str, bytes: &'a [u8]) -> Result<Self, Defect> {
        let content = SafeTensors::deserialize(bytes);
        content
            .map(|content| Self { file, content, taken: 0 })
            .map_err(|e| Defect::Tensors { file, reason: e.to_string() })
    }

    fn wrong(&self, tensor: &str, reason: impl Into<String>) -> Defect {
        Defect::Tensor { file: self.file, tensor: tensor.to_owned(), reason: reason.into() }
    }

    fn has(&self, name: &str) -> bool {
        self.content.tensor(name).is_ok()
    }

    fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Defect> {
        let bytes = self.take(name, Dtype::F32, shape)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn codes(&mut self, name: &str, count: usize) -> Result<Vec<u8>, Defect> {
        Ok(self.take(name, Dtype::U8, &[count])?.to_vec())
    }

    fn take(&mut self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&'a [u8], Defect> {
        let view = self.content.tensor(name).map_err(|_| self.wrong(name, "is missing"))?;
        if view.dtype() != dtype || view.shape() != shape {
            let reason = format!("is {} {:?}; expected {dtype} {shape:?}", view.dtype(), view.shape());
            return Err(self.wrong(name, reason));
        }
        self.taken += 1;
        Ok(view.data())
    }

    fn nothing_beyond(&self) -> Result<(), Defect> {
        let taken = self.taken;
        if self.content.len() == taken {
            return Ok(());
        }
        Err(self.wrong("*", format!("the file has {} tensors, {taken} belong here", self.content.len())))
    }
}
