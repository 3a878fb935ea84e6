//! One export, from the folders of a base and an adapter to a new one.
//!
//! Everything that can be refused from names, shapes and sizes is refused before the first byte is written. Then tensor
//! after tensor goes from the base through the sum to the disk, and nothing has its name until all of it is there.

use std::path::Path;

use descant_files::Growing;
use descant_lora::peft::Sites;
use descant_lora::{Folder, Writer, mlx, peft};
use descant_model::{Config, MAX_CONFIG_BYTES, Part};
use descant_quant::Packing;
use serde_json::{Value, json};

use crate::adapters::{folded, for_gguf, with_both_experts};
use crate::base::Base;
use crate::card::{card, modelfile};
use crate::error::{Error, Result};
use crate::form::{Experts, Form};
use crate::gguf::{ALIGNMENT, Info, header as gguf_header, lora_keys, model_keys};
use crate::merge::Merger;
use crate::plan::{self, OutTensor, Type, expert_site};
use crate::report::{Report, WeightRow};
use crate::shards;
use crate::survival::{Sums, share};
use crate::target::{REPORT_FILE, Target};

/// Files beside the weights that go along as they are, where the base has them.
const ALONG: [&str; 5] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
/// Longest of them.
const MAX_ALONG: u64 = 256 << 20;
/// Longest tensors of an adapter that are copied.
const MAX_ADAPTER: u64 = 1 << 36;

/// What to export.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The adapter's folder, PEFT's or mlx-lm's.
    pub adapter: &'a Path,
    /// The base model's folder; for adapters its configuration alone is read.
    pub model: &'a Path,
    /// What to write.
    pub form: Form,
    /// What becomes of experts that the update reaches, in `mxfp4` and `gguf`.
    pub experts: Experts,
    /// Where to.
    pub out: &'a Path,
    /// Whether an export that stands there is replaced.
    pub force: bool,
    /// Whether to write although the update does not survive, or the base has to be packed anew with a loss.
    pub allow_loss: bool,
}

/// How far an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes that will be written.
    Planned(u64),
    /// Bytes that were written, in all.
    Written(u64),
}

/// Writes an export. On an error nothing is left.
///
/// # Errors
/// A folder is wrong, the form cannot hold it, the update would not survive, something stands at the target, or the
/// system refuses.
pub fn export(job: &Job<'_>, watch: &mut dyn FnMut(Progress)) -> Result<Report> {
    let config = Config::from_dir(job.model)?;
    let adapter = descant_lora::read(job.adapter, &config)?;
    let name = adapter.base_model.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| {
        job.model.file_name().map_or_else(|| "gpt-oss".to_owned(), |name| name.to_string_lossy().into_owned())
    });
    let mut report = Report::new(job.form, name);
    report.passed_over.clone_from(&adapter.passed_over);
    report.changed = adapter.sites.len();
    if job.form.is_merged() {
        merged(job, config, adapter.sites, report, watch)
    } else {
        adapter_only(job, &config, &adapter, report, watch)
    }
}

/// The forms that hold the adapter alone.
fn adapter_only(
    job: &Job<'_>,
    config: &Config,
    adapter: &Folder,
    mut report: Report,
    watch: &mut dyn FnMut(Progress),
) -> Result<Report> {
    let sites = &adapter.sites;
    let rank = sites.values().map(|factors| factors.rank).max().unwrap_or_default();
    report.rank = Some(rank);
    let base = &report.base_model;
    let files: Vec<(String, Vec<u8>)> = match job.form {
        Form::Peft if adapter.writer == Writer::Peft => copied(job.adapter)?,
        Form::Peft => named(peft::files(config, base, sites)?.1),
        Form::PeftFolded => {
            named(peft::files(config, base, &with_both_experts(folded(sites, config), config))?.1)
        }
        Form::MlxAdapter => named(mlx::files(config, &folded(sites, config))?),
        _ => vec![(String::new(), lora_gguf(&folded(sites, config), config, base, rank))],
    };
    if crate::target::is_file(job.out) && job.form != Form::GgufLora {
        return Err(Error::Unsupported {
            reason: format!("{} is a folder, and --out names a .gguf file", job.form.name()),
        });
    }
    let bytes = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let mut target = Target::open(job.out, &[job.adapter, job.model], job.force, bytes)?;
    watch(Progress::Planned(bytes));
    report.tensors = sites.len() * 2;
    for (name, bytes) in files {
        let name = if name.is_empty() { target.file_name("adapter.gguf") } else { name };
        target.write(&name, &bytes)?;
        report.wrote(&name, bytes.len() as u64);
        watch(Progress::Written(report.bytes));
    }
    let name = target.beside(REPORT_FILE);
    target.write(&name, report.to_json().as_bytes())?;
    target.commit()?;
    Ok(report)
}

