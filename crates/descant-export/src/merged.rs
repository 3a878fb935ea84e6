//! The forms that hold the merged model.

use descant_lora::peft::{self, Sites};
use descant_model::{Config, MAX_CONFIG_BYTES, Part};
use descant_quant::Packing;
use serde_json::{Value, json};

use crate::base::Base;
use crate::card::{model_card, modelfile};
use crate::error::{Error, Result};
use crate::form::{Experts, Form};
use crate::gguf::{self, ALIGNMENT, Info, header as gguf_header, model_keys};
use crate::job::{Job, Progress, Watch};
use crate::merge::Merger;
use crate::plan::{self, OutTensor, expert_site};
use crate::report::{Report, WeightRow};
use crate::shards;
use crate::survival::{Sums, share};
use crate::target::{MODELFILE, Target};
use crate::writing::{Writing, finished, ggml_type, tell};

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

/// Writes one of them.
pub(crate) fn merged(
    job: &Job<'_>,
    config: Config,
    sites: Sites,
    mut report: Report,
    watch: &mut Watch<'_>,
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
    let along = if keys.is_some() { Vec::new() } else { along(job, &report.base_model)? };
    if crate::target::is_file(job.out) && keys.is_none() {
        return Err(Error::Unsupported {
            reason: format!("{} is a folder, and --out names a .gguf file", job.form.name()),
        });
    }
    let bytes: u64 = tensors.iter().map(|tensor| tensor.bytes().next_multiple_of(ALIGNMENT)).sum();
    let header = keys.map(|keys| header(&keys, &tensors));
    let small =
        along.iter().map(|(_, bytes)| bytes).chain(&header).map(|bytes| bytes.len() as u64).sum::<u64>();
    let mut target = Target::open(job.out, &[job.adapter, job.model], job.force, bytes + small)?;
    tell(watch, Progress::Planned(bytes))?;
    let mut merger = Merger::new(base, sites, job.experts, job.allow_loss);
    report.changed = Part::all(&config).filter(|part| merger.reaches(*part)).count();
    let mut done = 0;
    for (name, bytes) in &along {
        target.write(name, bytes)?;
        report.wrote(name, bytes.len() as u64);
    }
    if let Some(header) = header {
        let name = target.file_name("model.gguf");
        let mut file = Writing { file: target.start(&name)?, bytes: 0, done: &mut done, watch };
        file.append(&header)?;
        for tensor in &tensors {
            file.tensor(&mut merger, tensor)?;
            let padding = file.bytes.next_multiple_of(ALIGNMENT) - file.bytes;
            file.append(&vec![0; padding as usize])?;
        }
        report.wrote(&name, file.finish()?);
        let text = modelfile(&name);
        let name = target.beside(MODELFILE);
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
    if let Some(card) = model_card(&report).filter(|_| !crate::target::is_file(job.out)) {
        target.write(peft::CARD_FILE, card.as_bytes())?;
    }
    finished(target, report)
}

/// The beginning of a GGUF file.
fn header(keys: &[(String, gguf::Value)], tensors: &[OutTensor]) -> Vec<u8> {
    let infos = tensors.iter().map(|tensor| Info {
        name: &tensor.name,
        ne: tensor.shape.iter().rev().map(|&n| n as u64).collect(),
        kind: ggml_type(tensor.kind),
        bytes: tensor.bytes(),
    });
    gguf_header(keys, infos)
}

/// The small files of a model's folder: the configuration, and what goes along as it is.
fn along(job: &Job<'_>, base: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = vec![("config.json".to_owned(), config_file(job, base)?)];
    for name in ALONG {
        let path = job.model.join(name);
        if path.is_file() {
            files.push((name.to_owned(), descant_files::read_bounded(&path, MAX_ALONG)?));
        }
    }
    Ok(files)
}

/// The base's configuration in its own spelling, but for what says how numbers are stored, and where it once was.
fn config_file(job: &Job<'_>, base: &str) -> Result<Vec<u8>> {
    const QUANTIZATION: &str = "quantization_config";
    let path = job.model.join("config.json");
    let bytes = descant_files::read_bounded(&path, MAX_CONFIG_BYTES)?;
    let mut config: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Error::Beside { path: path.clone(), reason: error.to_string() })?;
    let Some(map) = config.as_object_mut() else {
        return Err(Error::Beside { path, reason: "is not an object".to_owned() });
    };
    if let Some(place) = map.get_mut("_name_or_path").filter(|place| place.is_string()) {
        *place = base.into();
    }
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
