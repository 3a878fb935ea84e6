//! A limit of the process's memory on a card: what would break it is refused, whoever asks, and the smallest holds.

use burn::tensor::{DType, Device, Tensor};
use descant_kernels::cuda::{CudaError, Gpu};
use descant_kernels::{Keep, Workspace, gauge, zeros};
use descant_model::{Error, GptOss, Placement};

use crate::card_alone;
use crate::full::{bits, is_saved_when_filled, step, trainer, undisturbed};
use crate::models::varied;

/// Numbers of a piece of 256 MiB.
const NUMBERS: usize = 64 << 20;
/// Bytes of one.
const PIECE: u64 = (NUMBERS * size_of::<f32>()) as u64;
const GIB: u64 = 1 << 30;

fn in_use(card: &Device) -> u64 {
    gauge::memory_in_use(card).expect("a card has memory")
}

/// Takes pieces of burn's pool until one is refused, which has to be by this limit.
fn filled_up_to(limit: u64, card: &Device) -> Vec<Tensor<1>> {
    let gpu = Gpu::of(0).expect("the card");
    let mut held = Vec::new();
    let error = loop {
        held.push(zeros([NUMBERS], DType::F32, card));
        if let Some(error) = gpu.take_error() {
            break error;
        }
        assert!(in_use(card) <= limit && held.len() < 40, "{} pieces", held.len());
    };
    println!("{error} after {} pieces", held.len());
    assert!(matches!(error, CudaError::Limit { allowed, .. } if allowed == limit), "{limit}: {error:?}");
    assert!(in_use(card) <= limit);
    held
}

/// Asserts that more may be taken than any limit here allows, and gives it back to the driver.
fn is_unlimited(card: &Device) {
    let more: Vec<Tensor<1>> = (0..40).map(|_| zeros([NUMBERS], DType::F32, card)).collect();
    assert_eq!(Gpu::of(0).expect("the card").take_error(), None, "{} pieces", more.len());
    drop(more);
    Workspace::default().room(card).expect("the pool gives back what nobody holds");
}

#[test]
#[ignore = "needs a card"]
fn a_pool_that_would_break_the_limit_is_refused_before_and_goes_on_with_room() {
    let card = card_alone();
    let case = varied();
    let expected = undisturbed(&case, &card, &[300, 300]);
    let model = case.load(&card);
    let limit = in_use(&card) + (3 << 30);
    model.workspace().set(Some(limit), Keep::Auto);
    let mut trainer = trainer(&case, &model);
    step(&mut trainer, 0, 300).expect("a step");
    model.workspace().check_limit(&card).expect("within the limit");
    // The card has room for many times that.
    let held = filled_up_to(limit, &card);
    // burn's own operations ask nobody: what they take is seen before anything of ours runs there.
    let of_burn = Tensor::<1>::ones([NUMBERS], (&*card, DType::F32));
    let error = step(&mut trainer, 1, 300).expect_err("burn has more than the limit leaves");
    println!("{error}");
    assert!(error.is_full_card() && error.to_string().contains(&limit.to_string()), "{error:?}");
    drop((held, of_burn));
    step(&mut trainer, 1, 300).expect("a step with room");
    model.workspace().check_limit(&card).expect("within the limit");
    assert_eq!(bits(&trainer), expected);
    // The limit ends with the model.
    drop(trainer);
    drop(model);
    is_unlimited(&card);
}

#[test]
#[ignore = "needs a card"]
fn weights_that_would_break_the_limit_are_refused_while_they_are_loaded() {
    let card = card_alone();
    let case = varied();
    let weights = std::fs::metadata(case.model.join("model.safetensors")).expect("one file").len();
    let load = |limit| GptOss::load_within(&case.model, &card, Placement::default(), Some(limit));
    let error = load(in_use(&card) + weights / 2).expect_err("there is no room for the weights");
    println!("{error} ({weights} bytes of weights)");
    // Libraries that come meanwhile may take what there was.
    let is_full = |error: &Error| matches!(error, Error::Upload { source, .. } | Error::Device(source) if source.out_of_memory);
    assert!(is_full(&error), "{error:?}");
    // One that is broken already is refused, and bounds nobody.
    let error = load(1).expect_err("more is in use");
    assert!(is_full(&error), "{error:?}");
    is_unlimited(&card);
    let limit = in_use(&card) + GIB;
    let model = load(limit).expect("there is room");
    model.workspace().check_limit(&card).expect("within the limit");
    drop(filled_up_to(limit, &card));
    drop(model);
    is_unlimited(&card);
}

#[test]
#[ignore = "needs a card"]
fn of_two_models_on_a_card_the_smaller_limit_holds_and_ends_with_its_own() {
    let card = card_alone();
    let case = varied();
    // Half a piece more: what the driver takes beside pieces, tables of pages say, is looked at between steps alone, and with
    // three models and a layer's memory twelve pieces would end within some MiB of 3 GiB.
    let [small, large] = [3, 5].map(|gib| in_use(&card) + gib * GIB + PIECE / 2);
    let models = [small, large].map(|limit| {
        let model = GptOss::load_within(&case.model, &card, Placement::default(), Some(limit));
        model.expect("there is room")
    });
    // Whoever lays memory out last, and one without a limit of its own.
    let third = case.load(&card);
    for model in models.iter().rev().chain([&third]) {
        step(&mut trainer(&case, model), 0, 300).expect("a step");
        models[0].workspace().check_limit(&card).expect("within the limit");
        drop(filled_up_to(small, &card));
    }
    let [first, second] = models;
    drop(first);
    drop(filled_up_to(large, &card));
    drop(second);
    is_unlimited(&card);
}

#[test]
#[ignore = "needs a card"]
fn the_last_step_of_a_run_that_its_limit_ends_is_saved() {
    let card = card_alone();
    let case = varied();
    let model = case.load(&card);
    let limit = in_use(&card) + 3 * GIB;
    model.workspace().set(Some(limit), Keep::Auto);
    let device = card.clone();
    // Operations of burn's own, which ask nobody.
    let piece = move || Tensor::<1>::ones([NUMBERS], (&device, DType::F32));
    is_saved_when_filled(&case, &model, &|| Box::new((0..16).map(|_| piece()).collect::<Vec<_>>()));
}
