//! Adapters between PEFT directories and devices.
//!
//! [`peft`](crate::peft) knows files and lists of numbers; here they become tensors, and tensors become lists.

use std::path::Path;

use burn::tensor::Device;
use descant_kernels::read_floats;
use descant_model::Config;

use crate::adapters::{LoraAdapters, Pair, tensor};
use crate::error::Result;
use crate::peft::{self, Factors, Manifest, Sites};

impl LoraAdapters {
    /// Loads an adapter's folder, PEFT's or mlx-lm's. On an autodiff device the adapters can be trained further.
    ///
    /// # Errors
    /// Anything about the directory that is not the adapter of this model, by file and tensor.
    pub fn load_peft(dir: &Path, model: &Config, device: &Device) -> Result<Self> {
        let adapter = crate::folder::read(dir, model)?;
        if !adapter.passed_over.is_empty() {
            tracing::warn!(
                "{}: targets that match nothing in gpt-oss were passed over, as PEFT does: {}",
                dir.display(),
                adapter.passed_over.join(", ")
            );
        }
        Ok(Self::from_sites(adapter.sites, model, device))
    }

    /// Pairs from lists of numbers.
    pub fn from_sites(sites: Sites, model: &Config, device: &Device) -> Self {
        let pairs = sites.into_iter().map(|(site, factors)| {
            let dims = model.site_dims(site.kind);
            let pair = Pair {
                a: tensor(factors.a, [dims.n_matrices, factors.rank, dims.d_in], device),
                b: tensor(factors.b, [dims.n_matrices, dims.d_out, factors.rank], device),
                scaling: factors.scaling,
            };
            (site, pair)
        });
        Self::from_pairs(pairs.collect())
    }

    /// Writes the adapters as a new PEFT directory; `base` is the model that PEFT will look for.
    ///
    /// # Errors
    /// The directory exists or cannot be written; the device failed, and there is nothing to write.
    pub fn save_peft<'a>(
        &self,
        dir: &Path,
        model: &Config,
        base: impl Into<peft::Base<'a>>,
    ) -> Result<Manifest> {
        let factors = |pair: &Pair| -> Result<Factors> {
            let (a, b) = (read_floats(pair.a.clone())?, read_floats(pair.b.clone())?);
            Ok(Factors { rank: pair.a.dims()[1], scaling: pair.scaling, a, b })
        };
        let sites = self.pairs().iter().map(|(site, pair)| Ok((*site, factors(pair)?)));
        let sites = sites.collect::<Result<Sites>>()?;
        Ok(peft::save(dir, model, base, &sites)?)
    }

    /// Every tensor that is trained, with its shape in the files.
    pub fn manifest(&self, model: &Config) -> Manifest {
        Manifest::new(model, self.pairs().iter().map(|(site, pair)| (*site, pair.a.dims()[1])))
    }
}
