//! The tensors of a gpt-oss checkpoint, from files to a device. Their names and shapes are in `names.rs`.
//!
//! Every tensor of the files is accounted for: one that is missing, extra, misshapen or mistyped is an error.
//! `weights/bitsandbytes.rs` turns the tensors of that layout into those expected here.
//! MXFP4 stays packed, on a card in tiles (`weights/packed.rs`), and on a card NF4 does; `formats.rs` says what came and
//! what did not stay as it came. On the CPU everything else becomes f32; on a GPU the matrices become bf16, which is what
//! is published, and only what is small and summed (norms, sinks, biases of router and experts) is f32.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Device, Int, Tensor};
use descant_kernels::{
    DecoderLayer, DenseWeight, DeviceError, FrozenWeight, HostBytes, HostExperts, HostTable, LayerPlace,
    LayerSpec, LayerTensors, Loader, Source, Workspace, stream_experts,
};
use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use descant_quant::{Packing, nf4};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::names::{LayerPart, Part, Piece, Stored};
use crate::placement::Placement;
use crate::shards::{left_over_index, visit_tensors};
use descant_kernels::SiteKind;

use crate::site::Site;

mod bitsandbytes;
mod expected;
mod floats;
mod formats;
mod nf4_matrix;
mod packed;
mod stored;

use bitsandbytes::{Kept, Made, Taken, Unpacker};
pub use expected::weight_bytes;
use expected::{Kind, Role, expected};
use floats::floats;
pub use formats::Formats;
pub use nf4_matrix::unpack_nf4;
use packed::PackedPiece;

/// The projections that become one matrix on a GPU, in its order, and what that matrix is called here.
const JOINED: [SiteKind; 3] = [SiteKind::Query, SiteKind::Key, SiteKind::Value];
const WHOLE: &str = "joined attention input";
/// The scale byte that means NaN.
const NAN_SCALE: u8 = 255;

/// A frozen product: weight and bias.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) weight: FrozenWeight,
    /// `[matrices, out]`
    pub(crate) bias: Tensor<2>,
}

/// One decoder layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerWeights {
    pub(crate) input_norm: Tensor<1>,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) output: Linear,
    pub(crate) sinks: Tensor<1>,
    pub(crate) post_norm: Tensor<1>,
    pub(crate) router: Linear,
    pub(crate) gate_up: Linear,
    pub(crate) down: Linear,
    /// All of the above as one operator, where the device has one.
    pub(crate) whole: Option<DecoderLayer>,
}

/// The whole model.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    pub(crate) embedding: Embedding,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) norm: Tensor<1>,
    /// `[vocabulary, hidden]`
    pub(crate) head: Tensor<2>,
    /// How they came.
    pub(crate) formats: Formats,
}

/// The embedding, `[vocabulary, hidden]`.
#[derive(Debug, Clone)]
pub(crate) enum Embedding {
    /// Where the model lies.
    Here(Box<Tensor<2>>),
    /// Beside its card.
    Host(HostTable),
}

impl Embedding {
    /// The rows of these ids.
    pub(crate) fn rows(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        match self {
            Self::Here(table) => Tensor::clone(table).select(0, ids),
            Self::Host(table) => table.select(&ids),
        }
    }
}

