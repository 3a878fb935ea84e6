//! A run in the process that prints and writes: alone, or rank 0 of several.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use descant_lora::LoraAdapters;
use descant_lora::peft::Manifest;
use descant_model::GptOss;
use descant_train::checkpoint::{Checkpoint, Identity, Store};
use descant_train::fp8::Deviation;
use descant_train::{Ended, Event, Keeping, Observer as _, Watched, Workers, fit_kept};

use super::course::{course, validation};
use super::examining::Examining;
use super::hints::{explained, hinted};
use super::lines::{first_lines, going_on, several, stopped};
use crate::cards::{Begin, Shares, Team};
use crate::cli::Train;
use crate::command::account::DataAccount;
use crate::command::examination::Examination;
use crate::command::in_fp8::InFp8;
use crate::command::pages::Pages;
use crate::command::room::{Room, in_use};
use crate::command::stalls::Stalls;
use crate::command::summary::{Outcome, Phases, Summary};
use crate::command::{best, load};
use crate::experts::Loads;
use crate::failure::{Exit, Hinted};
use crate::observe::{Both, Progress, Records};
use crate::run_folder::{EXPERTS, RunFolder, SUMMARY};
use crate::settings::Resolved;
use crate::signals::Signals;
use crate::talk::Talk;

/// The run of the process that prints and writes.
pub(super) struct Writer<'a> {
    pub(super) args: &'a Train,
    pub(super) resolved: &'a Resolved,
    pub(super) device: &'a load::Chosen,
    pub(super) room: &'a Room,
    pub(super) in_fp8: Option<&'a InFp8>,
    pub(super) team: Option<&'a Team>,
    pub(super) signals: &'a Signals,
    pub(super) account: &'a DataAccount,
    pub(super) started: Instant,
    pub(super) talk: Talk,
}

impl Writer<'_> {
    pub(super) fn work(
        &self,
        model: &GptOss,
        samples: &dyn descant_train::Samples,
        watched: &[Watched],
        adapters: LoraAdapters,
        workers: Option<Workers<'_>>,
        examination: Option<&Examination<'_>>,
        identity: Identity,
    ) -> Result<Exit> {
        let &Self { args, resolved, device, room, in_fp8, team, signals, account, started, talk } = self;
        let settings = &resolved.settings;
        let manifest = adapters.manifest(&model.config);
        let folder =
            RunFolder::open(settings.run.folder.as_deref(), &resolved.model_name(), args.force, &identity)?;
        let summary = folder.read(SUMMARY)?;
        if let Some(team) = team {
            let begin = Begin { done: summary.is_some(), folder: absolute(folder.path())? };
            team.tell("begin", Some(begin))?;
        }
        if let Some(summary) = summary {
            return already_done(&folder, &summary, args.json, talk);
        }
        let store = Store { run: folder.path().to_owned(), identity, keep: settings.run.keep };
        #[cfg(feature = "cuda")]
        let _choices = crate::command::kept::keep_choices(&folder.join("choices"));
        let from = store.newest(&adapters, &mut |text| talk.warn(text)).map_err(hinted)?;
        describe(&folder, resolved, &manifest, account)?;
        first_lines(talk, resolved, device, model, in_fp8, &manifest, account, room, examination, &folder);
        if let Some(team) = team {
            several(team, device, room, talk);
        }
        going_on(&folder, from.as_ref(), talk);

        let mut progress = Progress::new(talk);
        let mut records = records(&folder, from.as_ref())?;
        progress.replay(records.told());
        let past = records.validations();
        let mut phases = Phases::since(started, device);
        phases.end("reading and loading", room.planned_load());
        let asked = examination.is_some().then(|| room.planned_for(room.prompts()));
        let mut pages = Pages::new(folder.path());
        let mut shares = Shares::default();
        let mut kept = Both(&mut records, &mut pages);
        let mut kept = Both(&mut shares, &mut kept);
        let mut observer = Both(&mut progress, &mut kept);
        if let Some(warning) = in_fp8.and_then(InFp8::deviation).and_then(Deviation::warning) {
            observer.on(&Event::Warning(&warning));
        }
        let group = team.map(|team| &team.group);
        let examining =
            examination.map(|examination| Examining { examination, resolved, folder: &folder, group });
        let before =
            examining.as_ref().map(|examining| examining.before(model, &mut observer)).transpose()?;
        phases.end("questions before", asked);
        signals.hold_steps(talk);
        let course = course(model, samples, settings, room, workers);
        let best = |step: u64, adapters: &LoraAdapters| {
            best::keep(&folder, step, adapters, &model.config, resolved).map_err(best::refused)
        };
        let stalls = Stalls::new();
        let keeping = Keeping {
            store: &store,
            every: settings.run.save_every,
            from,
            stop: &|| signals.came().is_some() || stalls.come(talk),
            validation: validation(settings, watched, past, &best),
        };
        let ended = fit_kept(course, adapters, keeping, &mut observer).map_err(|e| explained(e, device))?;
        signals.release();
        let trained_in = in_use(device);
        phases.end("steps and saving", Some(room.planned_for(room.steps())));
        let adapters = match ended {
            Ended::Done(adapters) => adapters,
            Ended::Stopped { step } => {
                progress.finish();
                return stopped(step, signals, &stalls, settings, talk);
            }
        };
        let saved = folder.join("adapter");
        let adapters = saved_and_read_back(&adapters, &saved, model, resolved)?;
        let measured = match examining.zip(before) {
            Some((examining, before)) => {
                Some(examining.after(before, model, &adapters, &saved, &mut observer)?)
            }
            None => None,
        };
        phases.end("questions after", asked);
        count_experts(model, &adapters, samples, &folder, talk)?;
        phases.end("counting experts", None);
        progress.finish();
        if let Some(words) = shares.words() {
            talk.item("processes", words);
        }
        records.finish()?;
        let outcome = Outcome {
            settings,
            resolved,
            folder: &folder,
            manifest: &manifest,
            records: &records,
            measured: measured.as_ref(),
            wall_seconds: started.elapsed().as_secs_f64(),
            phases: phases.all(),
            room,
            in_fp8,
            peak: trained_in.max(in_use(device)),
        };
        let summary = Summary::write(&outcome)?;
        summary.print(&outcome, args.json, args.table, talk)?;
        Ok(Exit::Success)
    }
}

