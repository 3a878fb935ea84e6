//! Safetensors files for tests: made from tensors, read back, and taken apart where a header is to be changed.

use std::collections::BTreeMap;

pub use safetensors::Dtype;
use safetensors::tensor::{SafeTensors, TensorView, serialize};
use serde_json::{Map, Value};

/// A tensor's type, shape and bytes.
pub type Stored = (Dtype, Vec<usize>, Vec<u8>);
/// The tensors of a file by name.
pub type Tensors = BTreeMap<String, Stored>;

/// The file of these tensors.
///
/// # Panics
/// A tensor has other bytes than its type and shape say.
pub fn file_of(tensors: &Tensors) -> Vec<u8> {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (name, view.unwrap_or_else(|error| panic!("tensor `{name}`: {error}")))
    });
    serialize(views, None).expect("names and lengths are consistent")
}

/// The tensors of a file.
///
/// # Panics
/// It is none.
pub fn tensors_of(file: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(file).expect("a safetensors file");
    let stored = |view: TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    file.tensors().into_iter().map(|(name, view)| (name, stored(view))).collect()
}

/// The header of a good file with its eight bytes of length, and the data behind it.
pub fn head_and_data(file: &[u8]) -> (&[u8], &[u8]) {
    let (length, _) = file.split_first_chunk().expect("a good file");
    file.split_at(u64::from_le_bytes(*length) as usize + 8)
}

/// The header of a good file, and the data behind it.
pub fn header_and_data(file: &[u8]) -> (Map<String, Value>, &[u8]) {
    let (head, data) = head_and_data(file);
    (serde_json::from_slice(&head[8..]).expect("a good header"), data)
}

/// A file of this header and data, whether they belong together or not.
pub fn joined(header: Map<String, Value>, data: &[u8]) -> Vec<u8> {
    let header = Value::Object(header).to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes()[..], &header, data].concat()
}

/// Numbers as an F32 tensor has them.
pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The numbers of an F32 tensor.
pub fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_reads_back_and_can_be_taken_apart() {
        let stored = |values: &[f32]| (Dtype::F32, vec![values.len()], f32_bytes(values));
        let tensors = Tensors::from([("b".into(), stored(&[1.0, -2.5])), ("a".into(), stored(&[]))]);
        let file = file_of(&tensors);
        assert_eq!(tensors_of(&file), tensors);
        assert_eq!(f32s(&tensors["b"].2), [1.0, -2.5]);
        let (header, data) = header_and_data(&file);
        assert_eq!((header["b"]["shape"][0].as_u64(), data.len()), (Some(2), 8));
        assert_eq!(tensors_of(&joined(header, data)), tensors);
    }
}
