//! A run that is stopped and continues is the run that was not stopped, byte for byte; and what becomes of it when the
//! disk is full, breaks, or loses power.

use std::borrow::Cow;
use std::cell::Cell;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use descant_files::fault::{Effect, Fault, with};
use descant_files::{Appender, list};
use descant_lora::{LoraAdapters, LoraConfig};
use descant_model::GptOss;
use descant_testkit::micro::{Micro, Options};
use descant_testkit::{Dice, scratch};
use descant_train::checkpoint::{Checkpoint, LogLengths, Store};
use descant_train::memory::Arrangement;
use descant_train::{
    Course, Ended, Error, Event, GuardConfig, Keeping, Observer, OptimizerKind, Result, Sample, Samples,
    Schedule, TrainConfig, Trainer, fit_kept,
};

/// Steps of a run; warm-up ends at 5, and an epoch of 11 samples never ends with a step of 2 x 2.
const STEPS: u64 = 64;

pub(crate) fn model() -> &'static GptOss {
    static MODEL: OnceLock<GptOss> = OnceLock::new();
    MODEL.get_or_init(|| {
        let dir = scratch();
        let micro = Micro::write(dir.path(), &Options::default()).expect("the micro model is written");
        GptOss::load(&micro.model, &Device::flex()).expect("the micro model loads")
    })
}

pub(crate) fn samples() -> Vec<Sample> {
    let mut dice = Dice::new(11);
    let sample = |row: usize| {
        let n = 5 + dice.below(6);
        let ids = (0..n).map(|_| dice.below(1536) as u32).collect();
        let weights = (0..n).map(|i| if i > n / 3 { 1.0 } else { 0.0 }).collect();
        Sample { row, ids, weights, first_analysis: Some(n - 1) }
    };
    (1..=11).map(sample).collect()
}

pub(crate) fn config(max_steps: u64) -> TrainConfig {
    TrainConfig {
        max_steps,
        micro_batch: 2.into(),
        accumulation: 2,
        learning_rate: 1e-2,
        warmup_steps: 5.min(max_steps),
        schedule: Schedule::Cosine,
        ..TrainConfig::default()
    }
}

pub(crate) fn fresh(model: &GptOss) -> LoraAdapters {
    let targets = ["q_proj", "down_proj"].map(str::to_owned).to_vec();
    let lora = LoraConfig { r: 2, alpha: 4.0, targets };
    LoraAdapters::init(&model.config, &lora, 7, &Device::flex().autodiff()).expect("a valid configuration")
}

pub(crate) fn store(run: &Path) -> Store {
    let identity = vec![("train.max_steps".to_owned(), STEPS.to_string())];
    Store { run: run.to_owned(), identity, keep: 2 }
}

/// Writes `metrics.jsonl`, as the binary does.
pub(crate) struct Log {
    file: Appender,
    failed: Option<descant_files::Error>,
    pub(crate) warnings: Vec<String>,
}

impl Log {
    pub(crate) fn open(run: &Path, from: Option<&Checkpoint>) -> descant_files::Result<Self> {
        let path = run.join("metrics.jsonl");
        let file = match from {
            Some(checkpoint) => Appender::resume(&path, checkpoint.logs["metrics.jsonl"])?,
            None if path.exists() => Appender::resume(&path, 0)?,
            None => Appender::create(&path)?,
        };
        Ok(Self { file, failed: None, warnings: Vec::new() })
    }
}

impl Observer for Log {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Step { metrics, .. } => {
                let line = serde_json::to_string(metrics).expect("JSON");
                self.failed = self.failed.take().or(self.file.append(&line).err());
            }
            Event::Warning(text) => self.warnings.push((*text).to_owned()),
            _ => {}
        }
    }

    fn logs(&mut self) -> Result<LogLengths> {
        self.failed.take().map_or(Ok(()), Err)?;
        self.file.sync()?;
        Ok([("metrics.jsonl".to_owned(), self.file.length())].into())
    }
}

/// What two runs have in common when they are the same: metrics, and the newest checkpoint's files.
pub(crate) type Bytes = Vec<(String, Vec<u8>)>;