impl Weights {
    /// Reads the shards of `dir`.
    pub(crate) fn load(
        dir: &Path,
        config: &Config,
        device: &Device,
        workspace: &Workspace,
        placement: Placement,
    ) -> Result<Self> {
        if let Some(left_over) = left_over_index(dir)? {
            tracing::warn!("{left_over}");
        }
        let expected = expected(config);
        let on_card = !descant_kernels::is_cpu(device);
        let upload = |path: &Path, name: &str, source| Error::Upload {
            path: path.display().to_string(),
            name: name.to_owned(),
            source,
        };
        let mut loader = Loader::new(device).map_err(|source| upload(dir, "any", source))?;
        let joined_rows = [config.query_width(), config.key_value_width(), config.key_value_width()];
        let mut read =
            Read { dir, on_card, joined_rows, tensors: BTreeMap::new(), formats: Formats::default() };
        let on_host = |name: &str| is_on_host(name, config, placement);
        let mut load = |path: &Path, name: &str, came: Came<'_>| {
            let file = || path.display().to_string();
            let Some(kind) = expected.get(name) else {
                return Err(Error::TensorExtra { path: file(), name: name.to_owned() });
            };
            if read.tensors.contains_key(name) {
                return Err(Error::TensorTwice { path: file(), name: name.to_owned() });
            }
            let loaded = match came {
                Came::Plain(view, was_packed) => {
                    read.formats.add(name, view.dtype(), was_packed);
                    load_tensor(path, name, &view, kind, device, on_host(name), &mut loader)?
                }
                Came::Kept(kept) => {
                    read.formats.add_kept(name);
                    // Where the experts lie that stream is asked under the name of their blocks.
                    let streams = Part::from_name(name)
                        .and_then(Part::site)
                        .is_some_and(|site| site.kind.is_expert() && placement.streams(config, site.layer));
                    load_kept(&kept, streams, &mut loader).map_err(|source| upload(path, name, source))?
                }
            };
            read.tensors.insert(name.to_owned(), loaded);
            read.join(name, &mut loader).map_err(|source| upload(path, name, source))
        };
        let mut unpacker = (config.packing == Packing::Nf4).then(|| Unpacker::new(config, on_card));
        visit_tensors(dir, |path, name, view, bytes| {
            let taken = unpacker
                .as_mut()
                .map_or(Ok(Taken::Other), |unpacker| unpacker.take(path, name, &view, bytes))?;
            let Taken::Made(made) = taken else { return load(path, name, Came::Plain(view, false)) };
            for made in made {
                match made {
                    Made::Unpacked(whole) => {
                        let view = TensorView::new(whole.dtype, whole.shape, &whole.bytes)
                            .expect("as many bytes were made as the shape says");
                        load(path, &whole.name, Came::Plain(view, whole.was_packed))?;
                    }
                    Made::Kept(kept) => load(path, &kept.name.clone(), Came::Kept(kept))?,
                }
            }
            Ok(())
        })?;
        if let Some(unpacker) = unpacker {
            read.formats.unpacked(unpacker.finish(dir)?);
        }
        if let Some(not_pinned) = loader.not_pinned() {
            tracing::warn!("{not_pinned}");
        }
        loader.finish().map_err(|source| upload(dir, "the last one", source))?;
        read.assemble(config, workspace, device, placement)
    }
}

/// A tensor on its way from the files.
enum Came<'a> {
    /// Numbers, and whether they were packed before.
    Plain(TensorView<'a>, bool),
    Kept(Kept),
}

enum Loaded {
    Float(Vec<usize>, Tensor<1>),
    Bytes(Vec<usize>, Tensor<1, Int>),
    /// bf16 on the host, until its neighbours are there.
    Held(Vec<u8>),
    /// Some rows of a matrix on the device.
    Rows(Tensor<2>),
    /// Beside the card, for good.
    Host(Vec<usize>, HostBytes),
    /// Packed matrices.
    Kept(Box<FrozenWeight>),
    /// The pieces of packed matrices, beside the card.
    HostKept(Vec<HostBytes>),
}

/// Brings packed matrices to the card, or beside it.
fn load_kept(kept: &Kept, on_host: bool, loader: &mut Loader) -> std::result::Result<Loaded, DeviceError> {
    let (stack, [count, d_out, d_in]) = (kept.stacked(), kept.shape);
    let tables: Vec<u8> = stack.tables().iter().flat_map(|x| x.to_le_bytes()).collect();
    // Straight from the files to where they are read, by several threads.
    let copy_blocks = |first: usize, out: &mut [u8]| stack.copy_blocks(first, out);
    let copy_scales = |first: usize, out: &mut [u8]| stack.copy_scales(first, out);
    let blocks = Source::made(stack.blocks_len(), &copy_blocks);
    let scales = Source::made(stack.scales_len(), &copy_scales);
    if on_host {
        let pieces = [blocks, scales, Source::from(tables.as_slice())];
        let pieces = pieces.iter().map(|piece| loader.beside(piece));
        return Ok(Loaded::HostKept(pieces.collect::<std::result::Result<_, _>>()?));
    }
    let in_row = d_in / nf4::BLOCK;
    Ok(Loaded::Kept(Box::new(FrozenWeight::Nf4 {
        blocks: loader.bytes(&blocks)?.reshape([count, d_out, in_row, nf4::BLOCK / 2]),
        scales: loader.bytes(&scales)?.reshape([count, d_out, in_row]),
        tables: loader.floats(&tables, DType::F32)?,
    })))
}

