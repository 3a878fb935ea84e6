//! Fixtures, safetensors by name, and the product of factors as a plain loop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use descant_lora::peft::Factors;
use descant_model::{Config, SiteDims};
use safetensors::tensor::{Dtype, TensorView, serialize};

/// A tensor's type, shape and bytes.
pub(crate) type Stored = (Dtype, Vec<usize>, Vec<u8>);

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

pub(crate) fn model(name: &str) -> Config {
    Config::from_dir(&fixture(name)).unwrap()
}

/// The configuration of a published model.
pub(crate) fn published(name: &str) -> Config {
    let bytes = descant_files::read_bounded(&fixture("configs").join(name), 1 << 20).unwrap();
    Config::from_slice(&bytes).unwrap()
}

pub(crate) fn read_stored(path: &Path) -> BTreeMap<String, Stored> {
    let file = descant_files::MappedFile::open(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(file.bytes()).unwrap();
    tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect()
}

pub(crate) fn write_stored(path: &Path, tensors: &BTreeMap<String, Stored>) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    let bytes = serialize(views, None).unwrap();
    descant_files::write_atomic(path, &bytes).unwrap();
}

pub(crate) fn floats((dtype, _, bytes): &Stored) -> Vec<f32> {
    assert_eq!(*dtype, Dtype::F32);
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

pub(crate) fn stored(shape: &[usize], values: &[f32]) -> Stored {
    (Dtype::F32, shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// `scaling * B A` for each matrix, `[n, out, in]`, as a plain loop in f64.
pub(crate) fn product(factors: &Factors, dims: SiteDims) -> Vec<f64> {
    let SiteDims { d_in, d_out, n_matrices } = dims;
    let r = factors.rank;
    let mut all = Vec::new();
    for e in 0..n_matrices {
        for o in 0..d_out {
            for i in 0..d_in {
                let mut sum = 0.0;
                for j in 0..r {
                    let b = factors.b[(e * d_out + o) * r + j];
                    let a = factors.a[(e * r + j) * d_in + i];
                    sum += f64::from(b) * f64::from(a);
                }
                all.push(f64::from(factors.scaling) * sum);
            }
        }
    }
    all
}

/// `[n, rows, columns]` to `[n, columns, rows]`.
pub(crate) fn transposed(values: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let matrix = rows * columns;
    (0..values.len())
        .map(|at| {
            let (n, column, row) = (at / matrix, at % matrix / rows, at % rows);
            values[n * matrix + row * columns + column]
        })
        .collect()
}

pub(crate) fn max_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

pub(crate) fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Numbers that differ everywhere and follow from `seed` alone.
pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        })
        .collect()
}