fn named(files: peft::Files) -> Vec<(String, Vec<u8>)> {
    files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

/// A PEFT folder's files as they are; it was read before, so they are right.
fn copied(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for (name, limit) in [
        (peft::CARD_FILE, MAX_CONFIG_BYTES),
        (peft::CONFIG_FILE, peft::MAX_CONFIG_BYTES),
        (peft::TENSORS_FILE, MAX_ADAPTER),
    ] {
        let path = dir.join(name);
        if name != peft::CARD_FILE || path.is_file() {
            files.push((name.to_owned(), descant_files::read_bounded(&path, limit)?));
        }
    }
    Ok(files)
}

/// The bytes of an adapter for llama.cpp.
fn lora_gguf(sites: &Sites, config: &Config, name: &str, rank: usize) -> Vec<u8> {
    const F32: u32 = 0;
    let tensors: Vec<_> = for_gguf(sites, config).collect();
    let infos = tensors.iter().map(|tensor| Info {
        name: &tensor.name,
        ne: tensor.shape.iter().rev().map(|&n| n as u64).collect(),
        kind: F32,
        bytes: 4 * tensor.values.len() as u64,
    });
    let mut out = gguf_header(&lora_keys(name, rank), infos);
    for tensor in tensors {
        out.extend(tensor.values.iter().flat_map(|x| x.to_le_bytes()));
        out.resize((out.len() as u64).next_multiple_of(ALIGNMENT) as usize, 0);
    }
    out
}

/// The forms that hold the merged model.
fn merged(
    job: &Job<'_>,
    config: Config,
    sites: Sites,
    mut report: Report,
    watch: &mut dyn FnMut(Progress),
) -> Result<Report> {
    let packed = job.form == Form::Mxfp4 || (job.form == Form::Gguf && job.experts != Experts::Bf16);
    if job.form == Form::Mxfp4 && job.experts == Experts::Bf16 {
        let reason =
            "mxfp4 has packed experts; for experts in BF16 choose bf16, or gguf --experts bf16".to_owned();
        return Err(Error::Unsupported { reason });
    }
    let base = Base::open(job.model)?;
    if packed && base.packing == Packing::Nf4 && !job.allow_loss {
        let reason = "the base is NF4, and packing its experts as MXFP4 loses some 10 % of every weight; choose bf16, \
                      gguf --experts bf16 or the adapter with the published model, or add --allow-loss"
            .to_owned();
        return Err(Error::Unsupported { reason });
    }
    let tensors = match job.form {
        Form::Bf16 => plan::unpacked(&config),
        Form::Mxfp4 => plan::published(&config, |part| {
            base.dtype(part).filter(|_| base.is_plain(part) && base.packing != Packing::Nf4)
        }),
        _ => plan::gguf(&config, packed),
    };
    report.experts = packed.then_some(job.experts);
    report.tensors = tensors.len();
    let keys = match job.form {
        Form::Gguf => Some(model_keys(job.model, &config, &report.base_model, packed)?),
        _ => None,
    };
    let along = if keys.is_some() { Vec::new() } else { along(job)? };
    if crate::target::is_file(job.out) && keys.is_none() {
        return Err(Error::Unsupported {
            reason: format!("{} is a folder, and --out names a .gguf file", job.form.name()),
        });
    }
    let bytes = tensors.iter().map(|tensor| tensor.bytes().next_multiple_of(ALIGNMENT)).sum();
    let mut target = Target::open(job.out, &[job.adapter, job.model], job.force, bytes)?;
    watch(Progress::Planned(bytes));
    let mut merger = Merger::new(base, sites, job.experts, job.allow_loss);
    report.changed = Part::all(&config).filter(|part| merger.reaches(*part)).count();
    let mut done = 0;
    for (name, bytes) in &along {
        target.write(name, bytes)?;
        report.wrote(name, bytes.len() as u64);
    }
    if let Some(keys) = keys {
        let name = target.file_name("model.gguf");
        let infos = tensors.iter().map(|tensor| Info {
            name: &tensor.name,
            ne: tensor.shape.iter().rev().map(|&n| n as u64).collect(),
            kind: ggml_type(tensor.kind),
            bytes: tensor.bytes(),
        });
        let mut file = Writing { file: target.start(&name)?, bytes: 0, done: &mut done, watch };
        file.append(&gguf_header(&keys, infos))?;
        for tensor in &tensors {
            file.tensor(&mut merger, tensor)?;
            let padding = file.bytes.next_multiple_of(ALIGNMENT) - file.bytes;
            file.append(&vec![0; padding as usize])?;
        }
        report.wrote(&name, file.finish()?);
        let text = modelfile(&name);
        let name = target.beside("Modelfile");
        target.write(&name, text.as_bytes())?;
        report.wrote(&name, text.len() as u64);
    } else {
        let shards = shards::shards(&tensors);
        for shard in &shards {
            let mut file = Writing { file: target.start(&shard.name)?, bytes: 0, done: &mut done, watch };
            file.append(&shards::header(shard.tensors))?;
            for tensor in shard.tensors {
                file.tensor(&mut merger, tensor)?;
            }
            report.wrote(&shard.name, file.finish()?);
        }
        if let Some(index) = shards::index(&shards) {
            let name = "model.safetensors.index.json";
            target.write(name, index.as_bytes())?;
            report.wrote(name, index.len() as u64);
        }
    }
    account(&mut report, &merger);
    if job.form != Form::Gguf {
        target.write(peft::CARD_FILE, card(&report).as_bytes())?;
    }
    let name = target.beside(REPORT_FILE);
    target.write(&name, report.to_json().as_bytes())?;
    target.commit()?;
    Ok(report)
}

/// GGML's number of a type.
fn ggml_type(kind: Type) -> u32 {
    match kind {
        Type::Plain(safetensors::Dtype::F32) => 0,
        Type::Plain(safetensors::Dtype::F16) => 1,
        Type::Plain(_) => 30,
        Type::GgmlMxfp4 => 39,
    }
}

/// A file that grows, and who watches.
struct Writing<'a> {
    file: Growing,
    bytes: u64,
    done: &'a mut u64,
    watch: &'a mut dyn FnMut(Progress),
}

