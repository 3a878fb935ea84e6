//! The run's own record: `metrics.jsonl` and `gradients.jsonl`, which two equal runs share byte for byte, and
//! `timing.jsonl`, which no two runs share.
//!
//! One object a line, each with the version `v` of its form: a step, or one of the steps at which gradients are
//! looked at. A line is written whole, so that what is in the file when a run is killed is true. A run
//! that continues cuts all of them to what its checkpoint knows, and reads the steps back.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use descant_files::Appender;
use descant_train::checkpoint::LogLengths;
use descant_train::{Event, Observer, StepMetrics, StepTiming};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

/// Version of the files' lines.
const VERSION: u32 = 1;
/// Longest of the files that is read back.
const MAX_BYTES: u64 = 4 << 30;
const METRICS: &str = "metrics.jsonl";
const TIMING: &str = "timing.jsonl";
/// The gradient by site, at some steps.
pub(crate) const GRADIENTS: &str = "gradients.jsonl";

/// Writes these files. What steps said is not remembered while they are made, or a long run would grow with them; it is
/// read back at the end.
pub(crate) struct Records {
    folder: PathBuf,
    metrics: Appender,
    timing: Appender,
    gradients: Appender,
    steps: Vec<StepMetrics>,
    timings: Vec<StepTiming>,
    seconds: f64,
    warnings: Vec<String>,
    failure: Option<descant_files::Error>,
}

#[derive(Serialize)]
struct Line<'a, T> {
    v: u32,
    #[serde(flatten)]
    step: &'a T,
}

/// A line of `gradients.jsonl`: the norm at each site, in the sites' order.
#[derive(Serialize)]
struct Gradients<'a> {
    step: u64,
    #[serde(serialize_with = "as_map")]
    norms: &'a [(String, f32)],
}

fn as_map<S: Serializer>(norms: &[(String, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(norms.iter().map(|(site, norm)| (site, norm)))
}

/// A line that is read back; its version is that of the run, whose settings are checked before.
#[derive(Deserialize)]
struct Told<T> {
    #[serde(flatten)]
    step: T,
}

impl Records {
    /// Starts the files in a run folder, or continues with them at these lengths; a length that is not named is 0.
    pub(crate) fn open(folder: &Path, lengths: &LogLengths) -> Result<Self> {
        let open = |name: &str| {
            let path = folder.join(name);
            match lengths.get(name) {
                Some(length) => Appender::resume(&path, *length),
                None if path.exists() => Appender::resume(&path, 0),
                None => Appender::create(&path),
            }
        };
        let (metrics, timing, gradients) = (open(METRICS)?, open(TIMING)?, open(GRADIENTS)?);
        let steps = read_back(&folder.join(METRICS))?;
        let timings: Vec<StepTiming> = read_back(&folder.join(TIMING))?;
        let seconds = timings.iter().map(|timing| timing.seconds).sum();
        let folder = folder.to_owned();
        Ok(Self {
            folder,
            metrics,
            timing,
            gradients,
            steps,
            timings,
            seconds,
            warnings: Vec::new(),
            failure: None,
        })
    }

    /// What was read back, step by step.
    pub(crate) fn told(&self) -> impl Iterator<Item = (&StepMetrics, &StepTiming)> {
        self.steps.iter().zip(&self.timings)
    }

    /// Step and validation loss, as far as they were read back, or all once it is [finished](Self::finish).
    pub(crate) fn validations(&self) -> Vec<(u64, f32)> {
        let validated = |step: &StepMetrics| Some((step.step, step.validation.as_ref()?.loss));
        self.steps.iter().filter_map(validated).collect()
    }

    /// Step and value of the least validation loss of the run, once it is [finished](Self::finish).
    pub(crate) fn best(&self) -> Option<(u64, f32)> {
        self.validations().into_iter().reduce(|best, next| if next.1 < best.1 { next } else { best })
    }

    /// The steps of the run, once it is [finished](Self::finish).
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

    /// Reads back what all steps said.
    ///
    /// # Errors
    /// The first write that failed, if one did: an observer must not stop a run, so it is reported here.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.failure.take().map_or(Ok(()), Err)?;
        self.steps = read_back(&self.folder.join(METRICS))?;
        Ok(())
    }
}

/// A panic goes through here: what was recorded reaches the disk. No checkpoint is made of such a state.
impl Drop for Records {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.metrics.sync();
            let _ = self.timing.sync();
        }
    }
}

