//! Several workers over the loopback interface: the bytes of one, however many there are, wherever a run continues.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use descant_lora::{LoraAdapters, LoraConfig};
use descant_testkit::scratch;
use descant_train::memory::Arrangement;
use descant_train::{
    Course, Ended, Error, Event, GuardConfig, Keeping, Observer, OptimizerKind, OverGroup, Result, Silent,
    StepTiming, TrainConfig, Validation, Watched, Workers, fit_kept,
};
use descant_workers::{Group, Member, Place, Started};

use crate::resume::{Bytes, Log, bytes, config, fresh, model, samples, store};

/// Steps of a run.
const STEPS: u64 = 8;

/// How a run is made.
#[derive(Clone)]
struct Made {
    config: TrainConfig,
    arrangement: Arrangement,
    validated: bool,
    /// The rank whose adapters begin with other values.
    other: Option<usize>,
    stop_after: Option<(usize, u64)>,
}

impl Made {
    fn of(config: TrainConfig) -> Self {
        let arrangement = Arrangement::default();
        Self { config, arrangement, validated: false, other: None, stop_after: None }
    }
}

/// As the trainer of a run with `accumulation` micro-batches of one example.
fn steps_of(accumulation: usize) -> TrainConfig {
    TrainConfig { micro_batch: 1.into(), accumulation, ..config(STEPS) }
}

/// A port that nobody has now.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback interface");
    listener.local_addr().expect("a listener has an address").port()
}

fn place(rank: usize, world: usize, port: u16) -> Place {
    let (host, run) = ("127.0.0.1".to_owned(), "test".to_owned());
    let started = Started::Torchrun;
    Place { rank, world, local_rank: rank, local_world: world, host, port, run, started }
}

fn group(rank: usize, world: usize, port: u16) -> Group {
    let member = Member { version: "1".to_owned(), host: "here".to_owned(), facts: Vec::new() };
    Group::join(&place(rank, world, port), &member, |_| ()).expect("all of them come")
}