impl Writing<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.append(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Writes a tensor, and sees that it has as many bytes as the header says.
    fn tensor(&mut self, merger: &mut Merger, tensor: &OutTensor) -> Result<()> {
        let before = self.bytes;
        merger.produce(tensor, &mut |bytes| {
            self.append(bytes)?;
            *self.done += bytes.len() as u64;
            (self.watch)(Progress::Written(*self.done));
            Ok(())
        })?;
        assert_eq!(self.bytes - before, tensor.bytes(), "bytes of {}", tensor.name);
        Ok(())
    }

    fn finish(self) -> Result<u64> {
        self.file.finish()?;
        Ok(self.bytes)
    }
}

/// The small files of a model's folder: the configuration, and what goes along as it is.
fn along(job: &Job<'_>) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = vec![("config.json".to_owned(), config_file(job)?)];
    for name in ALONG {
        let path = job.model.join(name);
        if path.is_file() {
            files.push((name.to_owned(), descant_files::read_bounded(&path, MAX_ALONG)?));
        }
    }
    Ok(files)
}

/// The base's configuration in its own spelling, but for what says how numbers are stored.
fn config_file(job: &Job<'_>) -> Result<Vec<u8>> {
    const QUANTIZATION: &str = "quantization_config";
    let path = job.model.join("config.json");
    let bytes = descant_files::read_bounded(&path, MAX_CONFIG_BYTES)?;
    let mut config: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Error::Beside { path: path.clone(), reason: error.to_string() })?;
    let Some(map) = config.as_object_mut() else {
        return Err(Error::Beside { path, reason: "is no object".to_owned() });
    };
    if job.form == Form::Bf16 {
        map.shift_remove(QUANTIZATION);
        // Old readers know the one, new ones both.
        for key in ["torch_dtype", "dtype"] {
            if key == "torch_dtype" || map.contains_key(key) {
                map.insert(key.to_owned(), json!("bfloat16"));
            }
        }
    } else if map.get(QUANTIZATION).is_none_or(|how| how["quant_method"] != "mxfp4") {
        map.insert(
            QUANTIZATION.to_owned(),
            json!({
                "modules_to_not_convert":
                    ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
                "quant_method": "mxfp4",
            }),
        );
    }
    Ok(format!("{config:#}\n").into_bytes())
}

/// Fills in what became of the weights.
fn account(report: &mut Report, merger: &Merger) {
    let (mut all, mut experts, mut worst) = (Sums::default(), Sums::default(), (-1.0, None));
    for (&site, outcome) in &merger.outcomes {
        let sums = outcome.sums;
        let survival = sums.survival();
        let repacked = survival.is_none() && sums.error > 0.0;
        if !outcome.updated && !repacked {
            continue;
        }
        let tensor = Part::weight(site).name();
        if outcome.updated {
            all += sums;
            if expert_site(Part::weight(site)).is_some() && sums.read.is_some() {
                experts += sums;
            }
        }
        if let Some(lost) = survival.and_then(|survival| survival.a_error)
            && lost > worst.0
        {
            worst = (lost, Some(tensor.clone()));
        }
        let repacked_error = repacked.then(|| share(sums.error, sums.weight));
        report.weights.push(WeightRow { tensor, survival, repacked_error });
    }
    // An error in the adapter's space means something for packed weights alone.
    all.read = None;
    report.survival = all.survival();
    report.experts_survival = experts.survival();
    report.worst = worst.1;
    report.rounded.clone_from(&merger.rounded);
}
