//! A card that another program fills while steps are made.

use std::any::Any;
use std::path::Path;

use burn::tensor::Device;
use descant_kernels::cuda::{Gpu, Occupied};
use descant_kernels::{Keep, gauge, read_floats};
use descant_model::GptOss;
use descant_train::checkpoint::Store;
use descant_train::memory::Arrangement;
use descant_train::{
    Course, Ended, Error, Event, GuardConfig, Keeping, Observer, Sample, StepResult, TrainConfig, Trainer,
    fit_kept,
};

use crate::card_alone;
use crate::models::{Case, varied};

/// Bytes that the other program leaves.
const LEFT: usize = 2 << 20;

pub(crate) fn trainer<'a>(case: &Case, model: &'a GptOss) -> Trainer<'a> {
    let config = TrainConfig { max_steps: 9, warmup_steps: 1, learning_rate: 5e-3, ..TrainConfig::default() };
    Trainer::new(model, case.adapter(model), config).expect("valid")
}

/// A step on two sequences of so many tokens.
pub(crate) fn step(trainer: &mut Trainer<'_>, number: usize, tokens: usize) -> Result<StepResult, Error> {
    let sample = |row: usize| {
        let ids: Vec<u32> = (0..tokens).map(|at| ((at * 7 + row * 13) % 1000) as u32).collect();
        Sample { row, weights: vec![1.0; ids.len()], ids, first_analysis: None }
    };
    let samples = [sample(2 * number), sample(2 * number + 1)];
    trainer.step(&[vec![&samples[0]], vec![&samples[1]]])
}

pub(crate) fn bits(trainer: &Trainer<'_>) -> Vec<Vec<u32>> {
    let bits = |tensor| read_floats(tensor).expect("values").into_iter().map(f32::to_bits).collect();
    trainer.adapters().tensors().map(|tensor| bits(tensor.clone())).collect()
}

/// The bits after so many steps that nobody disturbs.
pub(crate) fn undisturbed(case: &Case, card: &Device, steps: &[usize]) -> Vec<Vec<u32>> {
    let model = case.load(card);
    let mut trainer = trainer(case, &model);
    for (number, tokens) in steps.iter().enumerate() {
        step(&mut trainer, number, *tokens).expect("a step");
    }
    bits(&trainer)
}

#[test]
#[ignore = "needs a card"]
fn a_card_that_others_fill_ends_a_step_in_words_and_loses_nothing() {
    let card = card_alone();
    let gpu = Gpu::of(0).expect("the card");
    let case = varied();
    // The last step wants more memory than the ones before.
    let steps = [300, 300, 300, 6000];
    let expected = undisturbed(&case, &card, &steps);
    let model = case.load(&card);
    let limit = gauge::memory_in_use(&card).expect("a card has memory") + (8 << 30);
    model.workspace().set(Some(limit), Keep::Auto);
    let mut trainer = trainer(&case, &model);
    for (number, tokens) in steps.into_iter().enumerate().take(2) {
        step(&mut trainer, number, tokens).expect("a step");
        model.workspace().check_limit(&card).expect("within the limit");
    }
    let alone = gauge::shares(&card).expect("a card has memory");
    let other = Occupied::all_but(&gpu, LEFT).expect("the rest of the card");
    let shares = gauge::shares(&card).expect("a card has memory");
    println!("alone {alone:?}, filled {shares:?}");
    assert!(shares.free < (64 << 20) && shares.others() + (1 << 30) > alone.free, "{alone:?} {shares:?}");
    assert!(shares.own < alone.own + (256 << 20), "what others take is not ours: {alone:?} {shares:?}");
    // What it has it keeps: a step like those before works, and the limit counts no others.
    step(&mut trainer, 2, steps[2]).expect("a step in the memory that is there");
    model.workspace().check_limit(&card).expect("others do not count");
    let kept = trainer.state().expect("a state");
    let error = step(&mut trainer, 3, steps[3]).expect_err("there is no room for it");
    println!("{error}");
    assert!(error.is_full_card() && error.to_string().contains("the card is full"), "{error:?}");
    // Once there is room again the run resumes from its last state, to the same bits.
    drop(other);
    drop(trainer);
    let mut again = self::trainer(&case, &model);
    again.restore(&kept).expect("its own state");
    step(&mut again, 3, steps[3]).expect("a step with room");
    assert_eq!(bits(&again), expected);
}