/// Makes steps in `folder`, with so many workers in threads; what each ends with.
fn run(folder: &Path, world: usize, made: &Made) -> Vec<Result<Ended>> {
    let port = free_port();
    let (folder, made) = (Arc::new(folder.to_owned()), Arc::new(made.clone()));
    let threads: Vec<_> = (0..world)
        .map(|rank| {
            let (folder, made) = (Arc::clone(&folder), Arc::clone(&made));
            std::thread::spawn(move || {
                let group = (world > 1).then(|| group(rank, world, port));
                let result = worker(&folder, rank, group.as_ref(), &made);
                if let (Some(group), Err(error)) = (&group, &result) {
                    group.fail(&error.to_string(), None);
                }
                result
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().expect("no worker panics")).collect()
}

fn worker(folder: &Path, rank: usize, group: Option<&Group>, made: &Made) -> Result<Ended> {
    let (model, samples, guard) = (model(), samples(), GuardConfig::default());
    let store = store(folder);
    let mut adapters = fresh(model);
    if made.other == Some(rank) {
        let targets = ["q_proj", "down_proj"].map(str::to_owned).to_vec();
        let lora = LoraConfig { r: 2, alpha: 4.0, targets };
        adapters = LoraAdapters::init(&model.config, &lora, 8, &Device::flex().autodiff())?;
    }
    let first = rank == 0;
    let from = if first { store.newest(&adapters, &mut |_| ())? } else { None };
    let mut log = if first { Some(Log::open(folder, from.as_ref())?) } else { None };
    let mut silent = Silent;
    let observer: &mut dyn Observer = match &mut log {
        Some(log) => log,
        None => &mut silent,
    };
    let link = group.map(OverGroup);
    let workers = group.zip(link.as_ref()).map(|(group, link)| Workers { group, link });
    let left = std::cell::Cell::new(made.stop_after.filter(|(who, _)| *who == rank).map(|(_, steps)| steps));
    let stop = || {
        left.set(left.get().map(|n| n.saturating_sub(1)));
        left.get() == Some(0)
    };
    let watched: Vec<Watched> = samples[..5]
        .iter()
        .map(|sample| Watched {
            sample: sample.clone(),
            classes: vec![descant_harmony::TokenClass::Final; sample.ids.len()],
        })
        .collect();
    let best = |_: u64, _: &LoraAdapters| Ok(());
    let validation = made.validated.then_some(Validation {
        watched: &watched,
        every: 3,
        patience: None,
        past: Vec::new(),
        best: &best,
    });
    let course = Course {
        model,
        samples: &samples,
        config: &made.config,
        guard: &guard,
        arrangement: made.arrangement,
        workers,
    };
    fit_kept(course, adapters, Keeping { store: &store, every: 3, from, stop: &stop, validation }, observer)
}

fn done(results: Vec<Result<Ended>>) {
    for result in results {
        assert!(matches!(result, Ok(Ended::Done(_))), "{result:?}");
    }
}

fn whole(world: usize, made: &Made) -> Bytes {
    let dir = scratch();
    done(run(dir.path(), world, made));
    bytes(dir.path(), STEPS)
}

#[test]
fn any_number_of_workers_ends_with_the_bytes_of_one() {
    let packed = TrainConfig { packing: true, max_sequence: 24, ..steps_of(6) };
    let together = Arrangement { together: 2, ..Arrangement::default() };
    for (made, worlds) in [
        (Made::of(steps_of(4)), &[2, 3, 4, 8][..]),
        // More workers than micro-batches, and numbers that do not divide.
        (Made { validated: true, ..Made::of(steps_of(3)) }, &[2, 8]),
        (Made::of(TrainConfig { optimizer: OptimizerKind::AdamW8bit, ..steps_of(4) }), &[2]),
        (Made::of(packed), &[3]),
        (Made { arrangement: together, ..Made::of(steps_of(6)) }, &[2]),
    ] {
        let one = whole(1, &made);
        for world in worlds {
            assert_eq!(whole(*world, &made), one, "{world} workers, {:?}", made.config);
        }
    }
}

#[test]
fn a_sum_in_another_order_would_be_seen() {
    // The negative control: the same examples as other micro-batches are other sums.
    let one = whole(1, &Made::of(steps_of(4)));
    let other = TrainConfig { micro_batch: 2.into(), accumulation: 2, ..steps_of(4) };
    assert_ne!(whole(1, &Made::of(other)), one);
}

#[test]
fn a_run_resumed_with_another_number_of_workers_is_the_run_of_one() {
    let made = Made { validated: true, ..Made::of(steps_of(4)) };
    let one = whole(1, &made);
    let dir = scratch();
    for (step, (world, who)) in [(2, 0), (1, 0), (4, 3), (3, 1), (8, 7), (1, 0)].into_iter().enumerate() {
        // Whoever is asked to stop, all do.
        let stopped = run(dir.path(), world, &Made { stop_after: Some((who, 1)), ..made.clone() });
        for result in stopped {
            assert!(matches!(result, Ok(Ended::Stopped { step: at }) if at == step as u64 + 1), "{result:?}");
        }
    }
    done(run(dir.path(), 2, &made));
    assert_eq!(bytes(dir.path(), STEPS), one);
}

#[test]
fn tensors_that_differ_are_named_with_their_rank_and_nothing_is_saved() {
    let dir = scratch();
    let results = run(dir.path(), 3, &Made { other: Some(2), ..Made::of(steps_of(4)) });
    for result in results {
        let error = result.expect_err("they differ").to_string();
        assert!(error.starts_with("rank 2: after step 3 its layers.0"), "{error}");
        assert!(error.contains("lora_A") && error.contains("nothing was saved"), "{error}");
    }
    assert!(!dir.path().join("checkpoints").exists());
}

#[test]
fn a_worker_that_fails_ends_all_with_its_words() {
    let dir = scratch();
    let mut made = Made::of(steps_of(4));
    made.stop_after = None;
    let port = free_port();
    let folder = dir.path().to_owned();
    let threads: Vec<_> = (0..3)
        .map(|rank| {
            let (made, folder) = (made.clone(), folder.clone());
            std::thread::spawn(move || {
                let group = group(rank, 3, port);
                if rank == 1 {
                    // A card that is full, in the middle of things.
                    group.fail("the card is full", Some(4));
                    return None;
                }
                Some(worker(&folder, rank, Some(&group), &made))
            })
        })
        .collect();
    for thread in threads {
        match thread.join().unwrap() {
            Some(Err(Error::Workers(error))) => assert_eq!(error.to_string(), "rank 1: the card is full"),
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }
}

/// Keeps what steps were to those who shared them.
#[derive(Default)]
struct Times(Vec<StepTiming>);

impl Observer for Times {
    fn on(&mut self, event: &Event<'_>) {
        if let Event::Step { timing, .. } = event {
            self.0.push(*timing);
        }
    }
}

#[test]
fn what_is_left_idle_is_measured() {
    let port = free_port();
    // One micro-batch, two workers: one of them waits all the time.
    let threads: Vec<_> = (0..2)
        .map(|rank| {
            std::thread::spawn(move || {
                let group = group(rank, 2, port);
                let link = OverGroup(&group);
                let workers = Some(Workers { group: &group, link: &link });
                let (dir, mut times) = (scratch(), Times::default());
                let (config, guard, samples) = (steps_of(1), GuardConfig::default(), samples());
                let course = Course {
                    model: model(),
                    samples: &samples,
                    config: &config,
                    guard: &guard,
                    arrangement: Arrangement::default(),
                    workers,
                };
                let store = store(dir.path());
                let keeping =
                    Keeping { store: &store, every: 0, from: None, stop: &|| false, validation: None };
                fit_kept(course, fresh(model()), keeping, &mut times).expect("a run");
                times.0
            })
        })
        .collect();
    for thread in threads {
        let times = thread.join().unwrap();
        assert_eq!(times.len() as u64, STEPS);
        for timing in times {
            let shared = timing.shared.expect("it was shared");
            assert_eq!(shared.workers, 2);
            assert!(shared.idle > 0.3 && shared.idle <= 0.5, "{shared:?}");
            assert!(shared.exchange_bytes > 0 && shared.exchange_seconds > 0.0, "{shared:?}");
        }
    }
}
