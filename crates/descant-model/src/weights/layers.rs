//! The layers of a model, made of the tensors that arrived.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use descant_kernels::{
    DecoderLayer, DenseWeight, DeviceError, FrozenWeight, HostExperts, HostTable, LayerPlace, LayerSpec,
    LayerTensors, SiteKind, Workspace, joined, stream_experts,
};
use descant_quant::Packing;

use super::arrived::Arrived;
use super::formats::Formats;
use super::types::{Embedding, LayerWeights, Linear, Weights};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::names::{LayerPart, Part};
use crate::placement::Placement;
use crate::site::Site;

/// The products of a layer's experts.
const EXPERTS: [SiteKind; 2] = [SiteKind::GateUp, SiteKind::Down];

/// The model that these tensors are.
pub(super) fn assembled(
    mut arrived: Arrived<'_>,
    formats: Formats,
    workspace: &Workspace,
    device: &Device,
    placement: Placement,
) -> Result<Weights> {
    let config = arrived.config;
    let mut streamed = streamed(&mut arrived, device, placement)?.into_iter();
    let layers = (0..config.num_hidden_layers).map(|n| {
        let experts = if placement.streams(config, n) { streamed.next() } else { None };
        layer(&mut arrived, n, experts, workspace, device)
    });
    let layers = layers.collect::<Result<_>>()?;
    Ok(Weights {
        embedding: embedding(&mut arrived, device)?,
        layers,
        norm: arrived.float(Part::Norm)?,
        head: arrived.float(Part::Head)?,
        formats,
    })
}

/// A layer; `streamed` are its experts' weights where those come from the host.
fn layer(
    arrived: &mut Arrived<'_>,
    n: usize,
    streamed: Option<[FrozenWeight; 2]>,
    workspace: &Workspace,
    device: &Device,
) -> Result<LayerWeights> {
    let part = |part| Part::Layer(n, part);
    let site = |kind| Site { layer: n, kind };
    let query = dense(arrived, site(SiteKind::Query))?;
    let key = dense(arrived, site(SiteKind::Key))?;
    let value = dense(arrived, site(SiteKind::Value))?;
    let on_card = !descant_kernels::is_cpu(device);
    let attention_input =
        if on_card { Some(attention_input(arrived, n, [&query, &key, &value])?) } else { None };
    let [gate_up, down] = streamed.map_or([None, None], |both| both.map(Some));
    let mut layer = LayerWeights {
        input_norm: arrived.float(part(LayerPart::InputNorm))?,
        query,
        key,
        value,
        output: dense(arrived, site(SiteKind::Output))?,
        sinks: arrived.float(part(LayerPart::Sinks))?,
        post_norm: arrived.float(part(LayerPart::PostNorm))?,
        router: dense(arrived, site(SiteKind::Router))?,
        gate_up: experts(arrived, site(SiteKind::GateUp), gate_up)?,
        down: experts(arrived, site(SiteKind::Down), down)?,
        whole: None,
    };
    layer.whole = attention_input.and_then(|joined| whole(&layer, joined, arrived.config, n, workspace));
    Ok(layer)
}

/// A product of one matrix.
fn dense(arrived: &mut Arrived<'_>, site: Site) -> Result<Linear> {
    let weight = match arrived.nf4.remove(&Part::weight(site)) {
        Some(packed) => packed,
        None => FrozenWeight::Dense(arrived.matrix(site)?.unsqueeze()),
    };
    let bias: Tensor<1> = arrived.float(Part::bias(site))?;
    Ok(Linear { weight, bias: bias.unsqueeze() })
}

/// A product of one matrix an expert.
fn experts(arrived: &mut Arrived<'_>, site: Site, streamed: Option<FrozenWeight>) -> Result<Linear> {
    let weight = match streamed.or_else(|| arrived.nf4.remove(&Part::weight(site))) {
        Some(weight) => weight,
        None if arrived.config.packing == Packing::Mxfp4 => arrived.mxfp4(site)?,
        None => FrozenWeight::Transposed(arrived.float(Part::weight(site))?),
    };
    Ok(Linear { weight, bias: arrived.float(Part::bias(site))? })
}

