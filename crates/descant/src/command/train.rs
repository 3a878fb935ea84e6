//! `descant train`: samples and measures before, training, adapter, samples and measures after, report.
//!
//! Everything that can be wrong with settings and data is found before the run folder is made and before the model
//! is asked anything. The same command again goes on where a stopped run's newest checkpoint is, or does what was
//! left to do after its last step.

use std::time::Instant;

use anyhow::{Context as _, Result};
use descant_lora::LoraAdapters;
use descant_lora::peft::Manifest;
use descant_model::{Bare, GptOss};
use descant_train::checkpoint::{Checkpoint, Store};
use descant_train::{Course, Ended, Error, Keeping, Observer, fit_kept};

use super::account::DataAccount;
use super::identity::identity;
use super::measure::{Answers, Examination, Measured};
use super::numbers::grouped;
use super::room::{Found, Room, in_use};
use super::summary::{Outcome, Summary};
use super::{load, rows};
use crate::cli::Train;
use crate::failure::{Exit, Hinted};
use crate::observe::{Both, Progress, Records};
use crate::run_folder::{RunFolder, SUMMARY};
use crate::settings::{Memory, Resolved, Settings};
use crate::signals::Signals;
use crate::talk::Talk;

/// What the base answered.
const BEFORE: &str = "before.json";

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
    let signals = Signals::catch()?;
    if let Some(folder) = &settings.run.folder {
        RunFolder::refuse_if_held(folder)?;
    }
    let device = load::device(&settings.model.device)?;
    let dir = settings.model.path.as_path();
    let renderer = load::renderer(settings)?;
    let (samples, account) = rows::training(settings, &renderer)?;
    let held_out = settings.data.held_out.as_deref();
    let examination = held_out.map(|path| Examination::new(settings, path, &renderer)).transpose()?;
    let config = load::config(dir)?;
    let asking = examination.as_ref().map(Examination::asking);
    let room = Room::find(settings, &config, &samples, asking, &Found::by(settings, &device)?)?;
    room.refuse(&device)?;
    let model = load::model(dir, &device.device)?;
    use_memory(settings, &device, &model, talk)?;
    let trained = device.device.clone().autodiff();
    let adapters = LoraAdapters::init(&model.config, &settings.lora, settings.train.seed, &trained)?;
    let manifest = adapters.manifest(&model.config);
    let identity = identity(resolved, dir, &samples, &device.name)?;
    let folder =
        RunFolder::open(settings.run.folder.as_deref(), &resolved.model_name(), args.force, &identity)?;
    if let Some(summary) = folder.read(SUMMARY)? {
        return already_done(&folder, &summary, args.json, talk);
    }
    let store = Store { run: folder.path().to_owned(), identity, keep: settings.run.keep };
    #[cfg(feature = "cuda")]
    super::kept::keep_choices(&folder.join("choices"));
    let from = store.newest(&adapters, &mut |text| talk.warn(text)).map_err(hinted)?;
    folder.write("config.toml", resolved.text.as_bytes())?;
    folder.write_json("manifest.json", &manifest)?;
    folder.write_json("data.json", &account.to_json())?;
    first_lines(talk, resolved, &device, &model, &manifest, &account, &room, &folder);
    going_on(&folder, from.as_ref(), talk);

    let mut progress = Progress::new(talk);
    let logs = from.as_ref().map(|checkpoint| checkpoint.logs.clone()).unwrap_or_default();
    let damaged = |error| match from {
        Some(_) => Hinted::new(error, "put the file back as it was, or --force begins the run again").into(),
        None => error,
    };
    let mut records = Records::open(folder.path(), &logs).map_err(damaged)?;
    progress.replay(records.told());
    let mut observer = Both(&mut progress, &mut records);
    let before = match &examination {
        Some(examination) => Some(asked_once(examination, &folder, &model, &mut observer)?),
        None => None,
    };
    signals.hold();
    let course = Course { model: &model, samples: &samples, config: &settings.train, guard: &settings.guard };
    let stop = || signals.came().is_some();
    let keeping = Keeping { store: &store, every: settings.run.save_every, from, stop: &stop };
    let ended = fit_kept(course, adapters, keeping, &mut observer).map_err(hinted)?;
    signals.release();
    let trained_in = in_use(&device);
    let adapters = match ended {
        Ended::Done(adapters) => adapters,
        Ended::Stopped { step } => {
            progress.finish();
            let left = settings.train.max_steps - step;
            talk.warn(format_args!("stopped after step {step}, which is saved; {left} are left"));
            talk.hint("the same command again goes on from there");
            return Ok(signals.came().unwrap_or(Exit::Interrupted));
        }
    };
    let saved = folder.join("adapter");
    if saved.exists() {
        // Of a process that was stopped while it measured; what is written now is the same.
        descant_files::remove(&saved)?;
    }
    adapters.save_peft(&saved, &model.config, &resolved.base_model())?;
    // What is measured is what was written: the adapter is read back from its files.
    let adapters = LoraAdapters::load_peft(&saved, &model.config, model.device())?;
    let after = match &examination {
        Some(examination) => Some(examination.ask("after", &model, &adapters, &mut observer)?),
        None => None,
    };
    progress.finish();
    records.finish()?;
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
        room: &room,
        peak: trained_in.max(in_use(&device)),
    };
    let summary = Summary::write(&outcome)?;
    summary.print(&outcome, args.json, talk)?;
    Ok(Exit::Success)
}

