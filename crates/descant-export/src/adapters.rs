//! Adapters in the forms of other programs: one rank, scaling folded, pieces that a reader insists on.

use std::collections::BTreeMap;

use descant_lora::MAX_RANK;
use descant_lora::peft::{Factors, Sites};
use descant_model::{Config, Part, Site, SiteDims, SiteKind};

use crate::form::Select;
use crate::gguf;

/// The same updates with one rank and no factor: B is multiplied by the scaling, ranks are padded with zeros. Site by
/// site, so that hardly more than the adapter is in memory.
pub(crate) fn folded(sites: Sites, model: &Config) -> Sites {
    let rank = sites.values().map(|factors| factors.rank).max().unwrap_or(1);
    let fold = |(site, mut factors): (Site, Factors)| {
        if factors.rank == rank {
            let scaling = std::mem::replace(&mut factors.scaling, 1.0);
            factors.b.iter_mut().for_each(|b| *b *= scaling);
            return (site, factors);
        }
        let SiteDims { d_in, d_out, n_matrices } = model.site_dims(site.kind);
        let old = factors.rank;
        let (mut a, mut b) = (vec![0.0; n_matrices * rank * d_in], vec![0.0; n_matrices * d_out * rank]);
        for (from, to) in factors.a.chunks_exact(old * d_in).zip(a.chunks_exact_mut(rank * d_in)) {
            to[..from.len()].copy_from_slice(from);
        }
        for (from, to) in factors.b.chunks_exact(old).zip(b.chunks_exact_mut(rank)) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from * factors.scaling);
        }
        (site, Factors { rank, scaling: 1.0, a, b })
    };
    sites.into_iter().map(fold).collect()
}

/// Adds a pair of zeros where a layer has only one of the two expert tensors: vLLM insists on both.
pub(crate) fn with_both_experts(mut sites: Sites, model: &Config) -> Sites {
    let rank = sites.values().map(|factors| factors.rank).max().unwrap_or(1);
    let layers: Vec<usize> =
        sites.keys().filter(|site| site.kind.is_expert()).map(|site| site.layer).collect();
    for layer in layers {
        for kind in [SiteKind::GateUp, SiteKind::Down] {
            let SiteDims { d_in, d_out, n_matrices } = model.site_dims(kind);
            sites.entry(Site { layer, kind }).or_insert_with(|| Factors {
                rank,
                scaling: 1.0,
                a: vec![0.0; n_matrices * rank * d_in],
                b: vec![0.0; n_matrices * d_out * rank],
            });
        }
    }
    sites
}

/// A tensor of an adapter for llama.cpp.
pub(crate) struct LoraTensor<'a> {
    pub(crate) name: String,
    /// Outermost axis first.
    pub(crate) shape: Vec<usize>,
    factor: &'a [f32],
    rank: usize,
    select: Select,
}

impl LoraTensor<'_> {
    /// Its numbers.
    pub(crate) fn values(&self) -> Vec<f32> {
        // Gate and up alternate, and an even number of rows is behind every expert.
        self.select.rows(self.factor.to_vec(), self.rank)
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The tensors of folded `sites` for llama.cpp, site by site.
pub(crate) fn for_gguf<'a>(sites: &'a Sites, model: &'a Config) -> impl Iterator<Item = LoraTensor<'a>> + 'a {
    sites.iter().flat_map(move |(&site, factors)| {
        let SiteDims { d_in, d_out, n_matrices } = model.site_dims(site.kind);
        let rank = factors.rank;
        gguf::names(Part::weight(site)).into_iter().flat_map(move |(name, select)| {
            let shape = |rows: usize, columns: usize| {
                if site.kind.is_expert() { vec![n_matrices, rows, columns] } else { vec![rows, columns] }
            };
            let (of_a, of_b) = (shape(rank, d_in), shape(select.of(d_out), rank));
            let tensor = |ending: &str, shape, factor, select| LoraTensor {
                name: format!("{name}.{ending}"),
                shape,
                factor,
                rank,
                select,
            };
            [tensor("lora_a", of_a, &factors.a, Select::All), tensor("lora_b", of_b, &factors.b, select)]
        })
    })
}

/// Reads an adapter for llama.cpp back.
///
/// # Errors
/// It is not one, or does not fit the model.
pub fn read_gguf_lora(path: &std::path::Path, model: &Config) -> crate::Result<Sites> {
    let file = gguf::Gguf::open(path)?;
    let alpha = file.number("adapter.lora.alpha").unwrap_or(0.0) as f32;
    let mut left: BTreeMap<_, _> = file.tensors().iter().collect();
    let mut sites = Sites::new();
    for part in Part::all(model) {
        let Some(site) = part.site() else { continue };
        let SiteDims { d_in, d_out, n_matrices } = model.site_dims(site.kind);
        let mut halves: Vec<(Select, Vec<f32>, Vec<f32>)> = Vec::new();
        let mut rank = 0;
        for (name, select) in gguf::names(part) {
            let mut take = |ending: &str, rows: usize, columns: usize| {
                let name = format!("{name}.{ending}");
                let Some(tensor) = left.remove(&name) else { return Ok(None) };
                let expected: Vec<u64> = if site.kind.is_expert() {
                    vec![columns as u64, rows as u64, n_matrices as u64]
                } else {
                    vec![columns as u64, rows as u64]
                };
                if tensor.kind != 0 || tensor.ne != expected {
                    return Err(
                        file.wrong(format!("tensor `{name}` is {:?}, expected F32 {expected:?}", tensor.ne))
                    );
                }
                let bytes = file.bytes(&name, 0, tensor.length)?;
                Ok(Some(crate::base::floats(&bytes, safetensors::Dtype::F32)))
            };
            let Some(tensor) = file.tensors().get(&format!("{name}.lora_a")) else { continue };
            rank = tensor.ne.get(1).map_or(0, |n| *n as usize);
            if rank == 0 || rank > MAX_RANK {
                return Err(file.wrong(format!("tensor `{name}.lora_a` is of rank {rank}")));
            }
            let (a, b) = (take("lora_a", rank, d_in)?, take("lora_b", select.of(d_out), rank)?);
            let (Some(a), Some(b)) = (a, b) else {
                return Err(file.wrong(format!("tensor `{name}` has half a pair")));
            };
            halves.push((select, a, b));
        }
        let Some((_, a, _)) = halves.first() else { continue };
        let a = a.clone();
        if halves.iter().any(|(_, other, _)| *other != a) || halves.len() != gguf::names(part).len() {
            return Err(file.wrong(format!("{site}: gate and up do not share one A")));
        }
        let mut b = vec![0.0; n_matrices * d_out * rank];
        for (select, _, half) in &halves {
            let places = (0..n_matrices * d_out).filter(|row| select.takes(*row));
            for (place, row) in places.zip(half.chunks_exact(rank)) {
                b[place * rank..(place + 1) * rank].copy_from_slice(row);
            }
        }
        let scaling = if alpha == 0.0 { 1.0 } else { alpha / rank as f32 };
        sites.insert(site, Factors { rank, scaling, a, b });
    }
    match left.pop_first() {
        Some((name, _)) => Err(file.wrong(format!("tensor `{name}` has no place in this model"))),
        None => Ok(sites),
    }
}
