//! The end of a run: what is written to its folder, what is said, what is printed.

use anyhow::Result;
use descant_lora::peft::Manifest;
use serde_json::{Value, json};

use super::measure::Measured;
use super::numbers::grouped;
use super::room::Room;
use crate::observe::{Records, clock};
use crate::report::{Page, Table, render, side_by_side};
use crate::run_folder::{RunFolder, SUMMARY};
use crate::settings::{Resolved, Settings};
use crate::talk::Talk;

/// Width of two columns where nobody says how wide the terminal is.
const WIDTH: usize = 100;
/// Version of `evaluation.json`, `samples.json` and the summary.
const VERSION: u32 = 1;

/// Everything that is known when a run is over.
pub(crate) struct Outcome<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) resolved: &'a Resolved,
    pub(crate) folder: &'a RunFolder,
    pub(crate) manifest: &'a Manifest,
    pub(crate) records: &'a Records,
    pub(crate) measured: Option<&'a Measured>,
    pub(crate) wall_seconds: f64,
    pub(crate) room: &'a Room,
    /// Most bytes that were in use, where that is known.
    pub(crate) peak: Option<u64>,
}

/// Figures of a run.
pub(crate) struct Summary {
    first_loss: f32,
    last_loss: f32,
    tokens: usize,
    tokens_per_second: f64,
}

impl Summary {
    /// Writes `samples.json`, `evaluation.json`, `report.html` and, last, `summary.json`.
    pub(crate) fn write(outcome: &Outcome<'_>) -> Result<Self> {
        let steps = outcome.records.steps();
        let tokens = steps.iter().map(|step| step.tokens).sum();
        let seconds = outcome.records.seconds();
        let summary = Self {
            first_loss: steps.first().map_or(f32::NAN, |step| step.loss),
            last_loss: steps.last().map_or(f32::NAN, |step| step.loss),
            tokens,
            tokens_per_second: if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 },
        };
        if let Some(measured) = outcome.measured {
            let samples = json!({"schema_version": VERSION, "samples": measured.samples});
            outcome.folder.write_json("samples.json", &samples)?;
            let evaluation = json!({
                "schema_version": VERSION,
                "before": measured.before,
                "after": measured.after,
            });
            outcome.folder.write_json("evaluation.json", &evaluation)?;
        }
        outcome.folder.write("report.html", summary.page(outcome).as_bytes())?;
        // Last: whoever finds it knows that the run is done.
        outcome.folder.write_json(SUMMARY, &summary.to_json(outcome))?;
        Ok(summary)
    }

    /// Samples and last lines as talk; table or JSON as data.
    pub(crate) fn print(&self, outcome: &Outcome<'_>, as_json: bool, talk: Talk) -> Result<()> {
        if let Some(measured) = outcome.measured {
            for effort in &outcome.settings.evaluate.efforts {
                if let Some(sample) = measured.samples.iter().find(|sample| sample.effort == *effort) {
                    talk.say(format_args!("\n{}", side_by_side(sample, WIDTH).trim_end()));
                }
            }
            talk.say("");
        }
        if as_json {
            talk.data(self.to_json(outcome))?;
        } else if let Some(measured) = outcome.measured {
            let evaluations =
                [("before", &measured.before.evaluation), ("after", &measured.after.evaluation)];
            talk.data(Table::new(&evaluations).to_text())?;
        }
        talk.say("");
        for (label, text) in self.facts(outcome) {
            talk.item(label, text);
        }
        talk.hint(format_args!(
            "descant generate --model {} --adapter {} 'Solve 3x + 3 = 9.'",
            outcome.resolved.model,
            outcome.folder.join("adapter").display()
        ));
        Ok(())
    }

    fn facts(&self, outcome: &Outcome<'_>) -> Vec<(&'static str, String)> {
        let mut facts = vec![(
            "loss",
            format!("{:.4} at the first step, {:.4} at the last", self.first_loss, self.last_loss),
        )];
        facts.extend(outcome.measured.map(|measured| {
            let (before, after) = (measured.before.loss, measured.after.loss);
            ("held out", format!("loss {before:.4} before, {after:.4} after"))
        }));
        facts.extend([
            (
                "training",
                format!(
                    "{} for {} tokens, {} tokens/s",
                    clock(outcome.records.seconds()),
                    grouped(self.tokens as u64),
                    grouped(self.tokens_per_second as u64)
                ),
            ),
            ("wall time", clock(outcome.wall_seconds)),
            ("adapter", outcome.folder.join("adapter").display().to_string()),
            ("report", outcome.folder.join("report.html").display().to_string()),
        ]);
        facts
    }

    fn page(&self, outcome: &Outcome<'_>) -> String {
        let settings = outcome.settings;
        let lora = &settings.lora;
        let mut facts = vec![
            ("model", settings.model.path.display().to_string()),
            ("data", settings.data.path.display().to_string()),
            (
                "trained",
                format!(
                    "{} parameters: LoRA r {}, alpha {} on {}",
                    grouped(outcome.manifest.total as u64),
                    lora.r,
                    lora.alpha,
                    lora.targets.join(", ")
                ),
            ),
        ];
        facts.extend(self.facts(outcome).into_iter().filter(|(label, _)| *label != "report"));
        facts.extend(outcome.records.warnings().iter().map(|warning| ("warning", warning.clone())));
        facts.push(("settings", format!("{} (sha256 {})", outcome.resolved.origin, outcome.resolved.sha256)));
        let evaluations: Vec<_> = outcome
            .measured
            .iter()
            .flat_map(|m| [("before", &m.before.evaluation), ("after", &m.after.evaluation)])
            .collect();
        render(&Page {
            title: &format!("Descant: {}", outcome.folder.path().display()),
            facts: &facts,
            steps: outcome.records.steps(),
            evaluations: &evaluations,
            samples: outcome.measured.map_or(&[], |measured| measured.samples.as_slice()),
            settings: &outcome.resolved.text,
        })
    }

    fn to_json(&self, outcome: &Outcome<'_>) -> Value {
        json!({
            "schema_version": VERSION,
            "run": outcome.folder.path(),
            "adapter": outcome.folder.join("adapter"),
            "settings_sha256": outcome.resolved.sha256,
            "trained_parameters": outcome.manifest.total,
            "steps": outcome.records.steps().len(),
            "first_loss": self.first_loss,
            "last_loss": self.last_loss,
            "tokens": self.tokens,
            "train_seconds": outcome.records.seconds(),
            "wall_seconds": outcome.wall_seconds,
            "planned_memory_bytes": outcome.room.planned(),
            "peak_memory_bytes": outcome.peak,
            "tokens_per_second": self.tokens_per_second,
            "before": outcome.measured.map(|measured| &measured.before),
            "after": outcome.measured.map(|measured| &measured.after),
        })
    }
}