pub(crate) fn bytes(run: &Path, step: u64) -> Bytes {
    let mut found =
        vec![("metrics.jsonl".to_owned(), std::fs::read(run.join("metrics.jsonl")).expect("metrics"))];
    let folder = run.join(format!("checkpoints/step-{step:06}"));
    for name in list(&folder).expect("the checkpoint is there") {
        found.push((name.clone(), std::fs::read(folder.join(name)).expect("it was just listed")));
    }
    found
}

/// Runs from the folder's last state, saving every `every` steps, until done or `stop_after` steps.
pub(crate) fn run(folder: &Path, steps: u64, every: u64, stop_after: Option<u64>) -> Result<Ended> {
    run_as(folder, &config(steps), every, stop_after)
}

fn run_as(folder: &Path, config: &TrainConfig, every: u64, stop_after: Option<u64>) -> Result<Ended> {
    run_on(&samples(), folder, config, every, stop_after)
}

fn run_on(
    samples: &dyn Samples,
    folder: &Path,
    config: &TrainConfig,
    every: u64,
    stop_after: Option<u64>,
) -> Result<Ended> {
    let (model, guard) = (model(), GuardConfig::default());
    let store = store(folder);
    let adapters = fresh(model);
    let from = store.newest(&adapters, &mut |_| ())?;
    let mut log = Log::open(folder, from.as_ref())?;
    let left = Cell::new(stop_after);
    let stop = || {
        left.set(left.get().map(|n| n - 1));
        left.get() == Some(0)
    };
    let course =
        Course { model, samples, config, guard: &guard, arrangement: Arrangement::default(), workers: None };
    fit_kept(
        course,
        adapters,
        Keeping { store: &store, every, from, stop: &stop, validation: None },
        &mut log,
    )
}

fn reference() -> &'static Bytes {
    static BYTES: OnceLock<Bytes> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = scratch();
        assert!(matches!(run(dir.path(), STEPS, 0, None), Ok(Ended::Done(_))));
        bytes(dir.path(), STEPS)
    })
}

fn short_reference() -> Bytes {
    let dir = scratch();
    run(dir.path(), SHORT, 0, None).expect("an undisturbed run");
    bytes(dir.path(), SHORT)
}

/// Steps of the runs that are disturbed at every operation.
const SHORT: u64 = 6;

#[test]
fn a_run_stopped_after_every_single_step_is_the_run_that_was_not_stopped() {
    let dir = scratch();
    for step in 1..STEPS {
        let ended = run(dir.path(), STEPS, 0, Some(1)).expect("a step");
        assert!(matches!(ended, Ended::Stopped { step: at } if at == step));
    }
    assert!(matches!(run(dir.path(), STEPS, 0, None), Ok(Ended::Done(_))));
    assert_eq!(&bytes(dir.path(), STEPS), reference());
    let left = list(&dir.path().join("checkpoints")).expect("a folder");
    assert_eq!(left, ["step-000063", "step-000064"], "two are kept");
}

/// Samples that are there so many times.
#[derive(Debug)]
struct Vanishing(Vec<Sample>, AtomicUsize);

impl Samples for Vanishing {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn tokens(&self, at: usize) -> usize {
        self.0.tokens(at)
    }

    fn trained(&self, at: usize) -> usize {
        self.0.trained(at)
    }

    fn row(&self, at: usize) -> usize {
        self.0.row(at)
    }

    fn get(&self, at: usize) -> Result<Cow<'_, Sample>> {
        let is_left = self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        is_left.map_err(|_| Error::Unreadable { at, reason: "the disk is gone".to_owned() })?;
        self.0.get(at)
    }
}

