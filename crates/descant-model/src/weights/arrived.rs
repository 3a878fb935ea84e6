//! Tensors that have arrived from the files, each under what it is and in the form in which it is read.
//!
//! `place.rs` puts them in, `layers.rs` takes them out. What was never put in is missing, and said to be.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Int, Tensor};
use descant_kernels::{DeviceError, FrozenWeight, HostBytes, Loader, Mxfp4Layout, SiteKind};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::layouts::{Piece, Stored};
use crate::names::Part;
use crate::site::Site;

/// What is there.
pub(super) struct Arrived<'a> {
    pub(super) dir: &'a Path,
    pub(super) config: &'a Config,
    /// Floats on the device.
    pub(super) floats: BTreeMap<Part, Tensor<1>>,
    /// Blocks and scales on the device, and how it reads them.
    pub(super) mxfp4: BTreeMap<(Site, Piece), (Mxfp4Layout, Tensor<1, Int>)>,
    /// Packed matrices on the device.
    pub(super) nf4: BTreeMap<Part, FrozenWeight>,
    /// Beside the card, for good.
    pub(super) embedding_on_host: Option<HostBytes>,
    pub(super) mxfp4_on_host: BTreeMap<(Site, Piece), HostBytes>,
    /// Blocks, scales and tables.
    pub(super) nf4_on_host: BTreeMap<Part, Vec<HostBytes>>,
    /// Query, key and value of a card's layers below each other, in bf16, from the first of them on.
    attention_inputs: BTreeMap<usize, Tensor<2>>,
    /// The rows of those that are there.
    rows: BTreeMap<Site, Tensor<2>>,
}

impl<'a> Arrived<'a> {
    pub(super) fn new(dir: &'a Path, config: &'a Config) -> Self {
        Self {
            dir,
            config,
            floats: BTreeMap::new(),
            mxfp4: BTreeMap::new(),
            nf4: BTreeMap::new(),
            embedding_on_host: None,
            mxfp4_on_host: BTreeMap::new(),
            nf4_on_host: BTreeMap::new(),
            attention_inputs: BTreeMap::new(),
            rows: BTreeMap::new(),
        }
    }

    /// Takes a layer's query, key or value as a card has them, to its rows of one matrix of which each becomes a view.
    pub(super) fn join(
        &mut self,
        site: Site,
        bytes: &[u8],
        loader: &mut Loader,
    ) -> std::result::Result<(), DeviceError> {
        let (kinds, width) = (SiteKind::ATTENTION_INPUTS, self.config.hidden_size);
        let rows = kinds.map(|kind| self.config.site_dims(kind).d_out);
        let whole = if let Some(whole) = self.attention_inputs.get(&site.layer) {
            whole.clone()
        } else {
            let all: usize = rows.iter().sum();
            let room = loader.room(all * width, DType::BF16)?.reshape([all, width]);
            self.attention_inputs.insert(site.layer, room.clone());
            room
        };
        let before = kinds.iter().position(|kind| *kind == site.kind).expect("one of the three");
        let first: usize = rows[..before].iter().sum();
        loader.fill(&whole.clone().reshape([-1]), first * width, bytes)?;
        self.rows.insert(site, whole.narrow(0, first, rows[before]));
        Ok(())
    }

    /// A float tensor, which has as many axes as its shape.
    pub(super) fn float<const D: usize>(&mut self, part: Part) -> Result<Tensor<D>> {
        let tensor = self.floats.remove(&part).ok_or_else(|| self.missing(part.name()))?;
        let shape = part.shape(self.config).try_into();
        Ok(tensor.reshape::<D, [usize; D]>(shape.expect("its taker knows how many axes a part has")))
    }

    /// A dense matrix `[out, in]`: one of three below each other, or alone.
    pub(super) fn matrix(&mut self, site: Site) -> Result<Tensor<2>> {
        match self.rows.remove(&site) {
            Some(rows) => Ok(rows),
            None => self.float(Part::weight(site)),
        }
    }

    /// Query, key and value of a card's layer below each other, each of which was taken by [`matrix`](Self::matrix).
    pub(super) fn attention_input(&mut self, layer: usize) -> Result<Tensor<2>> {
        let first = Site { layer, kind: SiteKind::Query };
        self.attention_inputs.remove(&layer).ok_or_else(|| self.missing(Part::weight(first).name()))
    }

    /// MXFP4 matrices.
    pub(super) fn mxfp4(&mut self, site: Site) -> Result<FrozenWeight> {
        let (layout, blocks) = self.piece(site, Piece::Blocks, |all| &mut all.mxfp4)?;
        let (_, scales) = self.piece(site, Piece::Scales, |all| &mut all.mxfp4)?;
        Ok(layout.weight(blocks, scales))
    }

    /// Blocks and scales of MXFP4 matrices beside the card.
    pub(super) fn mxfp4_on_host(&mut self, site: Site) -> Result<Vec<HostBytes>> {
        let pieces = [Piece::Blocks, Piece::Scales];
        pieces.map(|piece| self.piece(site, piece, |all| &mut all.mxfp4_on_host)).into_iter().collect()
    }

    fn piece<T>(
        &mut self,
        site: Site,
        piece: Piece,
        of: impl Fn(&mut Self) -> &mut BTreeMap<(Site, Piece), T>,
    ) -> Result<T> {
        let found = of(self).remove(&(site, piece));
        found.ok_or_else(|| self.missing(Stored { part: Part::weight(site), piece }.name()))
    }

    /// `[matrices, out, in]` of a weight.
    pub(super) fn matrices(&self, site: Site) -> [usize; 3] {
        let dims = self.config.site_dims(site.kind);
        [dims.n_matrices, dims.d_out, dims.d_in]
    }

    pub(super) fn missing(&self, name: String) -> Error {
        Error::TensorMissing { dir: self.dir.to_owned(), name }
    }
}
