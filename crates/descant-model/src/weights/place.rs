//! One tensor of a checkpoint to its place: checked against the configuration, in the type in which it is read, on the
//! device or in the memory beside it.
//!
//! Which layer it is a part of is the business of `layers.rs`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::tensor::{DType, Device};
use descant_kernels::{
    DeviceError, FrozenWeight, Loader, Mxfp4Layout, Mxfp4Piece, NotTiled, SiteKind, Source, first_in,
};
use descant_quant::nf4;
use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::arrived::Arrived;
use super::bitsandbytes::Kept;
use super::expected::{dtype, expected};
use super::floats::floats;
use super::formats::Formats;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::layouts::{Piece, Stored};
use crate::names::Part;
use crate::placement::Placement;
use crate::site::Site;

/// The scale byte that means NaN.
const NAN_SCALE: u8 = 255;

/// Brings the tensors of a checkpoint to their places, one after the other.
pub(super) struct Placing<'a> {
    dir: &'a Path,
    config: &'a Config,
    device: &'a Device,
    placement: Placement,
    loader: Loader,
    expected: BTreeMap<String, Stored>,
    /// Names that came.
    seen: BTreeSet<String>,
    arrived: Arrived<'a>,
    formats: Formats,
}

/// Where a tensor comes from, for errors.
#[derive(Clone, Copy)]
struct From<'a> {
    path: &'a Path,
    name: &'a str,
}

impl<'a> Placing<'a> {
    pub(super) fn new(
        dir: &'a Path,
        config: &'a Config,
        device: &'a Device,
        placement: Placement,
    ) -> Result<Self> {
        let loader = Loader::new(device).map_err(|source| From { path: dir, name: "any" }.upload(source))?;
        let arrived = Arrived::new(dir, config);
        let (expected, seen, formats) = (expected(config), BTreeSet::new(), Formats::default());
        Ok(Self { dir, config, device, placement, loader, expected, seen, arrived, formats })
    }

    /// A tensor of the unpacked or the published layout; `was_packed` where it was NF4 until now.
    pub(super) fn tensor(
        &mut self,
        path: &Path,
        name: &str,
        view: &TensorView<'_>,
        was_packed: bool,
    ) -> Result<()> {
        let from = From { path, name };
        let stored = self.first(from)?;
        self.formats.add(stored, view.dtype(), was_packed);
        let expected = stored.shape(self.config);
        if view.shape() != expected {
            let (path, name) = from.owned();
            return Err(Error::TensorShape { path, name, expected, actual: view.shape().to_vec() });
        }
        match (stored.piece, stored.part.site()) {
            (Piece::Whole, _) | (_, None) => self.floats(from, stored.part, view),
            (piece, Some(site)) => self.mxfp4(from, site, piece, view),
        }
    }

    /// NF4 matrices that stay packed, straight from the files to where they are read, by several threads.
    pub(super) fn kept(&mut self, path: &Path, kept: &Kept) -> Result<()> {
        let name = kept.part.name();
        let from = From { path, name: &name };
        let part = self.first(from)?.part;
        self.formats.add_kept(part);
        let (stack, [count, d_out, d_in]) = (kept.stacked(), kept.shape);
        let tables: Vec<u8> = stack.tables().iter().flat_map(|x| x.to_le_bytes()).collect();
        let copy_blocks = |first: usize, out: &mut [u8]| stack.copy_blocks(first, out);
        let copy_scales = |first: usize, out: &mut [u8]| stack.copy_scales(first, out);
        let blocks = Source::made(stack.blocks_len(), &copy_blocks);
        let scales = Source::made(stack.scales_len(), &copy_scales);
        let upload = |source| from.upload(source);
        let of_experts = part.site().filter(|site| site.kind.is_expert());
        if of_experts.is_some_and(|site| self.placement.streams(self.config, site.layer)) {
            let pieces = [blocks, scales, Source::from(tables.as_slice())];
            let pieces = pieces.iter().map(|piece| self.loader.beside(piece));
            let pieces = pieces.collect::<std::result::Result<_, _>>().map_err(upload)?;
            self.arrived.nf4_on_host.insert(part, pieces);
            return Ok(());
        }
        let in_row = d_in / nf4::BLOCK;
        let blocks = self.loader.bytes(&blocks).map_err(upload)?;
        let scales = self.loader.bytes(&scales).map_err(upload)?;
        let weight = FrozenWeight::Nf4 {
            blocks: blocks.reshape([count, d_out, in_row, nf4::BLOCK / 2]),
            scales: scales.reshape([count, d_out, in_row]),
            tables: self.loader.floats(&tables, DType::F32).map_err(upload)?,
        };
        self.arrived.nf4.insert(part, weight);
        Ok(())
    }

    /// What arrived, once all of it is there, and how it came; `unpacked` is what was NF4 and is not any more.
    pub(super) fn finish(mut self, unpacked: Vec<(Part, String)>) -> Result<(Arrived<'a>, Formats)> {
        self.formats.unpacked(unpacked);
        if let Some(not_pinned) = self.loader.not_pinned() {
            tracing::warn!("{not_pinned}");
        }
        let from = From { path: self.dir, name: "the last one" };
        self.loader.finish().map_err(|source| from.upload(source))?;
        Ok((self.arrived, self.formats))
    }

