//! What is trained, tensor by tensor, as it will be named in the adapter's file.

use std::collections::BTreeSet;

use descant_model::{Config, Site, SiteKind};
use serde::Serialize;

use super::names::{self, Part};

/// One tensor of an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManifestRow {
    /// Its name in the file.
    pub tensor: String,
    /// Its shape in the file.
    pub shape: [usize; 2],
    /// Its numbers.
    pub count: usize,
}

/// Every tensor of an adapter, and their sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// Tensors, site by site, A before B.
    pub tensors: Vec<ManifestRow>,
    /// Numbers in all of them.
    pub total: usize,
}

impl Manifest {
    /// The manifest of an adapter for `model` with these sites and ranks.
    pub fn new(model: &Config, sites: impl IntoIterator<Item = (Site, usize)>) -> Self {
        let sites: Vec<_> = sites.into_iter().collect();
        let nested = nested_layers(sites.iter().map(|(site, _)| *site));
        let tensors: Vec<_> = sites
            .into_iter()
            .flat_map(|(site, rank)| {
                let inside = nested.contains(&site.layer);
                let dims = model.site_dims(site.kind);
                [Part::A, Part::B].map(|part| {
                    let shape = names::shape(dims, rank, dims.n_matrices, part);
                    let tensor = names::tensor(site, part, inside);
                    ManifestRow { tensor, shape, count: shape[0] * shape[1] }
                })
            })
            .collect();
        let total = tensors.iter().map(|row| row.count).sum();
        Self { tensors, total }
    }
}

/// Layers where both expert parameters are targeted, so that PEFT nests them.
pub(super) fn nested_layers(sites: impl Iterator<Item = Site>) -> BTreeSet<usize> {
    let (mut gate_up, mut down) = (BTreeSet::new(), BTreeSet::new());
    for Site { layer, kind } in sites {
        match kind {
            SiteKind::GateUp => gate_up.insert(layer),
            SiteKind::Down => down.insert(layer),
            _ => false,
        };
    }
    gate_up.intersection(&down).copied().collect()
}
