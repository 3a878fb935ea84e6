//! `descant evaluate`: asks the held-out prompts of a model, with or without an adapter.

use anyhow::{Result, anyhow};
use descant_train::measure::{Asked, Evaluation};
use serde_json::json;

use super::load;
use super::measure::Examination;
use crate::cli::Evaluate;
use crate::failure::{Exit, Hinted};
use crate::observe::Progress;
use crate::report::Table;
use crate::settings::Resolved;
use crate::talk::Talk;

/// Loads, asks, prints.
pub(crate) fn run(args: &Evaluate, resolved: &Resolved, talk: Talk) -> Result<Exit> {
    let settings = &resolved.settings;
    let held_out =
        settings.data.held_out.as_deref().ok_or_else(|| {
            Hinted::new(anyhow!("data.held_out is not set"), "write --set data.held_out=FILE")
        })?;
    let device = load::device(&settings.model.device)?;
    let renderer = load::renderer(settings)?;
    let examination = Examination::new(settings, held_out, &renderer)?;
    let model = load::model(&settings.model.path, &device.device)?;
    let overlay = load::overlay(args.adapter.as_deref(), &model)?;
    talk.item("model", &resolved.model);
    talk.item("adapter", args.adapter.as_ref().map_or("none".into(), |dir| dir.display().to_string()));
    talk.item("device", &device.why);
    let template = renderer.template();
    talk.item("template", format_args!("{} (sha256 {})", template.source(), template.sha256()));
    talk.item("held out", format_args!("{} prompts of {}", examination.prompts().len(), held_out.display()));
    let name = if args.adapter.is_some() { "adapter" } else { "base" };
    let mut progress = Progress::new(talk);
    let marks = examination.ask(name, &model, &*overlay, &mut progress)?.marks;
    progress.finish();
    talk.item("held out", format_args!("loss {:.4}", marks.loss));
    if args.json {
        talk.data(json!({
            "schema_version": 1,
            "model": resolved.model,
            "adapter": args.adapter,
            "settings_sha256": resolved.sha256,
            "template_sha256": renderer.template().sha256(),
            "loss": marks.loss,
            "cells": marks.evaluation.cells,
        }))?;
    } else {
        talk.data(Table::new(&[(name, &marks.evaluation)]).to_text())?;
    }
    Ok(answer(&marks.evaluation, args.at_least, talk))
}

/// Whether every cell reaches the limit; says which does not.
fn answer(evaluation: &Evaluation, at_least: Option<u8>, talk: Talk) -> Exit {
    let mut exit = Exit::Success;
    for cell in &evaluation.cells {
        let share = cell.percent(cell.hit);
        if at_least.is_some_and(|limit| share < f64::from(limit)) && !matches!(cell.asked, Asked::Language(_))
        {
            let asked = if cell.asked == Asked::Nothing { "English unasked" } else { "the language asked" };
            talk.warn(format_args!("{} effort: {asked} in {share:.1} % only", cell.effort));
            exit = Exit::No;
        }
    }
    exit
}