    /// What the configuration says of a tensor that comes for the first time.
    fn first(&mut self, from: From<'_>) -> Result<Stored> {
        let (path, name) = from.owned();
        let Some(&stored) = self.expected.get(from.name) else {
            return Err(Error::TensorExtra { path, name });
        };
        if !self.seen.insert(name.clone()) {
            return Err(Error::TensorTwice { path, name });
        }
        Ok(stored)
    }

    fn floats(&mut self, from: From<'_>, part: Part, view: &TensorView<'_>) -> Result<()> {
        let on_card = !descant_kernels::is_cpu(self.device);
        let dtype = dtype(part, on_card);
        let bytes = from.floats(view, dtype)?;
        if part == Part::Embedding && self.placement.embedding_on_host {
            let beside = self.loader.beside(&Source::from(&*bytes));
            self.arrived.embedding_on_host = Some(beside.map_err(|source| from.upload(source))?);
            return Ok(());
        }
        let joined = part.site().filter(|site| on_card && SiteKind::ATTENTION_INPUTS.contains(&site.kind));
        if let Some(site) = joined {
            let whole = self.arrived.join(site, &bytes, &mut self.loader);
            return whole.map_err(|source| from.upload(source));
        }
        let tensor = self.loader.floats(&bytes, dtype).map_err(|source| from.upload(source))?;
        self.arrived.floats.insert(part, tensor);
        Ok(())
    }

    /// Blocks or scales of MXFP4 matrices, in the layout that the device reads.
    fn mxfp4(&mut self, from: From<'_>, site: Site, piece: Piece, view: &TensorView<'_>) -> Result<()> {
        let bytes = view.data();
        if view.dtype() != Dtype::U8 {
            return Err(from.mistyped(view, "U8"));
        }
        let kind = if piece == Piece::Scales { Mxfp4Piece::Scales } else { Mxfp4Piece::Blocks };
        let nan = |scales: &[u8]| scales.iter().position(|&scale| scale == NAN_SCALE);
        if let (Mxfp4Piece::Scales, Some(element)) = (kind, first_in(bytes, nan)) {
            return Err(from.not_finite(element));
        }
        let not_tiled = |reason: NotTiled| {
            let (path, name) = from.owned();
            Error::NotTiled { path, name, reason: reason.to_string() }
        };
        let layout = Mxfp4Layout::new(self.arrived.matrices(site), self.device).map_err(not_tiled)?;
        if kind == Mxfp4Piece::Scales {
            layout.check_scales(bytes).map_err(not_tiled)?;
        }
        let upload = |source| from.upload(source);
        if self.placement.streams(self.config, site.layer) {
            let write = |first: usize, out: &mut [u8]| layout.write(kind, bytes, first, out);
            let bytes = self.loader.beside(&Source::made(bytes.len(), &write)).map_err(upload)?;
            self.arrived.mxfp4_on_host.insert((site, piece), bytes);
        } else {
            let bytes = self.loader.mxfp4(&layout, kind, bytes).map_err(upload)?;
            self.arrived.mxfp4.insert((site, piece), (layout, bytes));
        }
        Ok(())
    }
}

impl From<'_> {
    fn owned(&self) -> (String, String) {
        (self.path.display().to_string(), self.name.to_owned())
    }

    fn upload(&self, source: DeviceError) -> Error {
        let (path, name) = self.owned();
        Error::Upload { path, name, source }
    }

    fn not_finite(&self, element: usize) -> Error {
        let (path, name) = self.owned();
        Error::TensorNotFinite { path, name, element }
    }

    fn mistyped(&self, view: &TensorView<'_>, expected: &'static str) -> Error {
        let (path, name) = self.owned();
        Error::TensorType { path, name, expected, actual: format!("{:?}", view.dtype()) }
    }

    /// Finite numbers in this type. What is published so goes to the device as it is.
    fn floats<'v>(&self, view: &TensorView<'v>, dtype: DType) -> Result<Cow<'v, [u8]>> {
        if dtype == DType::BF16 && view.dtype() == Dtype::BF16 {
            return match first_in(view.data(), first_not_finite_bf16) {
                Some(byte) => Err(self.not_finite(byte / size_of::<bf16>())),
                None => Ok(Cow::Borrowed(view.data())),
            };
        }
        let values = floats(view).ok_or_else(|| self.mistyped(view, "BF16, F16 or F32"))?;
        if let Some(element) = values.iter().position(|x| !x.is_finite()) {
            return Err(self.not_finite(element));
        }
        Ok(Cow::Owned(match dtype {
            DType::BF16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>(),
        }))
    }
}

/// Where the first element begins whose exponent is all ones: infinite or not a number.
fn first_not_finite_bf16(bytes: &[u8]) -> Option<usize> {
    /// Bytes that are looked at without a branch.
    const PIECE: usize = 4096;
    let wrong = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]) & 0x7f80 == 0x7f80;
    let piece = bytes.chunks(PIECE).position(|p| p.chunks_exact(2).fold(false, |any, b| any | wrong(b)))?;
    let within = bytes[piece * PIECE..].chunks_exact(2).position(wrong)?;
    Some(piece * PIECE + within * size_of::<bf16>())
}