impl Observer for Records {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Step { metrics, timing, .. } => {
                let written = append(&mut self.metrics, *metrics);
                let written = written.and_then(|()| append(&mut self.timing, timing));
                self.failure = self.failure.take().or(written.err());
                self.seconds += timing.seconds;
            }
            Event::Gradients { step, norms } => {
                let written = append(&mut self.gradients, &Gradients { step: *step, norms });
                self.failure = self.failure.take().or(written.err());
            }
            Event::Warning(text) => self.warnings.push((*text).to_owned()),
            _ => {}
        }
    }

    fn logs(&mut self) -> descant_train::Result<LogLengths> {
        self.failure.take().map_or(Ok(()), Err)?;
        let files = [(METRICS, &self.metrics), (TIMING, &self.timing), (GRADIENTS, &self.gradients)];
        let length = |(name, file): (&str, &Appender)| {
            file.sync()?;
            Ok((name.to_owned(), file.length()))
        };
        files.into_iter().map(length).collect()
    }
}

fn append<T: Serialize>(file: &mut Appender, step: &T) -> descant_files::Result<()> {
    file.append(&serde_json::to_string(&Line { v: VERSION, step }).expect("a struct of numbers is JSON"))
}

fn read_back<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let bytes = descant_files::read_bounded(path, MAX_BYTES)?;
    let parse = |(at, line): (usize, &[u8])| {
        let told: Told<T> = serde_json::from_slice(line)
            .with_context(|| format!("{}, line {}: not what a run writes", path.display(), at + 1))?;
        Ok(told.step)
    };
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::super::pace::tests::step;
    use super::*;

    #[test]
    fn metrics_hold_no_time_and_timing_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut records = Records::open(dir.path(), &LogLengths::new()).unwrap();
        for n in 1..=2 {
            let (metrics, timing) = step(n, 0.1);
            let norms = [("layers.2.q_proj".to_owned(), 0.5), ("layers.10.q_proj".to_owned(), 0.25)];
            records.on(&Event::Gradients { step: n, norms: &norms });
            records.on(&Event::Step { metrics: &metrics, timing, total: 2 });
        }
        records.on(&Event::Warning("w"));
        records.finish().unwrap();
        assert_eq!(records.steps().len(), 2);
        let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
        insta::assert_snapshot!(read("metrics.jsonl"), @r##"
        {"v":1,"step":1,"loss":0.1,"loss_bits":1036831949,"first_analysis_loss":12.6,"learning_rate":0.005,"grad_norm":1.0,"samples":16,"tokens":1000,"trained_tokens":400,"epoch":0.1,"skipped":0}
        {"v":1,"step":2,"loss":0.1,"loss_bits":1036831949,"first_analysis_loss":null,"learning_rate":0.005,"grad_norm":1.0,"samples":16,"tokens":1000,"trained_tokens":400,"epoch":0.1,"skipped":0}
        "##);
        insta::assert_snapshot!(read("timing.jsonl"), @r##"
        {"v":1,"step":1,"seconds":0.5,"tokens_per_second":2000.0}
        {"v":1,"step":2,"seconds":0.5,"tokens_per_second":2000.0}
        "##);
        insta::assert_snapshot!(read(GRADIENTS), @r##"
        {"v":1,"step":1,"norms":{"layers.2.q_proj":0.5,"layers.10.q_proj":0.25}}
        {"v":1,"step":2,"norms":{"layers.2.q_proj":0.5,"layers.10.q_proj":0.25}}
        "##);
        let lengths: Vec<String> = records.logs().unwrap().into_keys().collect();
        assert_eq!(lengths, [GRADIENTS, METRICS, TIMING]);
        assert_eq!((records.steps().len(), records.seconds()), (2, 1.0));
        assert_eq!(records.warnings(), ["w"]);
    }

    #[test]
    fn records_that_go_on_know_the_steps_that_count_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut records = Records::open(dir.path(), &LogLengths::new()).unwrap();
        let tell = |records: &mut Records, n| {
            let (metrics, timing) = step(n, 0.1);
            records.on(&Event::Step { metrics: &metrics, timing, total: 9 });
        };
        (1..=2).for_each(|n| tell(&mut records, n));
        let lengths = records.logs().unwrap();
        (3..=4).for_each(|n| tell(&mut records, n));
        drop(records);
        let mut again = Records::open(dir.path(), &lengths).unwrap();
        assert_eq!(
            again.told().map(|(metrics, _)| metrics.clone()).collect::<Vec<_>>(),
            [step(1, 0.1).0, step(2, 0.1).0]
        );
        assert_eq!(again.timings.len(), 2);
        tell(&mut again, 3);
        let text = std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 3);
        // Shorter than the checkpoint says: that is not a log of this run.
        let long = [("metrics.jsonl".to_owned(), 1 << 20)].into();
        assert!(Records::open(dir.path(), &long).is_err());
    }
}
