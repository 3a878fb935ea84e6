//! Reads tensors of the golden files.

use std::path::Path;

use safetensors::SafeTensors;

/// Bytes of a file below `fixtures/golden`.
pub(crate) fn read(name: &str) -> Vec<u8> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/golden")).join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A tensor's bytes.
pub(crate) fn bytes(file: &SafeTensors<'_>, name: &str) -> Vec<u8> {
    file.tensor(name).unwrap().data().to_vec()
}

/// An F32 tensor.
pub(crate) fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    bytes(file, name).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// A BF16 tensor, widened.
pub(crate) fn brain_floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    bytes(file, name).as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()
}