/// Tells the model how much of its device it may use; says where that has no meaning.
fn use_memory(settings: &Settings, device: &load::Chosen, model: &GptOss, talk: Talk) -> Result<()> {
    let memory = &settings.memory;
    if descant_kernels::is_cpu(&device.device) && memory.keep != Memory::default().keep {
        talk.warn("memory.keep is about a card; the device is the CPU, where all that is needed is kept");
    }
    let (limit, keep) = memory.limit_and_keep()?;
    model.workspace().set(limit, keep);
    Ok(())
}

/// What the base answers; an earlier process of the run may have asked already.
fn asked_once(
    examination: &Examination<'_>,
    folder: &RunFolder,
    model: &GptOss,
    observer: &mut dyn Observer,
) -> Result<Answers> {
    if let Some(kept) = folder.read(BEFORE)? {
        return Answers::from_json(&kept).with_context(|| folder.join(BEFORE).display().to_string());
    }
    let answers = examination.ask("before", model, &Bare, observer)?;
    folder.write(BEFORE, &answers.to_json())?;
    Ok(answers)
}

/// The run was finished by an earlier process: nothing is left to do.
fn already_done(folder: &RunFolder, summary: &[u8], as_json: bool, talk: Talk) -> Result<Exit> {
    if as_json {
        let value: serde_json::Value =
            serde_json::from_slice(summary).with_context(|| folder.join(SUMMARY).display().to_string())?;
        talk.data(value)?;
    }
    talk.item("run", format_args!("{} is done", folder.path().display()));
    talk.item("report", folder.join("report.html").display());
    talk.hint("set run.folder to another one for another run, or --force to make this one again");
    Ok(Exit::Success)
}

/// Says what an earlier process of the run left.
fn going_on(folder: &RunFolder, from: Option<&Checkpoint>, talk: Talk) {
    if let Some(holder) = folder.left_by() {
        talk.warn(format_args!("{holder} was at work here and ended without a word"));
    }
    match from {
        Some(checkpoint) => {
            talk.item("goes on", format_args!("after step {}", checkpoint.trainer.steps));
        }
        None if folder.goes_on => talk.item("goes on", "from the start: no step was saved"),
        None => {}
    }
}

/// What can be done about a run that cannot go on.
fn hinted(error: Error) -> anyhow::Error {
    let hint = match &error {
        Error::NotFinite { .. } => {
            "the incident file says where it begins; lower train.learning_rate for a new run, or leave such steps out \
             with --set guard.skip_non_finite=N"
        }
        Error::NoRoom { .. } => {
            "make room and give the same command again: it goes on from the last checkpoint"
        }
        Error::NoneWhole { .. } => "--force begins the run again",
        Error::OtherRun { .. } => {
            "set run.folder to another one for this run, or --force to replace that one"
        }
        _ => return error.into(),
    };
    Hinted::new(error, hint).into()
}

/// What is going to happen.
fn first_lines(
    talk: Talk,
    resolved: &Resolved,
    device: &load::Chosen,
    model: &GptOss,
    manifest: &Manifest,
    data: &DataAccount,
    room: &Room,
    folder: &RunFolder,
) {
    let settings = &resolved.settings;
    let (config, train, lora) = (&model.config, &settings.train, &settings.lora);
    let account = &data.account;
    let total = account.tokens.total();
    let experts = match (config.mxfp4, config.nf4) {
        (true, _) => "MXFP4 experts",
        (_, true) => "experts unpacked from NF4",
        _ => "unpacked experts",
    };
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
    talk.item("memory", room.line());
    let hash = resolved.sha256.get(..12).unwrap_or_default();
    talk.item("settings", format_args!("{} (sha256 {hash})", resolved.origin));
    talk.item("seed", train.seed);
    talk.item("run", folder.path().display());
    talk.detail(format_args!("\n{}", resolved.text));
}