#[test]
fn what_was_done_before_a_step_that_cannot_be_computed_is_saved() {
    let dir = scratch();
    let mut done = 0;
    // A step reads four samples: some runs end between the samples of a step, one before its first step.
    for reads in [41, 4, 3, 90, 0] {
        let samples = Vanishing(samples(), AtomicUsize::new(reads));
        let error = run_on(&samples, dir.path(), &config(STEPS), 0, None).expect_err("data is gone");
        assert!(matches!(error, Error::Unreadable { .. }), "{error}");
        done += reads as u64 / 4;
        let newest = store(dir.path()).newest(&fresh(model()), &mut |_| ()).expect("checkpoints");
        assert_eq!(newest.map(|checkpoint| checkpoint.trainer.steps), Some(done), "{reads} reads");
    }
    assert!(matches!(run(dir.path(), STEPS, 0, None), Ok(Ended::Done(_))));
    assert_eq!(&bytes(dir.path(), STEPS), reference());
    // Nothing to save before the first step.
    let other = scratch();
    let none = Vanishing(samples(), AtomicUsize::new(2));
    run_on(&none, other.path(), &config(STEPS), 0, None).expect_err("data is gone");
    assert!(!other.path().join("checkpoints").exists());
}

#[test]
fn a_run_resumed_once_from_each_step_is_the_run_that_was_not_stopped() {
    // Copies of one run that stopped at every step; each continues to a place a few steps on, across every border.
    let dir = scratch();
    for step in (1..STEPS).step_by(7) {
        let run_dir = dir.path().join(step.to_string());
        std::fs::create_dir(&run_dir).expect("a new folder");
        assert!(matches!(run(&run_dir, STEPS, 0, Some(step)), Ok(Ended::Stopped { .. })));
        assert!(matches!(run(&run_dir, STEPS, 5, None), Ok(Ended::Done(_))));
        assert_eq!(&bytes(&run_dir, STEPS), reference(), "stopped at {step}");
    }
}

#[test]
fn the_8_bit_optimizer_and_packed_sequences_are_resumed_exactly_too() {
    const STEPS: u64 = 12;
    let of = |optimizer, packing| TrainConfig { optimizer, packing, max_sequence: 24, ..config(STEPS) };
    for config in [of(OptimizerKind::AdamW8bit, false), of(OptimizerKind::AdamW, true)] {
        let dir = scratch();
        let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
        for folder in [&whole, &cut] {
            std::fs::create_dir(folder).expect("a new folder");
        }
        assert!(matches!(run_as(&whole, &config, 0, None), Ok(Ended::Done(_))));
        for _ in 1..STEPS {
            assert!(matches!(run_as(&cut, &config, 0, Some(1)), Ok(Ended::Stopped { .. })));
        }
        assert!(matches!(run_as(&cut, &config, 0, None), Ok(Ended::Done(_))));
        assert_eq!(bytes(&cut, STEPS), bytes(&whole, STEPS), "{config:?}");
    }
}

#[test]
fn moments_of_another_kind_are_refused_and_change_nothing() {
    let dir = scratch();
    let eight = TrainConfig { optimizer: OptimizerKind::AdamW8bit, ..config(SHORT) };
    assert!(matches!(run_as(dir.path(), &eight, 0, Some(2)), Ok(Ended::Stopped { .. })));
    // The identity of a real run names its optimizer and so refuses before; the store of this test does not.
    let found = store(dir.path()).newest(&fresh(model()), &mut |_| ()).expect("whole").expect("there");
    let mut trainer = Trainer::new(model(), fresh(model()), config(SHORT)).expect("a trainer");
    let before = trainer.state().expect("the CPU does not fail");
    let error = trainer.restore(&found.trainer).expect_err("8-bit moments").to_string();
    assert!(error.contains("its moments are 8-bit") && error.contains("here they are f32"), "{error}");
    assert_eq!(trainer.state().expect("the CPU does not fail"), before);
    let mut trainer = Trainer::new(model(), fresh(model()), eight).expect("a trainer");
    trainer.restore(&found.trainer).expect("moments of its own kind");
    assert_eq!(trainer.state().expect("the CPU does not fail"), found.trainer);
}

#[test]
fn threads_do_not_change_a_byte() {
    let on = |threads| {
        let dir = scratch();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| run(dir.path(), SHORT, 2, None)).expect("a run");
        bytes(dir.path(), SHORT)
    };
    let one = on(1);
    assert_eq!(one, on(2));
    assert_eq!(one, on(1));
}

