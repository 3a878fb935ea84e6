//! The forms that hold the adapter alone.

use std::path::Path;

use descant_lora::peft::{Base, Sites};
use descant_lora::{Folder, Writer, mlx, peft};
use descant_model::{Config, MAX_CONFIG_BYTES};
use serde_json::Value;

use crate::adapters::{LoraTensor, folded, for_gguf, with_both_experts};
use crate::base::to_bytes;
use crate::error::{Error, Result};
use crate::form::Form;
use crate::gguf::{ALIGNMENT, Info, header as gguf_header, lora_keys};
use crate::job::{Job, Progress, Watch};
use crate::plan::Type;
use crate::report::Report;
use crate::target::Target;
use crate::writing::{Writing, finished, ggml_type, tell};

/// Longest tensors of an adapter that are copied.
const MAX_ADAPTER: u64 = 1 << 36;

/// Writes one of them.
pub(crate) fn adapter_only(
    job: &Job<'_>,
    config: &Config,
    adapter: Folder,
    mut report: Report,
    watch: &mut Watch<'_>,
) -> Result<Report> {
    let Folder { writer, sites, base_model, .. } = adapter;
    let rank = sites.values().map(|factors| factors.rank).max().unwrap_or_default();
    report.rank = Some(rank);
    report.tensors = sites.len() * 2;
    if job.form == Form::GgufLora {
        return lora_gguf(job, config, &folded(sites, config), report, watch);
    }
    if crate::target::is_file(job.out) {
        return Err(Error::Unsupported {
            reason: format!("{} is a folder, and --out names a .gguf file", job.form.name()),
        });
    }
    let base = Base {
        name: &report.base_model,
        revision: report.base_revision.as_deref(),
        experts: report.trained_experts.as_deref(),
    };
    let files: Vec<(String, Vec<u8>)> = match job.form {
        Form::Peft if writer == Writer::Peft => copied(job.adapter, base_model.as_deref(), base)?,
        Form::Peft => named(peft::files(config, base, &sites)?.1),
        Form::PeftFolded => {
            named(peft::files(config, base, &with_both_experts(folded(sites, config), config))?.1)
        }
        _ => named(mlx::files(config, &folded(sites, config))?),
    };
    let bytes = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let mut target = Target::open(job.out, &[job.adapter, job.model], job.force, bytes)?;
    tell(watch, Progress::Planned(bytes))?;
    for (name, bytes) in files {
        target.write(&name, &bytes)?;
        report.wrote(&name, bytes.len() as u64);
        tell(watch, Progress::Written(report.bytes))?;
    }
    finished(target, report)
}

/// An adapter for llama.cpp, tensor by tensor.
fn lora_gguf(
    job: &Job<'_>,
    config: &Config,
    sites: &Sites,
    mut report: Report,
    watch: &mut Watch<'_>,
) -> Result<Report> {
    let tensors: Vec<_> = for_gguf(sites, config).collect();
    let f32_bytes = |tensor: &LoraTensor<'_>| 4 * tensor.len() as u64;
    let infos = tensors.iter().map(|tensor| Info {
        name: &tensor.name,
        ne: tensor.shape.iter().rev().map(|&n| n as u64).collect(),
        kind: ggml_type(Type::Plain(safetensors::Dtype::F32)),
        bytes: f32_bytes(tensor),
    });
    let header = gguf_header(&lora_keys(&report.base_model, report.rank.unwrap_or_default()), infos);
    let padded = |tensor| f32_bytes(tensor).next_multiple_of(ALIGNMENT);
    let bytes = header.len() as u64 + tensors.iter().map(padded).sum::<u64>();
    report.tensors = tensors.len();
    let mut target = Target::open(job.out, &[job.adapter, job.model], job.force, bytes)?;
    tell(watch, Progress::Planned(bytes))?;
    let name = target.file_name("adapter.gguf");
    let mut done = header.len() as u64;
    let mut file = Writing { file: target.start(&name)?, bytes: 0, done: &mut done, watch };
    file.append(&header)?;
    for tensor in &tensors {
        let mut bytes = to_bytes(&tensor.values(), f32::to_le_bytes);
        bytes.resize(padded(tensor) as usize, 0);
        file.tell(&bytes)?;
    }
    report.wrote(&name, file.finish()?);
    finished(target, report)
}

fn named(files: peft::Files) -> Vec<(String, Vec<u8>)> {
    files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

/// A PEFT folder's files as they are, but for a path that they call their base; it was read before, so they are right.
fn copied(dir: &Path, said: Option<&str>, base: Base<'_>) -> Result<Vec<(String, Vec<u8>)>> {
    let path_of_base = said.filter(|said| *said != base.name);
    let mut files = Vec::new();
    for (name, limit) in [
        (peft::CARD_FILE, MAX_CONFIG_BYTES),
        (peft::CONFIG_FILE, peft::MAX_CONFIG_BYTES),
        (peft::TENSORS_FILE, MAX_ADAPTER),
    ] {
        let path = dir.join(name);
        if name == peft::CARD_FILE && !path.is_file() {
            continue;
        }
        let mut bytes = descant_files::read_bounded(&path, limit)?;
        if let Some(said) = path_of_base.filter(|said| !said.is_empty()) {
            match name {
                peft::CARD_FILE => {
                    bytes = String::from_utf8_lossy(&bytes).replace(said, base.name).into_bytes();
                }
                peft::CONFIG_FILE => bytes = renamed(&path, &bytes, base)?,
                _ => {}
            }
        }
        files.push((name.to_owned(), bytes));
    }
    Ok(files)
}

/// A configuration with another name of the base; every other key keeps its value and place.
fn renamed(path: &Path, bytes: &[u8], base: Base<'_>) -> Result<Vec<u8>> {
    let mut config: Value = serde_json::from_slice(bytes)
        .map_err(|error| Error::Beside { path: path.to_owned(), reason: error.to_string() })?;
    config["base_model_name_or_path"] = base.name.into();
    if let Some(revision) = base.revision {
        config["revision"] = revision.into();
    }
    Ok(format!("{config:#}\n").into_bytes())
}
