//! `descant train`: samples and measures before, training, adapter, samples and measures after, report.
//!
//! Everything that can be wrong with settings and data is found before the run folder is made and before the model
//! is asked anything.

use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use descant_harmony::Renderer;
use descant_lora::LoraAdapters;
use descant_lora::peft::Manifest;
use descant_model::{Bare, GptOss};
use descant_train::fit;

use super::account::DataAccount;
use super::measure::{Examination, Measured};
use super::summary::{Outcome, Summary};
use super::{load, rows};
use crate::cli::Train;
use crate::failure::{Exit, Hinted};
use crate::observe::{Both, Progress, Records};
use crate::run_folder::RunFolder;
use crate::settings::Resolved;
use crate::talk::Talk;

/// Prints the settings that would hold.
pub(crate) fn dry_run(resolved: &Resolved, talk: Talk) -> Result<Exit> {
    talk.data(resolved.text.trim_end())?;
    talk.say(format_args!("settings of {} hold; nothing was trained", resolved.origin));
    Ok(Exit::Success)
}

/// The main job.
pub(crate) fn run(args: &Train, resolved: &Resolved, talk: Talk) -> Result<Exit> {
    let settings = &resolved.settings;
    let started = Instant::now();
    let device = load::device(&settings.model.device)?;
    let dir = settings.model.path.as_path();
    load::check_dir(dir)?;
    let renderer = Renderer::load(dir, settings.model.chat_template.as_deref())
        .with_context(|| format!("model {}", dir.display()))?;
    if settings.data.path.as_os_str().is_empty() {
        return Err(Hinted::new(anyhow!("data.path is not set"), "write --set data.path=FILE").into());
    }
    let (samples, account) = rows::samples(settings, &settings.data.path, &renderer)?;
    let held_out = settings.data.held_out.as_deref();
    let examination = held_out.map(|path| Examination::new(settings, path, &renderer)).transpose()?;
    let model = load::model(dir, &device.device)?;
    let trained = device.device.clone().autodiff();
    let adapters = LoraAdapters::init(&model.config, &settings.lora, settings.train.seed, &trained)?;
    let manifest = adapters.manifest(&model.config);
    let folder = RunFolder::create(settings.run.folder.as_deref(), &resolved.model_name(), args.force)?;
    folder.write("config.toml", resolved.text.as_bytes())?;
    folder.write_json("manifest.json", &manifest)?;
    folder.write_json("data.json", &account.to_json())?;
    first_lines(talk, resolved, &device, &model, &manifest, &account, &folder);

    let mut progress = Progress::new(talk);
    let mut records = Records::create(folder.path())?;
    let mut observer = Both(&mut progress, &mut records);
    let before = match &examination {
        Some(examination) => Some(examination.ask("before", &model, &Bare, &mut observer)?),
        None => None,
    };
    let adapters = fit(&model, adapters, &samples, &settings.train, &mut observer)?;
    let saved = folder.join("adapter");
    adapters.save_peft(&saved, &model.config, &resolved.base_model())?;
    // What is measured is what was written: the adapter is read back from its files.
    let adapters = LoraAdapters::load_peft(&saved, &model.config, model.device())?;
    let after = match &examination {
        Some(examination) => Some(examination.ask("after", &model, &adapters, &mut observer)?),
        None => None,
    };
    progress.finish();
    records.check()?;
    let measured =
        examination.as_ref().zip(before.zip(after)).map(|(examination, (before, after))| Measured {
            samples: examination.samples(&before.replies, &after.replies),
            before: before.marks,
            after: after.marks,
        });
    let outcome = Outcome {
        settings,
        resolved,
        folder: &folder,
        manifest: &manifest,
        records: &records,
        measured: measured.as_ref(),
        wall_seconds: started.elapsed().as_secs_f64(),
    };
    let summary = Summary::write(&outcome)?;
    summary.print(&outcome, args.json, talk)?;
    Ok(Exit::Success)
}

/// What is going to happen.
fn first_lines(
    talk: Talk,
    resolved: &Resolved,
    device: &load::Chosen,
    model: &GptOss,
    manifest: &Manifest,
    data: &DataAccount,
    folder: &RunFolder,
) {
    let settings = &resolved.settings;
    let (config, train, lora) = (&model.config, &settings.train, &settings.lora);
    let account = &data.account;
    let total = account.tokens.total();
    let experts = if config.mxfp4 { "MXFP4 experts" } else { "unpacked experts" };
    talk.item(
        "model",
        format_args!(
            "{} ({} layers, {} experts, {experts})",
            resolved.model, config.num_hidden_layers, config.num_local_experts
        ),
    );
    talk.item("device", &device.why);
    talk.item(
        "trained",
        format_args!(
            "{} of {} parameters: LoRA r {}, alpha {} on {}",
            grouped(manifest.total as u64),
            grouped(load::n_parameters(config)),
            lora.r,
            lora.alpha,
            lora.targets.join(", ")
        ),
    );
    talk.item(
        "data",
        format_args!(
            "{} examples ({}), {} tokens, {} of them trained ({})",
            grouped(data.examples()),
            data.form(),
            grouped(total.tokens),
            grouped(total.trained),
            settings.data.mask
        ),
    );
    talk.item("channels", data.channels());
    if let Some(languages) = data.stated_languages() {
        talk.item("languages", languages);
    }
    talk.item("template", data.template());
    for (count, what) in [
        (account.rejects.count, "bad rows were left out"),
        (account.duplicates, "duplicates were left out"),
        (account.dropped, "too long ones were left out"),
        (account.cut, "were cut at a message"),
        (account.empty, "in which nothing is trained were left out"),
    ] {
        if count > 0 {
            talk.warn(format_args!("{} {what}", grouped(count)));
        }
    }
    for reject in account.rejects.first.iter().take(3) {
        talk.warn(format_args!("row {}: {}", reject.number, reject.reason));
    }
    let units = (train.micro_batch * train.accumulation) as f64;
    let (what, tokens) = if train.packing {
        ("packed sequences", train.max_sequence as f64)
    } else {
        ("examples", total.tokens as f64 / data.examples().max(1) as f64)
    };
    let about = if train.packing { "up to" } else { "about" };
    talk.item(
        "steps",
        format_args!(
            "{} x {units} {what}, {about} {} tokens a step",
            train.max_steps,
            grouped((units * tokens) as u64)
        ),
    );
    let hash = resolved.sha256.get(..12).unwrap_or_default();
    talk.item("settings", format_args!("{} (sha256 {hash})", resolved.origin));
    talk.item("seed", train.seed);
    talk.item("run", folder.path().display());
    talk.detail(format_args!("\n{}", resolved.text));
}

/// Digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_threes() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (3_981_312, "3,981,312")] {
            assert_eq!(grouped(number), text);
        }
    }
}
