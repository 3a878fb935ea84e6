//! The end of a run: what is written to its folder, what is said, what is printed.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Result;
use descant_evaluate::Evaluations;
use descant_lora::peft::Manifest;
use serde_json::{Value, json};

use super::best;
use super::figures::Figures;
use super::in_fp8::InFp8;
use super::load::Chosen;
use super::room::{Room, in_use};
use crate::words::size;

use crate::observe::{Records, clock};
use crate::report::{
    HIT, Long, RunFiles, Sample, Way, card, collapse, compared, figures, key_figures, long_table, sparks,
    verdict, worse,
};
use crate::run_folder::{EVALUATION, RunFolder, SUMMARY};
use crate::settings::{Resolved, Settings};
use crate::talk::Talk;
use crate::words::{grouped, significant};
use crate::wrap::{hanging, wrap};

/// Version of the summary.
const VERSION: u32 = 2;

/// A part of a run, and how long it took.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) seconds: f64,
    /// Bytes that were planned for it, beside what was in use before the run.
    pub(crate) planned_memory_bytes: Option<u64>,
    /// Most bytes in use from the beginning to its end, where that is known.
    pub(crate) peak_memory_bytes: Option<u64>,
}

/// The parts of a run so far.
pub(crate) struct Phases<'a> {
    all: Vec<Phase>,
    began: Instant,
    device: &'a Chosen,
}

impl<'a> Phases<'a> {
    /// Of a run that began then.
    pub(crate) fn since(began: Instant, device: &'a Chosen) -> Self {
        Self { all: Vec::new(), began, device }
    }

    /// Ends a part for which so many bytes were planned, where they were; the next begins.
    pub(crate) fn end(&mut self, name: &'static str, planned: Option<u64>) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.all.push(Phase {
            name,
            seconds,
            planned_memory_bytes: planned,
            peak_memory_bytes: in_use(self.device),
        });
        self.began = Instant::now();
    }

    /// Those that have ended.
    pub(crate) fn all(&self) -> &[Phase] {
        &self.all
    }
}

/// Everything that is known when a run is over.
pub(crate) struct Outcome<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) resolved: &'a Resolved,
    pub(crate) folder: &'a RunFolder,
    pub(crate) manifest: &'a Manifest,
    pub(crate) records: &'a Records,
    pub(crate) measured: Option<&'a Figures>,
    pub(crate) wall_seconds: f64,
    pub(crate) phases: &'a [Phase],
    pub(crate) room: &'a Room,
    /// What steps did that multiplied with experts in fp8.
    pub(crate) in_fp8: Option<&'a InFp8>,
    /// Most bytes that were in use, where that is known.
    pub(crate) peak: Option<u64>,
}

/// Figures of a run.
pub(crate) struct Summary {
    first_loss: f32,
    last_loss: f32,
    tokens: usize,
    tokens_per_second: f64,
    /// Step and value of the least validation loss.
    best: Option<(u64, f32)>,
    hashes: Hashes,
}

/// SHA-256 of what no other file of the run names.
struct Hashes {
    data: Option<String>,
    program: Option<String>,
}

impl Hashes {
    fn find(settings: &Settings) -> Self {
        let of =
            |path: &std::path::Path| path.is_file().then(|| descant_files::sha256_file(path).ok()).flatten();
        Self {
            data: of(&settings.data.path),
            program: std::env::current_exe().ok().and_then(|path| of(&path)),
        }
    }
}

/// The command that comes next: to try the adapter, or, where the training shows nothing, to train harder.
fn next(outcome: &Outcome<'_>) -> String {
    let replies = outcome.measured.map_or(1, |measured| measured.evaluations.replies_each());
    let main = outcome.measured.and_then(|measured| measured.evaluations.main());
    let hit = main.and_then(|main| figures(main, replies).into_iter().find(|f| f.name == HIT));
    if hit
        .as_ref()
        .is_some_and(|figure| figure.way().is_some_and(|way| way != Way::Up) && figure.after.share() < 0.5)
    {
        let rate = 3.0 * outcome.settings.train.learning_rate;
        return format!(
            "descant train {} --set run.folder={}-next --set train.learning_rate={rate:e}",
            outcome.folder.join("config.toml").display(),
            outcome.folder.path().display()
        );
    }
    let with =
        format!("--model {} --adapter {}", outcome.resolved.model, outcome.folder.join("adapter").display());
    match hit {
        Some(_) => {
            format!("descant generate {with} --developer 'reasoning language: German' 'Solve 3x + 3 = 9.'")
        }
        None => format!("descant chat {with}"),
    }
}

