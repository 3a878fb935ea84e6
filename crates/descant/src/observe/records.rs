//! The run's own record: `metrics.jsonl`, which two equal runs share byte for byte, and `timing.jsonl`, which no
//! two runs share.
//!
//! One object a step, each with the version `v` of its form. A line is written whole, so that what is in the file
//! when a run is killed is true.

use std::path::Path;

use anyhow::Result;
use descant_files::Appender;
use descant_train::{Event, Observer, StepMetrics};
use serde::Serialize;

/// Version of both files' lines.
const VERSION: u32 = 1;

/// Writes both files, and remembers the losses for the report.
pub(crate) struct Records {
    metrics: Appender,
    timing: Appender,
    steps: Vec<StepMetrics>,
    seconds: f64,
    warnings: Vec<String>,
    failure: Option<anyhow::Error>,
}

#[derive(Serialize)]
struct Line<'a, T> {
    v: u32,
    #[serde(flatten)]
    step: &'a T,
}

impl Records {
    /// Starts both files in a run folder.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        Ok(Self {
            metrics: Appender::create(&folder.join("metrics.jsonl"))?,
            timing: Appender::create(&folder.join("timing.jsonl"))?,
            steps: Vec::new(),
            seconds: 0.0,
            warnings: Vec::new(),
            failure: None,
        })
    }

    /// The steps so far.
    pub(crate) fn steps(&self) -> &[StepMetrics] {
        &self.steps
    }

    /// Seconds spent in steps so far.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Warnings so far.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The first write that failed, if one did: an observer must not stop a run, so it is told here.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }
}

impl Observer for Records {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Step { metrics, timing, .. } => {
                let written = append(&mut self.metrics, *metrics);
                let written = written.and(append(&mut self.timing, timing));
                self.failure = self.failure.take().or(written.err());
                self.steps.push((*metrics).clone());
                self.seconds += timing.seconds;
            }
            Event::Warning(text) => self.warnings.push((*text).to_owned()),
            _ => {}
        }
    }
}

fn append<T: Serialize>(file: &mut Appender, step: &T) -> Result<()> {
    Ok(file.append(&serde_json::to_string(&Line { v: VERSION, step })?)?)
}

#[cfg(test)]
mod tests {
    use super::super::pace::tests::step;
    use super::*;

    #[test]
    fn metrics_hold_no_time_and_timing_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut records = Records::create(dir.path()).unwrap();
        for n in 1..=2 {
            let (metrics, timing) = step(n, 0.1);
            records.on(&Event::Step { metrics: &metrics, timing, total: 2 });
        }
        records.on(&Event::Warning("w"));
        records.check().unwrap();
        let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
        insta::assert_snapshot!(read("metrics.jsonl"), @r##"
        {"v":1,"step":1,"loss":0.1,"loss_bits":1036831949,"first_analysis_loss":12.6,"learning_rate":0.005,"grad_norm":1.0,"samples":16,"tokens":1000,"trained_tokens":400,"epoch":0.1}
        {"v":1,"step":2,"loss":0.1,"loss_bits":1036831949,"first_analysis_loss":null,"learning_rate":0.005,"grad_norm":1.0,"samples":16,"tokens":1000,"trained_tokens":400,"epoch":0.1}
        "##);
        insta::assert_snapshot!(read("timing.jsonl"), @r##"
        {"v":1,"step":1,"seconds":0.5,"tokens_per_second":2000.0}
        {"v":1,"step":2,"seconds":0.5,"tokens_per_second":2000.0}
        "##);
        assert_eq!((records.steps().len(), records.seconds()), (2, 1.0));
        assert_eq!(records.warnings(), ["w"]);
    }
}
