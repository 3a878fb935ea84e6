//! `descant export`: an adapter, or base and adapter merged, in the form that another program reads.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use descant_export::{Error, Experts, Form, Job, REPORT_FILE, Report, export, model_card};
use descant_lora::peft::CARD_FILE;

use super::load;
use super::prove::{self, Place};
use crate::cli::Export;
use crate::failure::{Exit, Hinted};
use crate::hub::Places;
use crate::observe::Writing;
use crate::report::export_table;
use crate::settings::{EMBEDDED_MODEL_NAME, Resolved, resolve};
use crate::signals::Signals;
use crate::talk::Talk;
use crate::words::is_hub_name;

/// The settings of the run that an adapter lies in, if it lies in one.
pub(crate) fn run_of(adapter: &Path, places: &Places) -> Result<Option<Resolved>> {
    // `train` writes the adapter next to the resolved settings and the identity of the run.
    let Some(folder) = adapter.parent() else { return Ok(None) };
    let settings = folder.join("config.toml");
    if !settings.is_file() || !folder.join("identity.json").is_file() {
        return Ok(None);
    }
    let mut resolved = resolve(Some(&settings), &[])?;
    places.settle(&mut resolved)?;
    Ok(Some(resolved))
}

/// Writes, proves, prints.
pub(crate) fn run(args: &Export, model: &Path, run: Option<&Resolved>, talk: Talk) -> Result<Exit> {
    load::check_dir(model)?;
    let rows = rows(args, run)?;
    talk.item("model", model.display());
    talk.item("adapter", args.adapter.display());
    let job = Job {
        experts: experts(args)?,
        force: args.force,
        allow_loss: args.allow_loss,
        ..Job::new(&args.adapter, model, args.to, &args.out)
    };
    // A signal ends it in between, so that nothing is left of what was not finished.
    let signals = Signals::catch()?;
    signals.hold();
    let stopped =
        || if signals.came().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let mut writing = Writing::new(talk);
    let written = export(&job, &mut |progress| {
        writing.on(progress);
        stopped()
    });
    writing.finish();
    let mut report = match written {
        Err(Error::Stopped) => {
            talk.say("stopped; nothing was written");
            return Ok(signals.came().unwrap_or(Exit::Interrupted));
        }
        other => other.map_err(|error| hinted(error, &job))?,
    };
    if let Some(rows) = rows {
        let settings = run.map(|run| run.settings.clone()).unwrap_or_default();
        let limit = match args.memory {
            Some(limit) => limit.bytes(),
            None => settings.memory.limit_and_keep()?.0,
        };
        let place = Place { device: &args.device.name, limit };
        let proof = prove::prove(&job, &report, &rows, settings, place, &stopped, talk);
        let Some(proof) = proof.context("the export is complete, but not verified")? else {
            talk.say("stopped; the export is complete, but not verified");
            return Ok(signals.came().unwrap_or(Exit::Interrupted));
        };
        report.proof = Some(proof);
        let path = report_path(&args.out);
        descant_files::write_atomic(&path, report.to_json().as_bytes()).with_context(|| {
            format!("the export is complete, but {} could not be updated", path.display())
        })?;
        if let Some(card) = model_card(&report).filter(|_| args.out.is_dir()) {
            let path = args.out.join(CARD_FILE);
            descant_files::write_atomic(&path, card.as_bytes()).with_context(|| {
                format!("the export is complete, but its card {} could not be updated", path.display())
            })?;
        }
    }
    if args.json {
        talk.data(report.to_json().trim_end())?;
    } else {
        talk.data(export_table(&report, &args.out, talk.data_width()))?;
    }
    for text in warnings(&report) {
        talk.warn(text);
    }
    Ok(match &report.proof {
        Some(proof) if !proof.passed => Exit::No,
        _ => Exit::Success,
    })
}

/// The rows to prove with, before anything is written.
fn rows(args: &Export, run: Option<&Resolved>) -> Result<Option<PathBuf>> {
    let Some(given) = &args.prove else { return Ok(None) };
    let held_out = || run.and_then(|run| run.settings.data.held_out.clone());
    // Without a value it is the run's own.
    let given = Some(given.clone()).filter(|path| !path.as_os_str().is_empty());
    let rows = given.or_else(held_out).ok_or_else(|| {
        Hinted::new(
            anyhow!("--prove has no rows: the adapter belongs to no run with held-out rows"),
            "write --prove FILE, a file of conversations as data.held_out takes it",
        )
    })?;
    if !rows.exists() {
        return Err(anyhow!("{}: no such file", rows.display()));
    }
    Ok(Some(rows))
}

fn report_path(out: &Path) -> PathBuf {
    if out.is_dir() { out.join(REPORT_FILE) } else { out.with_extension(REPORT_FILE) }
}

/// The rule for experts, which only some forms have.
fn experts(args: &Export) -> Result<Experts> {
    let form = args.to;
    match args.experts {
        Some(_) if !matches!(form, Form::Mxfp4 | Form::Gguf) => Err(Hinted::new(
            anyhow!("--experts says how mxfp4 and gguf write experts, and --to is {}", form.name()),
            "leave it out, or choose --to mxfp4 or --to gguf",
        )
        .into()),
        rule => Ok(rule.unwrap_or(Experts::Feedback)),
    }
}

/// What a reader must not miss.
fn warnings(report: &Report) -> Vec<String> {
    let mut all = Vec::new();
    let base = &report.base_model;
    if !is_hub_name(base) && base != EMBEDDED_MODEL_NAME {
        all.push(format!(
            "the export calls its base `{base}`, after its folder; a hub needs base_model: write OWNER/NAME in its place \
             before you share the export, or set model.name before you train"
        ));
    }
    if !report.passed_over.is_empty() {
        let names = report.passed_over.join(", ");
        all.push(format!("targets that match nothing in gpt-oss were passed over, as PEFT does: {names}"));
    }
    if let Some(first) = report.rounded.first() {
        let n = report.rounded.len();
        all.push(format!("{n} tensors that no update reaches lost digits to a narrower type, {first} first"));
    }
    let repacked: Vec<f64> = report.weights.iter().filter_map(|row| row.repacked_error).collect();
    if let Some(worst) = repacked.iter().copied().reduce(f64::max) {
        let n = repacked.len();
        all.push(format!(
            "{n} weights were packed as MXFP4 anew, with an error of up to {:.1} %",
            100.0 * worst
        ));
    }
    all
}

/// Advice for each way in which an export is refused.
fn hinted(error: Error, job: &Job<'_>) -> anyhow::Error {
    let hint = match &error {
        Error::Exists { .. } => "choose another --out, or add --force to replace an export",
        Error::Lost { .. } if job.experts == Experts::Nearest => {
            "choose --experts feedback, which keeps more; --to bf16, --to gguf --experts bf16 and the adapter itself \
             keep all of it; --allow-loss writes it all the same"
        }
        Error::Lost { .. } => {
            "choose --to bf16, --to gguf --experts bf16, or the adapter itself (peft-folded, gguf-lora, mlx-adapter), \
             which keep all of it; --allow-loss writes it all the same"
        }
        Error::Repacked { .. } => "choose --to bf16, or --to gguf --experts bf16, or add --allow-loss",
        Error::Room { .. } if job.form == Form::Bf16 => {
            "choose --out on a larger disk, or --to mxfp4, a third of the size"
        }
        Error::Room { .. } => "choose --out on a larger disk",
        _ => return error.into(),
    };
    Hinted::new(error, hint).into()
}
