//! The golden set, an export of it, and tensors as numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use descant_export::{Experts, Form, Job, Report, Result, export};
use safetensors::{Dtype, SafeTensors};

/// The adapters of the set.
pub(crate) const ADAPTERS: [&str; 3] = ["attn", "all", "mixed"];

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/golden/export")).join(name)
}

/// Exports an adapter of the set.
pub(crate) fn exported(adapter: &str, form: Form, experts: Experts, out: &Path) -> Result<Report> {
    let adapter = golden(&format!("adapter-{adapter}"));
    let model = golden("base");
    let job = Job { experts, ..Job::new(&adapter, &model, form, out) };
    export(&job, &mut |_| std::ops::ControlFlow::Continue(()))
}

/// A tensor, with its bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Tensor {
    /// Its numbers as f32.
    pub(crate) fn floats(&self) -> Vec<f32> {
        match self.dtype {
            Dtype::BF16 => {
                self.bf16().into_iter().map(|bits| f32::from_bits(u32::from(bits) << 16)).collect()
            }
            Dtype::F32 => self.bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn bf16(&self) -> Vec<u16> {
        self.bytes.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b)).collect()
    }
}

pub(crate) type Tensors = BTreeMap<String, Tensor>;

pub(crate) fn read(path: &Path) -> Tensors {
    let bytes = descant_files::read_bounded(path, 1 << 28).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let tensor =
            Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() };
        (name, tensor)
    };
    file.tensors().into_iter().map(tensor).collect()
}

pub(crate) fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&descant_files::read_bounded(path, 1 << 28).unwrap()).unwrap()
}
