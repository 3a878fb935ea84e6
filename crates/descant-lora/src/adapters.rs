//! The trainable pairs, as an overlay on the frozen model.
//!
//! This is the only thing that learns: the optimizer and checkpoints hold it and nothing else. New pairs start as
//! PEFT starts them: A uniform in ±1/sqrt(d_in) (Kaiming with a = sqrt(5)), B zero, so that the model is unchanged.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use descant_kernels::{Groups, LayerPairs, LowRankPair, from_host, low_rank};
use descant_model::{Config, Overlay, Site};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::config::LoraConfig;
use crate::error::Result;

/// The pair at a site.
#[derive(Debug, Clone)]
pub struct Pair {
    /// `[matrices, rank, d_in]`
    pub a: Tensor<3>,
    /// `[matrices, d_out, rank]`
    pub b: Tensor<3>,
    /// Factor on the product.
    pub scaling: f32,
}

/// All pairs of a model.
#[derive(Debug)]
pub struct LoraAdapters {
    pairs: BTreeMap<Site, Pair>,
}

impl LoraAdapters {
    /// New pairs at the sites that `lora` names. A pair's values depend on the seed and its site alone.
    ///
    /// `device` decides whether they can be trained: give an autodiff device for that.
    ///
    /// # Errors
    /// The settings are out of range or name no site.
    pub fn init(model: &Config, lora: &LoraConfig, seed: u64, device: &Device) -> Result<Self> {
        let pairs = lora.sites(model)?.into_iter().map(|site| {
            let dims = model.site_dims(site.kind);
            let bound = (dims.d_in as f64).sqrt().recip();
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream((site.layer as u64) << 8 | site.kind as u64);
            let mut uniform = || {
                let unit = (random.next_u32() >> 8) as f64 / (1u32 << 24) as f64;
                ((2.0 * unit - 1.0) * bound) as f32
            };
            let a: Vec<f32> = (0..dims.n_matrices * lora.r * dims.d_in).map(|_| uniform()).collect();
            let b = vec![0.0; dims.n_matrices * dims.d_out * lora.r];
            let pair = Pair {
                a: tensor(a, [dims.n_matrices, lora.r, dims.d_in], device),
                b: tensor(b, [dims.n_matrices, dims.d_out, lora.r], device),
                scaling: lora.scaling(),
            };
            (site, pair)
        });
        Ok(Self::from_pairs(pairs.collect()))
    }

    /// Pairs that come from elsewhere.
    pub fn from_pairs(pairs: BTreeMap<Site, Pair>) -> Self {
        Self { pairs }
    }

    /// The pairs, in the order of their sites.
    pub fn pairs(&self) -> &BTreeMap<Site, Pair> {
        &self.pairs
    }

    /// The trainable tensors in their one order: A then B, site by site.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor<3>> {
        self.pairs.values().flat_map(|pair| [&pair.a, &pair.b])
    }

    /// Replaces each tensor, in the order of [`tensors`](Self::tensors).
    pub fn update(&mut self, mut f: impl FnMut(usize, Tensor<3>) -> Tensor<3>) {
        let mut index = 0;
        for pair in self.pairs.values_mut() {
            for tensor in [&mut pair.a, &mut pair.b] {
                *tensor = f(index, tensor.clone());
                index += 1;
            }
        }
    }

    /// The same values where no graph is kept: for looking, between two steps.
    #[must_use]
    pub fn frozen(&self) -> Self {
        let pairs = self.pairs.iter().map(|(site, pair)| {
            let (a, b) = (pair.a.clone().inner(), pair.b.clone().inner());
            (*site, Pair { a, b, scaling: pair.scaling })
        });
        Self { pairs: pairs.collect() }
    }

    /// Trainable parameters.
    pub fn n_parameters(&self) -> usize {
        self.tensors().map(|t| t.dims().iter().product::<usize>()).sum()
    }
}

impl Overlay for LoraAdapters {
    fn delta(&self, site: Site, x: &Tensor<2>, groups: &Groups) -> Option<Tensor<2>> {
        let pair = self.pairs.get(&site)?;
        Some(low_rank(x.clone(), pair.a.clone(), pair.b.clone(), pair.scaling, groups))
    }

    fn pairs(&self, layer: usize) -> Option<LayerPairs> {
        Some(LayerPairs::from_fn(|kind| {
            let pair = self.pairs.get(&Site { layer, kind })?;
            Some(LowRankPair { a: pair.a.clone(), b: pair.b.clone(), scaling: pair.scaling })
        }))
    }
}

/// A trainable tensor where the device has a graph, a plain one otherwise.
pub(crate) fn tensor(values: Vec<f32>, shape: [usize; 3], device: &Device) -> Tensor<3> {
    let tensor = from_host(values, shape, device);
    if device.is_autodiff() { Tensor::from_inner(tensor).require_grad() } else { tensor }
}