fn load_tensor(
    path: &Path,
    name: &str,
    view: &TensorView<'_>,
    kind: &Kind,
    device: &Device,
    on_host: bool,
    loader: &mut Loader,
) -> Result<Loaded> {
    let path = || path.display().to_string();
    let (Kind::Float { shape, .. } | Kind::Bytes { shape, .. }) = kind;
    if view.shape() != shape.as_slice() {
        return Err(Error::TensorShape {
            path: path(),
            name: name.to_owned(),
            expected: shape.clone(),
            actual: view.shape().to_vec(),
        });
    }
    let mistyped = |expected| Error::TensorType {
        path: path(),
        name: name.to_owned(),
        expected,
        actual: format!("{:?}", view.dtype()),
    };
    let upload = |source| Error::Upload { path: path(), name: name.to_owned(), source };
    let not_finite = |element| Error::TensorNotFinite { path: path(), name: name.to_owned(), element };
    match kind {
        Kind::Float { role, .. } => {
            let dtype = role.dtype(!descant_kernels::is_cpu(device));
            // As published: the bytes go to the device as they are.
            let bytes = if dtype == DType::BF16 && view.dtype() == Dtype::BF16 {
                if let Some(element) = first_not_finite_bf16(view.data()) {
                    return Err(not_finite(element));
                }
                Cow::Borrowed(view.data())
            } else {
                let values = floats(view).ok_or_else(|| mistyped("BF16, F16 or F32"))?;
                if let Some(element) = values.iter().position(|x| !x.is_finite()) {
                    return Err(not_finite(element));
                }
                Cow::Owned(match dtype {
                    DType::BF16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
                    _ => values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>(),
                })
            };
            if on_host {
                return Ok(Loaded::Host(
                    shape.clone(),
                    loader.beside(&Source::from(&*bytes)).map_err(upload)?,
                ));
            }
            if *role == Role::Joined && dtype == DType::BF16 {
                return Ok(Loaded::Held(bytes.into_owned()));
            }
            Ok(Loaded::Float(shape.clone(), loader.floats(&bytes, dtype).map_err(upload)?))
        }
        Kind::Bytes { scales, .. } => {
            if view.dtype() != Dtype::U8 {
                return Err(mistyped("U8"));
            }
            if let (true, Some(element)) = (scales, view.data().iter().position(|&s| s == NAN_SCALE)) {
                return Err(not_finite(element));
            }
            let packed = PackedPiece::new(view.data(), shape, *scales, device)
                .map_err(|reason| Error::NotTiled { path: path(), name: name.to_owned(), reason })?;
            let write = |first: usize, out: &mut [u8]| packed.write(first, out);
            let source = Source::made(view.data().len(), &write);
            if on_host {
                return Ok(Loaded::Host(packed.shape(), loader.beside(&source).map_err(upload)?));
            }
            Ok(Loaded::Bytes(packed.shape(), loader.bytes(&source).map_err(upload)?))
        }
    }
}

/// The first element whose exponent is all ones: infinite or not a number.
fn first_not_finite_bf16(bytes: &[u8]) -> Option<usize> {
    /// Bytes that are looked at without a branch.
    const PIECE: usize = 4096;
    let wrong = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]) & 0x7f80 == 0x7f80;
    let piece = bytes.chunks(PIECE).position(|p| p.chunks_exact(2).fold(false, |any, b| any | wrong(b)))?;
    let within = bytes[piece * PIECE..].chunks_exact(2).position(wrong)?;
    Some(piece * PIECE / 2 + within)
}

/// Tensors that were read, and how the layers take them.
struct Read<'a> {
    dir: &'a Path,
    /// Where the device is a card: query, key and value become one matrix, and MXFP4 lies in tiles.
    on_card: bool,
    /// Rows of each.
    joined_rows: [usize; 3],
    tensors: BTreeMap<String, Loaded>,
    formats: Formats,
}