/// Writes what is known of a run before its first step.
fn describe(
    folder: &RunFolder,
    resolved: &Resolved,
    manifest: &Manifest,
    account: &DataAccount,
) -> Result<()> {
    folder.write("config.toml", resolved.text.as_bytes())?;
    folder.write_json("manifest.json", manifest)?;
    folder.write_json("data.json", &account.to_json())
}

/// Writes the adapter. What is measured is what was written, so it is read back from its files.
fn saved_and_read_back(
    adapters: &LoraAdapters,
    saved: &Path,
    model: &GptOss,
    resolved: &Resolved,
) -> Result<LoraAdapters> {
    if saved.exists() {
        // Of a process that was stopped while it measured; what is written now is the same.
        descant_files::remove(saved)?;
    }
    best::save(adapters, saved, &model.config, resolved)?;
    Ok(LoraAdapters::load_peft(saved, &model.config, model.device())?)
}

/// Writes where tokens go among the experts, before and after. The run is whole without it.
fn count_experts(
    model: &GptOss,
    adapters: &LoraAdapters,
    samples: &dyn descant_train::Samples,
    folder: &RunFolder,
    talk: Talk,
) -> Result<()> {
    match Loads::count(model, adapters, samples) {
        Ok(loads) => folder.write_json(EXPERTS, &loads)?,
        Err(error) => talk.warn(format_args!("the load of the experts was not counted: {error:#}")),
    }
    Ok(())
}

/// The records of a run, as far as its checkpoint knows them.
fn records(folder: &RunFolder, from: Option<&Checkpoint>) -> Result<Records> {
    let logs = from.map(|checkpoint| checkpoint.logs.clone()).unwrap_or_default();
    Records::open(folder.path(), &logs).map_err(|error| match from {
        Some(_) => Hinted::new(error, "put the file back as it was, or --force begins the run again").into(),
        None => error,
    })
}

/// A path that other processes can use, whatever folder they are in.
fn absolute(path: &Path) -> Result<std::path::PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
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