/// Query, key and value as a card's layer takes them: one matrix, or packed ones, and one bias.
fn attention_input(
    arrived: &mut Arrived<'_>,
    layer: usize,
    parts: [&Linear; 3],
) -> Result<(DenseWeight, Tensor<1>)> {
    let bias = joined(parts.map(|part| part.bias.clone().squeeze_dim::<1>(0)).to_vec());
    // All of them are packed, or none is.
    let weight = if matches!(parts[0].weight, FrozenWeight::Nf4 { .. }) {
        DenseWeight::Packed(parts.map(|part| part.weight.clone()).to_vec())
    } else {
        DenseWeight::Plain(arrived.attention_input(layer)?)
    };
    Ok((weight, bias))
}

fn embedding(arrived: &mut Arrived<'_>, device: &Device) -> Result<Embedding> {
    let Some(bytes) = arrived.embedding_on_host.take() else {
        return Ok(Embedding::Here(Box::new(arrived.float(Part::Embedding)?)));
    };
    let config = arrived.config;
    let table = HostTable::new(bytes, [config.vocab_size, config.hidden_size], device);
    table.map(Embedding::Host).map_err(|source| not_placed(arrived.dir, &Part::Embedding.name(), source))
}

/// The experts' weights of each layer that streams, in the order of the layers.
fn streamed(
    arrived: &mut Arrived<'_>,
    device: &Device,
    placement: Placement,
) -> Result<Vec<[FrozenWeight; 2]>> {
    let config = arrived.config;
    let mut experts = Vec::new();
    for layer in (0..config.num_hidden_layers).filter(|layer| placement.streams(config, *layer)) {
        let [gate_up, down] = EXPERTS.map(|kind| host_experts(arrived, Site { layer, kind }));
        experts.push([gate_up?, down?]);
    }
    let weights = stream_experts(experts, placement.slots(config), device)
        .map_err(|source| not_placed(arrived.dir, "experts of the layers that stream", source))?;
    Ok(weights.into_iter().map(|both| both.map(FrozenWeight::Streamed)).collect())
}

fn host_experts(arrived: &mut Arrived<'_>, site: Site) -> Result<HostExperts> {
    let (packing, shape) = (arrived.config.packing, arrived.matrices(site));
    let part = Part::weight(site);
    let pieces = match packing {
        Packing::Nf4 => arrived.nf4_on_host.remove(&part).ok_or_else(|| Error::QuantState {
            path: arrived.dir.display().to_string(),
            name: part.name(),
            reason: "it is to stream from the host, and is not NF4 as kernels read it".to_owned(),
        })?,
        Packing::Mxfp4 | Packing::Plain => arrived.mxfp4_on_host(site)?,
    };
    Ok(HostExperts { packing, pieces, shape })
}

fn not_placed(dir: &Path, name: &str, source: DeviceError) -> Error {
    Error::Upload { path: dir.display().to_string(), name: name.to_owned(), source }
}

/// The layer as one operator, where the device has one.
fn whole(
    layer: &LayerWeights,
    (attention_input, attention_input_bias): (DenseWeight, Tensor<1>),
    config: &Config,
    n: usize,
    workspace: &Workspace,
) -> Option<DecoderLayer> {
    // Only attention's matrices are ever packed.
    let FrozenWeight::Dense(router) = &layer.router.weight else { return None };
    let output = match &layer.output.weight {
        FrozenWeight::Dense(weight) => DenseWeight::Plain(weight.clone().squeeze_dim::<2>(0)),
        packed => DenseWeight::Packed(vec![packed.clone()]),
    };
    let bias = |linear: &Linear| linear.bias.clone().squeeze_dim::<1>(0);
    let tensors = LayerTensors {
        input_norm: layer.input_norm.clone(),
        attention_input,
        attention_input_bias,
        sinks: layer.sinks.clone(),
        output,
        output_bias: bias(&layer.output),
        post_norm: layer.post_norm.clone(),
        router: router.clone().squeeze_dim::<2>(0),
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
