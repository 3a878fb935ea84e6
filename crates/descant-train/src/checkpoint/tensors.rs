//! The tensors of a checkpoint: f32, to the bit, under names that say where they belong.

use burn::tensor::Tensor;
use descant_lora::LoraAdapters;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use super::{ADAPTER, Defect, OPTIMIZER};
use crate::state::TrainerState;

/// Name and shape of every trainable tensor, in their one order.
fn named(adapters: &LoraAdapters) -> Vec<(String, [usize; 3])> {
    let names = adapters
        .pairs()
        .keys()
        .flat_map(|site| ["a", "b"].map(|part| format!("layers.{}.{}.{part}", site.layer, site.kind.name())));
    names.zip(adapters.tensors().map(Tensor::dims)).collect()
}

pub(super) fn adapter(adapters: &LoraAdapters, state: &TrainerState) -> Vec<u8> {
    let tensors = named(adapters).into_iter().zip(&state.adapters);
    file(tensors.map(|((name, shape), values)| (name, shape, values)))
}

pub(super) fn optimizer(adapters: &LoraAdapters, state: &TrainerState) -> Vec<u8> {
    let tensors = named(adapters).into_iter().zip(&state.moments);
    file(tensors.flat_map(|((name, shape), moments)| {
        moments
            .iter()
            .flatten()
            .zip(["first", "second"])
            .map(move |(values, which)| (format!("{name}.{which}"), shape, values))
            .collect::<Vec<_>>()
    }))
}

fn file<'a>(tensors: impl Iterator<Item = (String, [usize; 3], &'a Vec<f32>)>) -> Vec<u8> {
    let stored: Vec<(String, [usize; 3], Vec<u8>)> = tensors
        .map(|(name, shape, values)| (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = stored.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
        (name, view.expect("the values were counted by this shape"))
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
    let adapter = Tensors::parse(ADAPTER, adapter)?;
    let optimizer = Tensors::parse(OPTIMIZER, optimizer)?;
    let (mut taken, mut moments_taken) = (0, 0);
    for (name, shape) in named(adapters) {
        let values = adapter.take(&name, &shape)?;
        state.adapters.push(values.ok_or_else(|| adapter.wrong(&name, "is missing"))?);
        taken += 1;
        let first = optimizer.take(&format!("{name}.first"), &shape)?;
        let second = optimizer.take(&format!("{name}.second"), &shape)?;
        moments_taken += usize::from(first.is_some()) + usize::from(second.is_some());
        state.moments.push(match (first, second) {
            (Some(first), Some(second)) => Some([first, second]),
            (None, None) => None,
            _ => return Err(optimizer.wrong(&name, "has one moment of two")),
        });
    }
    adapter.nothing_beyond(taken)?;
    optimizer.nothing_beyond(moments_taken)
}

struct Tensors<'a> {
    file: &'static str,
    tensors: SafeTensors<'a>,
}

impl<'a> Tensors<'a> {
    fn parse(file: &'static str, bytes: &'a [u8]) -> Result<Self, Defect> {
        let tensors = SafeTensors::deserialize(bytes);
        tensors
            .map(|tensors| Self { file, tensors })
            .map_err(|e| Defect::Tensors { file, reason: e.to_string() })
    }

    fn wrong(&self, tensor: &str, reason: impl Into<String>) -> Defect {
        Defect::Tensor { file: self.file, tensor: tensor.to_owned(), reason: reason.into() }
    }

    fn take(&self, name: &str, shape: &[usize; 3]) -> Result<Option<Vec<f32>>, Defect> {
        let Ok(view) = self.tensors.tensor(name) else { return Ok(None) };
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            let reason = format!("is {} {:?}; expected F32 {shape:?}", view.dtype(), view.shape());
            return Err(self.wrong(name, reason));
        }
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Ok(Some(values.collect()))
    }

    fn nothing_beyond(&self, taken: usize) -> Result<(), Defect> {
        if self.tensors.len() == taken {
            return Ok(());
        }
        Err(self.wrong("*", format!("the file has {} tensors, {taken} belong here", self.tensors.len())))
    }
}
