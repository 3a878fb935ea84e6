//! A GGUF model back as a folder of safetensors, to be loaded and compared: the way our own reader reads an export.
//!
//! Gate and up become one weight again, blocks get their published order. Nothing is rounded: floats keep their types.

use std::path::Path;

use descant_files::{NewDir, RelPath};
use descant_model::{Config, LayerPart, Part, Site, SiteKind};
use descant_quant::mxfp4::{BLOCK, BLOCK_BYTES, GGML_BYTES, from_ggml};
use descant_quant::transposed;
use safetensors::Dtype;

use crate::error::Result;
use crate::form::Select;
use crate::gguf::{Gguf, names};
use crate::plan::{self, OutTensor, Source, Type};
use crate::shards;

/// GGML's numbers of types.
const MXFP4: u32 = 39;

/// Writes what `gguf` holds into a temporary folder beside it, which goes away with the value that is returned.
///
/// `config` is the base's, and `config_text` its file in the layout of the result.
///
/// # Errors
/// The file is not such a model, or the folder cannot be written.
pub fn unpack_gguf(gguf: &Path, config: &Config, config_text: &serde_json::Value) -> Result<NewDir> {
    let file = Gguf::open(gguf)?;
    let first = Site { layer: 0, kind: SiteKind::Down };
    let packed = kind_of(&file, Part::weight(first))? == MXFP4;
    let dtype = |part: Part| kind_of(&file, part).ok().and_then(float);
    let mut tensors = if packed { plan::published(config, dtype) } else { plan::unpacked(config) };
    for tensor in &mut tensors {
        if let Source::Float { part, .. } = tensor.source {
            tensor.kind = Type::Plain(dtype(part).unwrap_or(Dtype::BF16));
        }
    }
    let name = format!("{}.proof", gguf.file_name().unwrap_or_default().to_string_lossy());
    let mut new = NewDir::create(&gguf.with_file_name(name))?;
    let mut text = config_text.clone();
    if let Some(map) = text.as_object_mut() {
        map.shift_remove("quantization_config");
        if packed {
            map.insert("quantization_config".to_owned(), serde_json::json!({"quant_method": "mxfp4"}));
        }
    }
    new.write(&RelPath::new("config.json")?, text.to_string().as_bytes())?;
    let shards = shards::shards(&tensors);
    for shard in &shards {
        let mut out = new.start(&RelPath::new(&shard.name)?)?;
        out.append(&shards::header(shard.tensors))?;
        for tensor in shard.tensors {
            for piece in pieces(&file, tensor, config) {
                out.append(&piece?)?;
            }
        }
        out.finish()?;
    }
    if let Some(index) = shards::index(&shards) {
        new.write(&RelPath::new("model.safetensors.index.json")?, index.as_bytes())?;
    }
    Ok(new)
}

fn kind_of(file: &Gguf, part: Part) -> Result<u32> {
    let (name, _) = names(part).remove(0);
    let tensor =
        file.tensors().get(&name).ok_or_else(|| file.wrong(format!("tensor `{name}` is missing")))?;
    Ok(tensor.kind)
}

fn float(kind: u32) -> Option<Dtype> {
    match kind {
        0 => Some(Dtype::F32),
        1 => Some(Dtype::F16),
        30 => Some(Dtype::BF16),
        _ => None,
    }
}

/// The bytes of a tensor, an expert at a time.
fn pieces<'a>(
    file: &'a Gguf,
    tensor: &OutTensor,
    config: &'a Config,
) -> Box<dyn Iterator<Item = Result<Vec<u8>>> + 'a> {
    match tensor.source {
        Source::Float { part, .. } => {
            let expert_bias = matches!(part, Part::Layer(_, LayerPart::Bias(SiteKind::GateUp)));
            let Type::Plain(dtype) = tensor.kind else { unreachable!("floats are plain") };
            let size = if expert_bias { dtype.bitsize() / 8 } else { 1 };
            Box::new(std::iter::once(joined(file, part, 0, 1, size)))
        }
        Source::Experts { site, rows, .. } => {
            let dims = config.site_dims(site.kind);
            let n = dims.n_matrices as u64;
            Box::new((0..n).map(move |expert| {
                let part = Part::weight(site);
                if rows == plan::Rows::Blocks {
                    let bytes = joined(file, part, expert, n, dims.d_in / BLOCK * GGML_BYTES)?;
                    return blocks(file, &bytes).map(|(blocks, _)| blocks);
                }
                let bytes = joined(file, part, expert, n, 2 * dims.d_in)?;
                let halves: Vec<[u8; 2]> = bytes.as_chunks().0.to_vec();
                Ok(transposed(&halves, dims.d_out, dims.d_in).concat())
            }))
        }
        Source::Scales { site } => {
            let dims = config.site_dims(site.kind);
            let n = dims.n_matrices as u64;
            Box::new((0..n).map(move |expert| {
                let bytes = joined(file, Part::weight(site), expert, n, dims.d_in / BLOCK * GGML_BYTES)?;
                blocks(file, &bytes).map(|(_, scales)| scales)
            }))
        }
    }
}

/// One of `n` equal pieces of a part: the rows of gate and up in turn, where it has both.
fn joined(file: &Gguf, part: Part, piece: u64, n: u64, row_bytes: usize) -> Result<Vec<u8>> {
    let mut halves = Vec::new();
    for (name, select) in names(part) {
        let tensor =
            file.tensors().get(&name).ok_or_else(|| file.wrong(format!("tensor `{name}` is missing")))?;
        let length = tensor.length / n;
        halves.push((select, file.bytes(&name, piece * length, length)?));
    }
    if halves.len() == 1 {
        return Ok(halves.remove(0).1);
    }
    let mut gate =
        halves.iter().find(|(select, _)| *select == Select::Even).map(|(_, bytes)| bytes.chunks(row_bytes));
    let mut up =
        halves.iter().find(|(select, _)| *select == Select::Odd).map(|(_, bytes)| bytes.chunks(row_bytes));
    let mut out = Vec::new();
    while let (Some(gate), Some(up)) =
        (gate.as_mut().and_then(Iterator::next), up.as_mut().and_then(Iterator::next))
    {
        out.extend_from_slice(gate);
        out.extend_from_slice(up);
    }
    Ok(out)
}

fn blocks(file: &Gguf, bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let n = bytes.len() / GGML_BYTES;
    let (mut blocks, mut scales) = (vec![0; n * BLOCK_BYTES], vec![0; n]);
    from_ggml(bytes, &mut blocks, &mut scales).map_err(|error| file.wrong(error.to_string()))?;
    Ok((blocks, scales))
}
