//! Adapters between files and devices: PEFT's lists of numbers in, tensors out, and back.

use std::path::Path;

use anyhow::{Context as _, Result};
use burn::tensor::{DType, Device, Tensor, TensorData};
use descant_lora::peft::{self, Factors, Manifest, Sites};
use descant_lora::{LoraAdapters, Pair};
use descant_model::Config;

/// Loads a PEFT directory onto a device, not to be trained.
pub(crate) fn load(dir: &Path, model: &Config, device: &Device) -> Result<LoraAdapters> {
    let adapter = peft::load(dir, model).with_context(|| format!("adapter {}", dir.display()))?;
    for target in &adapter.passed_over {
        tracing::warn!("{}: target `{target}` matches nothing in gpt-oss and is passed over", dir.display());
    }
    let pairs = adapter.sites.into_iter().map(|(site, factors)| {
        let dims = site.kind.dims(model);
        let tensor = |values, shape| Tensor::from_data(TensorData::new(values, shape), (device, DType::F32));
        let pair = Pair {
            a: tensor(factors.a, [dims.n_matrices, factors.rank, dims.d_in]),
            b: tensor(factors.b, [dims.n_matrices, dims.d_out, factors.rank]),
            scaling: factors.scaling,
        };
        (site, pair)
    });
    Ok(LoraAdapters::from_pairs(pairs.collect()))
}

/// Writes adapters as a new PEFT directory.
pub(crate) fn save(adapters: &LoraAdapters, dir: &Path, model: &Config, base: &str) -> Result<Manifest> {
    let values = |tensor: &Tensor<3>| -> Vec<f32> {
        tensor.clone().inner().into_data().try_to_vec().expect("adapters are f32")
    };
    let factors = |pair: &Pair| Factors {
        rank: pair.a.dims()[1],
        scaling: pair.scaling,
        a: values(&pair.a),
        b: values(&pair.b),
    };
    let sites: Sites = adapters.pairs().iter().map(|(site, pair)| (*site, factors(pair))).collect();
    peft::save(dir, model, base, &sites).with_context(|| format!("write {}", dir.display()))
}

/// Every tensor that will be trained.
pub(crate) fn manifest(adapters: &LoraAdapters, model: &Config) -> Manifest {
    Manifest::new(model, adapters.pairs().iter().map(|(site, pair)| (*site, pair.a.dims()[1])))
}