impl Read<'_> {
    fn assemble(
        mut self,
        config: &Config,
        workspace: &Workspace,
        device: &Device,
        placement: Placement,
    ) -> Result<Weights> {
        let mut streamed = self.streamed(config, device, placement)?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for n in 0..config.num_hidden_layers {
            let part = |part| Part::Layer(n, part);
            let site = |kind| Site { layer: n, kind };
            let mut parts = Vec::with_capacity(JOINED.len());
            for kind in JOINED {
                parts.push(self.dense(site(kind))?);
            }
            let attention_input = if self.on_card { Some(self.attention_input(n, &parts)?) } else { None };
            let [query, key, value] = parts.try_into().expect("three were pushed");
            let mut layer = LayerWeights {
                input_norm: self.float(part(LayerPart::InputNorm))?,
                query,
                key,
                value,
                output: self.dense(site(SiteKind::Output))?,
                sinks: self.float(part(LayerPart::Sinks))?,
                post_norm: self.float(part(LayerPart::PostNorm))?,
                router: self.dense(site(SiteKind::Router))?,
                gate_up: self.experts(site(SiteKind::GateUp), config.packing, &mut streamed)?,
                down: self.experts(site(SiteKind::Down), config.packing, &mut streamed)?,
                whole: None,
            };
            layer.whole = attention_input.and_then(|fused| whole(&layer, &fused, config, n, workspace));
            layers.push(layer);
        }
        Ok(Weights {
            embedding: self.embedding(device)?,
            layers,
            norm: self.float(Part::Norm)?,
            head: self.float(Part::Head)?,
            formats: self.formats,
        })
    }

    /// Where the last of a layer's query, key and value has come: puts them below each other on the device, in one
    /// matrix of which each becomes a view.
    fn join(&mut self, name: &str, loader: &mut Loader) -> std::result::Result<(), DeviceError> {
        if !matches!(self.tensors.get(name), Some(Loaded::Held(_))) {
            return Ok(());
        }
        let site = Part::from_name(name).and_then(Part::site).expect("only weights at sites are held");
        let names = JOINED.map(|kind| Part::weight(Site { kind, ..site }).name());
        if !names.iter().all(|name| self.tensors.contains_key(name)) {
            return Ok(());
        }
        let parts = names.clone().map(|name| match self.tensors.remove(&name) {
            Some(Loaded::Held(bytes)) => bytes,
            _ => unreachable!("all three are held until here"),
        });
        let rows = self.joined_rows;
        let whole = loader.floats(&parts.concat(), DType::BF16)?;
        let hidden = whole.dims()[0] / rows.iter().sum::<usize>();
        let whole = whole.reshape([rows.iter().sum(), hidden]);
        let mut start = 0;
        for (name, rows) in names.into_iter().zip(rows) {
            self.tensors.insert(name, Loaded::Rows(whole.clone().narrow(0, start, rows)));
            start += rows;
        }
        self.tensors.insert(whole_name(site.layer), Loaded::Rows(whole));
        Ok(())
    }

    /// Query, key and value as one product: weight and bias.
    fn attention_input(&mut self, layer: usize, parts: &[Linear]) -> Result<(DenseWeight, Tensor<2>)> {
        let bias = Tensor::cat(parts.iter().map(|part| part.bias.clone()).collect(), 1);
        // All of them are packed, or none is.
        if matches!(parts, [Linear { weight: FrozenWeight::Nf4 { .. }, .. }, ..]) {
            let weights = parts.iter().map(|part| part.weight.clone()).collect();
            return Ok((DenseWeight::Packed(weights), bias));
        }
        Ok((DenseWeight::Plain(self.named(&whole_name(layer))?), bias))
    }

    fn take(&mut self, name: &str) -> Result<Loaded> {
        self.tensors
            .remove(name)
            .ok_or_else(|| Error::TensorMissing { dir: self.dir.to_owned(), name: name.to_owned() })
    }

    /// A float tensor of as many axes as it was read with.
    fn float<const D: usize>(&mut self, part: Part) -> Result<Tensor<D>> {
        self.named(&part.name())
    }

    fn named<const D: usize>(&mut self, name: &str) -> Result<Tensor<D>> {
        match self.take(name)? {
            Loaded::Float(shape, tensor) => Ok(tensor.reshape(axes::<D>(&shape))),
            Loaded::Rows(tensor) => {
                let shape = axes::<D>(&tensor.dims());
                Ok(tensor.reshape(shape))
            }
            Loaded::Bytes(..)
            | Loaded::Held(_)
            | Loaded::Host(..)
            | Loaded::Kept(_)
            | Loaded::HostKept(_) => {
                unreachable!("`expected` says what each tensor is")
            }
        }
    }

    fn bytes<const D: usize>(&mut self, part: Part, piece: Piece) -> Result<Tensor<D, Int>> {
        match self.take(&Stored { part, piece }.name())? {
            Loaded::Bytes(shape, tensor) => Ok(tensor.reshape(axes::<D>(&shape))),
            _ => unreachable!("`expected` says which tensors are bytes"),
        }
    }

    fn dense(&mut self, site: Site) -> Result<Linear> {
        let weight = match self.kept(Part::weight(site)) {
            Some(weight) => weight,
            None => FrozenWeight::Dense(self.float::<2>(Part::weight(site))?.unsqueeze()),
        };
        let bias: Tensor<1> = self.float(Part::bias(site))?;
        Ok(Linear { weight, bias: bias.unsqueeze() })
    }

    /// A weight that stayed packed as NF4, if it did.
    fn kept(&mut self, part: Part) -> Option<FrozenWeight> {
        match self.tensors.remove(&part.name())? {
            Loaded::Kept(weight) => Some(*weight),
            other => {
                self.tensors.insert(part.name(), other);
                None
            }
        }
    }

    fn embedding(&mut self, device: &Device) -> Result<Embedding> {
        match self.take(&Part::Embedding.name())? {
            Loaded::Host(shape, bytes) => {
                let table = HostTable::new(bytes, axes(&shape), device);
                table.map(Embedding::Host).map_err(|source| self.not_placed(&Part::Embedding.name(), source))
            }
            Loaded::Float(shape, tensor) => Ok(Embedding::Here(Box::new(tensor.reshape(axes::<2>(&shape))))),
            _ => unreachable!("`expected` says what each tensor is"),
        }
    }

    /// The weights that stream, by site.
    fn streamed(
        &mut self,
        config: &Config,
        device: &Device,
        placement: Placement,
    ) -> Result<BTreeMap<Site, FrozenWeight>> {
        let halves = [SiteKind::GateUp, SiteKind::Down];
        let layers: Vec<usize> =
            (0..config.num_hidden_layers).filter(|layer| placement.streams(config, *layer)).collect();
        if config.packing == Packing::Nf4 {
            for site in layers.iter().flat_map(|&layer| halves.map(|kind| Site { layer, kind })) {
                let name = Part::weight(site).name();
                if !matches!(self.tensors.get(&name), Some(Loaded::HostKept(_))) {
                    let path = self.dir.display().to_string();
                    let reason =
                        "it is to stream from the host, and is not NF4 as kernels read it".to_owned();
                    return Err(Error::QuantState { path, name, reason });
                }
            }
        }
        let mut experts = Vec::with_capacity(layers.len());
        for &layer in &layers {
            let [gate_up, down] = halves.map(|kind| self.host_experts(Site { layer, kind }, config));
            experts.push([gate_up?, down?]);
        }
        let weights = stream_experts(experts, placement.slots(config), device)
            .map_err(|source| self.not_placed("experts of the layers that stream", source))?;
        let sites = layers.into_iter().flat_map(|layer| halves.map(|kind| Site { layer, kind }));
        Ok(sites.zip(weights.into_iter().flatten().map(FrozenWeight::Streamed)).collect())
    }

    fn host_experts(&mut self, site: Site, config: &Config) -> Result<HostExperts> {
        let dims = config.site_dims(site.kind);
        let (packing, shape) = (config.packing, [dims.n_matrices, dims.d_out, dims.d_in]);
        if packing == Packing::Nf4 {
            let Loaded::HostKept(pieces) = self.take(&Part::weight(site).name())? else {
                unreachable!("it was looked at before")
            };
            return Ok(HostExperts { packing, pieces, shape });
        }
        let mut piece = |piece| -> Result<HostBytes> {
            match self.take(&Stored { part: Part::weight(site), piece }.name())? {
                Loaded::Host(_, bytes) => Ok(bytes),
                _ => unreachable!("a layer that streams was read to the host"),
            }
        };
        let pieces = vec![piece(Piece::Blocks)?, piece(Piece::Scales)?];
        Ok(HostExperts { packing, pieces, shape })
    }

    fn not_placed(&self, name: &str, source: DeviceError) -> Error {
        Error::Upload { path: self.dir.display().to_string(), name: name.to_owned(), source }
    }

    fn experts(
        &mut self,
        site: Site,
        packing: Packing,
        streamed: &mut BTreeMap<Site, FrozenWeight>,
    ) -> Result<Linear> {
        let part = Part::weight(site);
        let weight = if let Some(weight) = streamed.remove(&site) {
            weight
        } else if packing == Packing::Mxfp4 && self.on_card {
            FrozenWeight::Mxfp4Tiles {
                blocks: self.bytes(part, Piece::Blocks)?,
                scales: self.bytes(part, Piece::Scales)?,
            }
        } else if packing == Packing::Mxfp4 {
            FrozenWeight::Mxfp4 {
                blocks: self.bytes(part, Piece::Blocks)?,
                scales: self.bytes(part, Piece::Scales)?,
            }
        } else if let Some(weight) = self.kept(part) {
            weight
        } else {
            FrozenWeight::Transposed(self.float(part)?)
        };
        Ok(Linear { weight, bias: self.float(Part::bias(site))? })
    }
}

