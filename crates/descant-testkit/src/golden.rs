//! Reference values that other programs computed, under `fixtures/golden`, and how far ours are from them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};

/// Shape and values of one tensor.
#[derive(Debug, Clone)]
pub struct Golden {
    /// Its axes.
    pub shape: Vec<usize>,
    /// Where it is f32.
    pub floats: Vec<f32>,
    /// Where it is i64.
    pub ints: Vec<i64>,
}

/// Where the values of this name are.
pub fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden").join(name)
}

/// The tensors of a file there.
///
/// # Panics
/// It is not there, or has other types than f32 and i64.
pub fn read(path: &str) -> BTreeMap<String, Golden> {
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

/// A JSON file there.
///
/// # Panics
/// It is not there.
pub fn json(path: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(folder(path)).expect("the fixture is there")).expect("JSON")
}

/// The largest difference of two numbers.
///
/// # Panics
/// They are not as many.
pub fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |m, (x, y)| m.max((x - y).abs()))
}

/// Norm of the difference over the norm of `b`.
///
/// # Panics
/// They are not as many.
pub fn relative_norm(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = a.iter().zip(b).map(|(x, y)| square(x - y)).sum();
    (difference / b.iter().map(|x| square(*x)).sum::<f64>()).sqrt()
}

impl Golden {
    /// Ids, a row for each index of the first axes.
    pub fn sequences(&self) -> Vec<Vec<u32>> {
        let length = self.shape.last().copied().unwrap_or(1).max(1);
        self.ints.chunks_exact(length).map(|row| row.iter().map(|&id| id as u32).collect()).collect()
    }
}