#[test]
fn a_log_that_is_not_cut_on_resuming_is_seen() {
    // The negative control: the same comparison with the cut left out.
    let dir = scratch();
    run(dir.path(), SHORT, 2, Some(2)).expect("two steps");
    let path = dir.path().join("metrics.jsonl");
    let mut log = std::fs::OpenOptions::new().append(true).open(&path).expect("metrics");
    std::io::Write::write_all(&mut log, b"{\"step\":3,\"half of a line that a crash left").expect("a write");
    let uncut = std::fs::read(&path).expect("metrics");
    run(dir.path(), SHORT, 2, None).expect("the rest");
    assert_eq!(bytes(dir.path(), SHORT), short_reference());
    assert!(!short_reference()[0].1.starts_with(&uncut), "what was cut is not in the run");
}

#[test]
fn whichever_operation_fails_the_run_says_so_and_goes_on_to_the_same_bytes() {
    let expected = short_reference();
    for (effect, lasting) in [(Effect::Full, false), (Effect::Broken, false), (Effect::Full, true)] {
        let mut reached_the_end = false;
        for after in 0..200 {
            let dir = scratch();
            let fault = Fault { after, effect, lasting };
            let (ended, struck) = with(fault, || run(dir.path(), SHORT, 2, None));
            if !struck {
                ended.expect("nothing failed");
                assert!(after > 30, "only {after} operations");
                reached_the_end = true;
                break;
            }
            match ended {
                // An old checkpoint that cannot be removed stops nobody.
                Ok(Ended::Done(_)) => {}
                Ok(other) => panic!("operation {after}: {other:?}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        text.contains(&*dir.path().to_string_lossy()),
                        "operation {after} is not named: {text}"
                    );
                }
            }
            run(dir.path(), SHORT, 2, None).unwrap_or_else(|e| panic!("{effect:?} at {after}: {e}"));
            assert_eq!(bytes(dir.path(), SHORT), expected, "{effect:?} at operation {after}");
        }
        assert!(reached_the_end);
    }
}

/// Cuts the power at operation `after`; returns how many steps the disk then has, or what is wrong with it.
fn after_power_cut(after: u64, effect: Effect) -> std::result::Result<Option<u64>, String> {
    let dir = scratch();
    let fault = Fault { after, effect, lasting: true };
    let (_, struck) = with(fault, || run(dir.path(), SHORT, 2, None));
    let adapters = fresh(model());
    let from = store(dir.path()).newest(&adapters, &mut |_| ()).map_err(|e| e.to_string())?;
    let step = from.map(|checkpoint| checkpoint.trainer.steps);
    run(dir.path(), SHORT, 2, None).map_err(|e| e.to_string())?;
    if bytes(dir.path(), SHORT) != short_reference_cached() {
        return Err("other bytes".to_owned());
    }
    Ok(step.filter(|_| struck))
}

fn short_reference_cached() -> Bytes {
    static BYTES: OnceLock<Bytes> = OnceLock::new();
    BYTES.get_or_init(short_reference).clone()
}

#[test]
fn a_loss_of_power_at_any_operation_loses_no_run_and_no_byte() {
    let seeds = if std::env::var_os("DESCANT_SLOW").is_some() { 500 } else { 100 };
    let mut dice = Dice::new(1);
    let mut steps = [0; SHORT as usize + 1];
    for seed in 0..seeds {
        let after = dice.below(45) as u64;
        match after_power_cut(after, Effect::PowerCut(seed)) {
            Ok(step) => steps[step.unwrap_or(0) as usize] += 1,
            Err(error) => panic!("operation {after}, seed {seed}: {error}"),
        }
    }
    assert!(steps[2] > 0 && steps[4] > 0, "the cuts fell into different intervals: {steps:?}");
}

#[test]
fn a_disk_that_does_not_sync_is_seen() {
    // The negative control: the same cuts where no sync reached the disk.
    let lost =
        (0..60).filter(|seed| after_power_cut(30 + seed % 10, Effect::LyingDisk(*seed)).is_err()).count();
    assert!(lost > 5, "{lost} of 60 runs were lost");
}