/// Whether a tensor of this name goes to the host.
fn is_on_host(name: &str, config: &Config, placement: Placement) -> bool {
    match Stored::from_name(name) {
        Some(Stored { part: Part::Embedding, .. }) => placement.embedding_on_host,
        Some(Stored { part, piece: Piece::Blocks | Piece::Scales }) => {
            part.site().is_some_and(|site| placement.streams(config, site.layer))
        }
        _ => false,
    }
}

/// What query, key and value of a layer are called once they are one matrix.
fn whole_name(layer: usize) -> String {
    format!("{WHOLE} {layer}")
}

/// The layer as one operator, where the device has one.
fn whole(
    layer: &LayerWeights,
    (attention_input, attention_input_bias): &(DenseWeight, Tensor<2>),
    config: &Config,
    n: usize,
    workspace: &Workspace,
) -> Option<DecoderLayer> {
    let matrix = |linear: &Linear| match &linear.weight {
        FrozenWeight::Dense(weight) => weight.clone().squeeze_dim::<2>(0),
        _ => unreachable!("a router is not packed"),
    };
    let output = match &layer.output.weight {
        FrozenWeight::Dense(weight) => DenseWeight::Plain(weight.clone().squeeze_dim::<2>(0)),
        packed => DenseWeight::Packed(vec![packed.clone()]),
    };
    let bias = |linear: &Linear| linear.bias.clone().squeeze_dim::<1>(0);
    let tensors = LayerTensors {
        input_norm: layer.input_norm.clone(),
        attention_input: attention_input.clone(),
        attention_input_bias: attention_input_bias.clone().squeeze_dim::<1>(0),
        sinks: layer.sinks.clone(),
        output,
        output_bias: bias(&layer.output),
        post_norm: layer.post_norm.clone(),
        router: matrix(&layer.router),
        router_bias: bias(&layer.router),
        gate_up: layer.gate_up.weight.clone(),
        gate_up_bias: layer.gate_up.bias.clone(),
        down: layer.down.weight.clone(),
        down_bias: layer.down.bias.clone(),
    };
    let spec = LayerSpec {
        n_heads: config.num_attention_heads,
        n_kv: config.num_key_value_heads,
        head_dim: config.head_dim,
        top_k: config.num_experts_per_tok,
        window: config.window(n),
        epsilon: config.rms_norm_eps,
        limit: config.swiglu_limit,
    };
    let windows = (0..config.num_hidden_layers).map(|layer| config.window(layer)).collect();
    DecoderLayer::new(&tensors, spec, LayerPlace { index: n, windows }, workspace)
}

fn axes<const D: usize>(shape: &[usize]) -> [usize; D] {
    shape.try_into().expect("`expected` gives each tensor the axes its taker asks for")
}