impl Summary {
    /// Writes `evaluation.json`, then `summary.json`, then what is made of all files: `report.html` and the card.
    pub(crate) fn write(outcome: &Outcome<'_>) -> Result<Self> {
        let steps = outcome.records.steps();
        let tokens = steps.iter().map(|step| step.tokens).sum();
        let seconds = outcome.records.seconds();
        let summary = Self {
            first_loss: steps.first().map_or(f32::NAN, |step| step.loss),
            last_loss: steps.last().map_or(f32::NAN, |step| step.loss),
            tokens,
            tokens_per_second: if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 },
            best: outcome.records.best(),
            hashes: Hashes::find(outcome.settings),
        };
        let folder = outcome.folder;
        if let Some(measured) = outcome.measured {
            folder.write_json(EVALUATION, &measured.evaluations)?;
        }
        let json = summary.to_json(outcome);
        let mut run = RunFiles::read(folder.path())?;
        run.summary = Some(json.clone());
        super::pages::write(&run)?;
        let base = outcome.resolved.base_model();
        let on_hub = outcome.resolved.hub_name().is_some();
        let named = (on_hub || outcome.resolved.is_embedded_model()).then_some(base.as_str());
        let commit = outcome.resolved.base_commit();
        let license = outcome.settings.card.license.as_deref();
        let text = card(&run, named, commit.as_deref(), license);
        folder.write("adapter/README.md", text.as_bytes())?;
        // Last: whoever finds it knows that the run is done.
        folder.write_json(SUMMARY, &json)?;
        Ok(summary)
    }

    /// Verdict, table and last lines; verdict and table, or JSON, as data.
    pub(crate) fn print(&self, outcome: &Outcome<'_>, as_json: bool, table: bool, talk: Talk) -> Result<()> {
        if as_json {
            talk.data(self.to_json(outcome))?;
        } else {
            talk.say("");
            let long = Long::wanted(table, talk);
            talk.data(Self::result(outcome, talk.data_width(), long).trim_end())?;
        }
        talk.say("");
        if let Some(measured) = outcome.measured {
            // One is enough here: the report has the others.
            let shown = measured.samples(outcome.settings.evaluate.samples);
            let efforts = &outcome.settings.evaluate.efforts;
            let effort = efforts.get(efforts.len() / 2);
            let of_effort = |sample: &&Sample| Some(&sample.effort) == effort;
            if let Some(sample) = shown.iter().find(of_effort).or_else(|| shown.first()) {
                talk.say(format_args!("{}\n", compared(sample, talk.width()).trim_end()));
            }
            for line in measured.evaluations.evaluations.iter().flat_map(collapse) {
                talk.warn(line);
            }
        }
        for (label, text) in self.facts(outcome, talk.shows_utf8()) {
            talk.item(label, text);
        }
        if outcome.resolved.hub_name().is_none() && !outcome.resolved.is_embedded_model() {
            talk.warn(format_args!(
                "the adapter calls its base `{}`, after its folder; a hub needs base_model: set model.name = \
                 \"OWNER/NAME\" before you share the adapter",
                outcome.resolved.base_model()
            ));
        }
        talk.next(next(outcome));
        Ok(())
    }

    /// What the run is about: the verdict, the key figures of each suite, what got worse.
    fn result(outcome: &Outcome<'_>, width: usize, table: Long) -> String {
        let Some(measured) = outcome.measured else {
            return "Trained, not measured: there are no held-out prompts (data.held_out).\n".into();
        };
        let Evaluations { evaluations, .. } = &measured.evaluations;
        let replies = measured.evaluations.replies_each();
        let main = measured.evaluations.main().map(|main| figures(main, replies)).unwrap_or_default();
        let mut text = wrap(&verdict(&main), width).join("\n") + "\n\n";
        for evaluation in evaluations {
            if let Some(suite) = &evaluation.suite {
                let _ = writeln!(text, "{suite}");
            }
            text += &key_figures(evaluation, replies, width);
            text.push('\n');
            if table != Long::No {
                text += &long_table(evaluation, table);
                text.push('\n');
            }
            let worse = worse(evaluation);
            let after = evaluation.latest().replies;
            let nothing = format!("nothing of what was measured, in {} replies", grouped(after));
            let worse = if worse.is_empty() { nothing } else { worse.join("; ") };
            let _ = writeln!(text, "{}\n", hanging("worse", &worse, width));
        }
        text
    }

    /// What is below the sample: label and text.
    fn facts(&self, outcome: &Outcome<'_>, utf8: bool) -> Vec<(&'static str, String)> {
        let steps = outcome.records.steps();
        let curve = |values: Vec<f64>| if utf8 { format!(" {}", sparks(&values)) } else { String::new() };
        let losses = curve(steps.iter().map(|step| f64::from(step.loss)).collect());
        let held_out = outcome.measured.and_then(|measured| {
            let main = measured.evaluations.main()?;
            Some((main.before.loss.as_ref()?.all()?, main.after.as_ref()?.loss.as_ref()?.all()?))
        });
        let held_out = held_out.map_or_else(String::new, |(before, after)| {
            format!("; held out {} to {}", significant(before), significant(after))
        });
        let (first, last) = (f64::from(self.first_loss), f64::from(self.last_loss));
        let mut facts =
            vec![("loss", format!("{} to {}{losses}{held_out}", significant(first), significant(last)))];
        let first: Vec<f64> =
            steps.iter().filter_map(|step| step.first_analysis_loss).map(f64::from).collect();
        if let (Some(begin), Some(end)) = (first.first().copied(), first.last().copied()) {
            let text = format!("{} to {}{}", significant(begin), significant(end), curve(first));
            facts.push(("first token", text));
        }
        facts.push((
            "speed",
            format!(
                "{} tokens/s; {} of steps, {} in all",
                grouped(self.tokens_per_second as u64),
                clock(outcome.records.seconds()),
                clock(outcome.wall_seconds)
            ),
        ));
        facts.extend(outcome.peak.map(|peak| {
            ("memory", format!("{} at most, {} planned", size(peak), size(outcome.room.planned())))
        }));
        if let Some((step, loss)) = self.best {
            let folder = best::path(outcome.folder, step);
            facts.push(("best", format!("validation loss {loss:.4} at step {step}: {}", folder.display())));
        }
        facts.extend([
            ("adapter", outcome.folder.join("adapter").display().to_string()),
            ("report", outcome.folder.join("report.html").display().to_string()),
        ]);
        facts
    }

    fn to_json(&self, outcome: &Outcome<'_>) -> Value {
        let parts = outcome.room.parts().map(|(part, bytes)| json!({"part": part, "bytes": bytes}));
        let headline =
            outcome.measured.and_then(|m| m.evaluations.main()).and_then(|main| main.headline.clone());
        let best = self.best.map(|(step, loss)| {
            json!({"step": step, "validation_loss": loss, "adapter": best::path(outcome.folder, step)})
        });
        let measured = outcome.measured.iter().flat_map(|measured| &measured.evaluations.evaluations);
        let collapsed = measured.flat_map(collapse);
        let mut json = json!({
            "schema_version": VERSION,
            "run": outcome.folder.path(),
            "adapter": outcome.folder.join("adapter"),
            "settings_sha256": outcome.resolved.sha256,
            "data_sha256": self.hashes.data,
            "program_sha256": self.hashes.program,
            "trained_parameters": outcome.manifest.total,
            "steps": outcome.records.steps().len(),
            "first_loss": self.first_loss,
            "last_loss": self.last_loss,
            "tokens": self.tokens,
            "train_seconds": outcome.records.seconds(),
            "wall_seconds": outcome.wall_seconds,
            "phases": outcome.phases,
            "planned_memory_bytes": outcome.room.planned(),
            "planned_memory": parts.collect::<Vec<_>>(),
            "peak_memory_bytes": outcome.peak,
            "tokens_per_second": self.tokens_per_second,
            "headline": headline,
            "warnings": outcome.records.warnings().iter().cloned().chain(collapsed).collect::<Vec<_>>(),
        });
        if let Some(best) = best {
            json["best"] = best;
        }
        if let Some(in_fp8) = outcome.in_fp8 {
            json["experts"] = outcome.settings.train.experts.form().name().into();
            json["experts_in_bf16"] = in_fp8.names().into();
            json["experts_deviation"] = json!(in_fp8.deviation());
        }
        json
    }
}