#[test]
#[ignore = "needs a card"]
fn a_card_that_is_full_from_the_first_step_is_no_panic() {
    let card = card_alone();
    let gpu = Gpu::of(0).expect("the card");
    let case = varied();
    let expected = undisturbed(&case, &card, &[700]);
    let model = case.load(&card);
    let mut first = trainer(&case, &model);
    let other = Occupied::all_but(&gpu, LEFT).expect("the rest of the card");
    let error = step(&mut first, 0, 700).expect_err("there is no room");
    println!("{error}");
    assert!(error.is_full_card(), "{error:?}");
    drop(other);
    drop(first);
    let mut again = trainer(&case, &model);
    step(&mut again, 0, 700).expect("a step with room");
    assert_eq!(bits(&again), expected);
}

/// Lets somebody fill the card after a step.
struct Filling<'a> {
    after: u64,
    fill: &'a dyn Fn() -> Box<dyn Any>,
    other: Option<Box<dyn Any>>,
    warnings: Vec<String>,
}

impl Observer for Filling<'_> {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Step { metrics, .. } if metrics.step == self.after => {
                self.other = Some((self.fill)());
            }
            Event::Warning(text) => self.warnings.push((*text).to_owned()),
            _ => {}
        }
    }
}

#[test]
#[ignore = "needs a card"]
fn the_last_step_of_a_run_that_a_full_card_ends_is_saved() {
    let card = card_alone();
    let (case, gpu) = (varied(), Gpu::of(0).expect("the card"));
    let model = case.load(&card);
    let fill = || {
        model.workspace().make_way(model.device()).expect("the layers give their memory back");
        Occupied::all_but(&gpu, LEFT).expect("the rest of the card")
    };
    is_saved_when_filled(&case, &model, &|| Box::new(fill()));
}

/// Asserts that a run that ends because somebody fills the card keeps its last step, and resumes to the same bits.
pub(crate) fn is_saved_when_filled(case: &Case, model: &GptOss, fill: &dyn Fn() -> Box<dyn Any>) {
    let samples: Vec<Sample> = (0..8)
        .map(|row| {
            let ids: Vec<u32> = (0..200 + 10 * row).map(|at| ((at * 7 + row * 13) % 1000) as u32).collect();
            Sample { row, weights: vec![1.0; ids.len()], ids, first_analysis: None }
        })
        .collect();
    let config = TrainConfig { max_steps: 5, warmup_steps: 1, ..TrainConfig::default() };
    let train = |run: &Path, after| {
        let guard = GuardConfig::default();
        let store = Store { run: run.to_owned(), identity: Vec::new(), keep: 2 };
        let adapters = case.adapter(model);
        let from = store.newest(&adapters, &mut |_| ()).expect("checkpoints");
        let begun = from.as_ref().map_or(0, |checkpoint| checkpoint.trainer.steps);
        let course = Course {
            model,
            samples: &samples,
            config: &config,
            guard: &guard,
            arrangement: Arrangement::default(),
            workers: None,
        };
        let mut filling = Filling { after, fill, other: None, warnings: Vec::new() };
        let keeping = Keeping { store: &store, every: 0, from, stop: &|| false, validation: None };
        let ended = fit_kept(course, adapters, keeping, &mut filling);
        (begun, ended, filling.warnings)
    };
    let [plain, filled] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let bits = |ended: Result<Ended, Error>| match ended.expect("a run") {
        Ended::Done(adapters) => adapters
            .tensors()
            .map(|tensor| {
                read_floats(tensor.clone()).expect("values").into_iter().map(f32::to_bits).collect()
            })
            .collect::<Vec<Vec<u32>>>(),
        Ended::Stopped { .. } => panic!("nobody stops it"),
    };
    let expected = bits(train(plain.path(), 0).1);
    let (_, ended, warnings) = train(filled.path(), 2);
    let error = ended.expect_err("there is no room");
    println!("{error}; {warnings:?}");
    assert!(error.is_full_card() && warnings.is_empty(), "{error:?}, {warnings:?}");
    let (begun, ended, _) = train(filled.path(), 0);
    assert_eq!((begun, bits(ended)), (2, expected));
}