#[test]
fn damage_of_a_checkpoint_is_found_wherever_it_is_and_the_one_before_is_taken() {
    let dir = scratch();
    run(dir.path(), SHORT, 2, None).expect("a run");
    let adapters = fresh(model());
    let store = store(dir.path());
    let newest = dir.path().join("checkpoints/step-000006");
    let aside = dir.path().join("checkpoints/step-000006.damaged");
    let mut dice = Dice::new(4);
    let flips = if std::env::var_os("DESCANT_SLOW").is_some() { 1000 } else { 250 };
    let names = list(&newest).expect("four files");
    assert_eq!(names, ["adapter.safetensors", "manifest.json", "optimizer.safetensors", "state.json"]);
    let check = |name: &str, damage: &dyn Fn(&mut Vec<u8>), what: &str| {
        let path = newest.join(name);
        let good = std::fs::read(&path).expect("it was just listed");
        let mut bad = good.clone();
        damage(&mut bad);
        descant_files::write_atomic(&path, &bad).expect("the test's folder takes bytes");
        let mut said = Vec::new();
        let found = store.newest(&adapters, &mut |text| said.push(text.to_owned()));
        let found = found.unwrap_or_else(|e| panic!("{name}, {what}: {e}")).expect("an older one");
        assert_eq!(found.trainer.steps, 4, "{name}, {what} went unnoticed");
        assert!(said.len() == 1 && said[0].contains("step-000006"), "{said:?}");
        descant_files::rename(&aside, &newest).expect("it was put aside");
        descant_files::write_atomic(&path, &good).expect("the test's folder takes bytes");
    };
    for _ in 0..flips {
        let name = &names[dice.below(names.len())];
        let length = std::fs::metadata(newest.join(name)).expect("it was just listed").len() as usize;
        let (at, bit) = (dice.below(length), dice.below(8));
        check(name, &|bytes| bytes[at] ^= 1 << bit, &format!("bit {bit} of byte {at}"));
    }
    for name in &names {
        let length = std::fs::metadata(newest.join(name)).expect("it was just listed").len() as usize;
        for cut in (0..length).step_by(4096).chain([length - 1]) {
            check(name, &|bytes| bytes.truncate(cut), &format!("cut at {cut}"));
        }
        check(name, &|bytes| bytes.push(b'\n'), "a byte more");
    }
    // The control: undamaged, the newest is taken.
    let found = store.newest(&adapters, &mut |_| ()).expect("whole").expect("there");
    assert_eq!(found.trainer.steps, SHORT);
}

#[test]
fn another_run_a_newer_form_and_nothing_whole_are_refused() {
    let dir = scratch();
    run(dir.path(), SHORT, 2, None).expect("a run");
    let adapters = fresh(model());
    let mut other = store(dir.path());
    other.identity[0].1 = "65".to_owned();
    other.identity.push(("data".to_owned(), "abc".to_owned()));
    let error = other.newest(&adapters, &mut |_| ()).expect_err("another run");
    let Error::OtherRun { differences, .. } = &error else { panic!("{error}") };
    assert_eq!(differences, &["train.max_steps: 64 there, 65 now", "data: not set there, abc now"]);

    let manifest = dir.path().join("checkpoints/step-000006/manifest.json");
    let good = std::fs::read_to_string(&manifest).expect("it is there");
    let line = good.lines().next().expect("two lines").replacen("\"format\":1", "\"format\":2", 1);
    let newer = format!("{line}\n{}\n", descant_files::sha256(line.as_bytes()));
    descant_files::write_atomic(&manifest, newer.as_bytes()).expect("a write");
    let error = store(dir.path()).newest(&adapters, &mut |_| ()).expect_err("a newer form");
    assert!(error.to_string().ends_with("format 2; this version reads 1"), "{error}");

    for step in ["step-000004", "step-000006"] {
        let path = dir.path().join("checkpoints").join(step).join("manifest.json");
        descant_files::write_atomic(&path, b"").expect("a write");
    }
    let error = store(dir.path()).newest(&adapters, &mut |_| ()).expect_err("none is whole");
    assert!(matches!(error, Error::NoneWhole { count: 2, .. }), "{error}");
}
