//! A card that another program fills while steps are made.

use burn::tensor::Device;
use descant_kernels::cuda::{Gpu, Occupied};
use descant_kernels::{Keep, gauge, read_floats};
use descant_model::GptOss;
use descant_train::{Error, Sample, StepResult, TrainConfig, Trainer};

use crate::card;
use crate::models::{Case, varied};

/// Bytes that the other program leaves.
const LEFT: usize = 2 << 20;

fn trainer<'a>(case: &Case, model: &'a GptOss) -> Trainer<'a> {
    let config = TrainConfig { max_steps: 9, warmup_steps: 1, learning_rate: 5e-3, ..TrainConfig::default() };
    Trainer::new(model, case.adapter(model), config).expect("valid")
}

/// A step on two sequences of so many tokens.
fn step(trainer: &mut Trainer<'_>, number: usize, tokens: usize) -> Result<StepResult, Error> {
    let sample = |row: usize| {
        let ids: Vec<u32> = (0..tokens).map(|at| ((at * 7 + row * 13) % 1000) as u32).collect();
        Sample { row, weights: vec![1.0; ids.len()], ids, first_analysis: None }
    };
    let samples = [sample(2 * number), sample(2 * number + 1)];
    trainer.step(&[vec![&samples[0]], vec![&samples[1]]])
}

/// Whether an error says, by its code, that the card is full.
fn is_full(error: &Error) -> bool {
    match error {
        Error::Device(error) | Error::Model(descant_model::Error::Device(error)) => error.out_of_memory,
        _ => false,
    }
}

fn bits(trainer: &Trainer<'_>) -> Vec<Vec<u32>> {
    let bits = |tensor| read_floats(tensor).expect("values").into_iter().map(f32::to_bits).collect();
    trainer.adapters().tensors().map(|tensor| bits(tensor.clone())).collect()
}

/// The bits after so many steps that nobody disturbs.
fn undisturbed(case: &Case, card: &Device, steps: &[usize]) -> Vec<Vec<u32>> {
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
    let card = card();
    let gpu = Gpu::of(0).expect("the card");
    let case = varied();
    // The last step wants more memory than the ones before.
    let steps = [300, 300, 300, 6000];
    let expected = undisturbed(&case, &card, &steps);
    let model = case.load(&card);
    let limit = 8 << 30;
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
    assert!(is_full(&error) && error.to_string().contains("the card is full"), "{error:?}");
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
    let card = card();
    let gpu = Gpu::of(0).expect("the card");
    let case = varied();
    let expected = undisturbed(&case, &card, &[700]);
    let model = case.load(&card);
    let mut first = trainer(&case, &model);
    let other = Occupied::all_but(&gpu, LEFT).expect("the rest of the card");
    let error = step(&mut first, 0, 700).expect_err("there is no room");
    println!("{error}");
    assert!(is_full(&error), "{error:?}");
    drop(other);
    drop(first);
    let mut again = trainer(&case, &model);
    step(&mut again, 0, 700).expect("a step with room");
    assert_eq!(bits(&again), expected);
}
