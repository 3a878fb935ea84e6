//! What a step refuses to do, and what must not change its result.

use burn::tensor::{Device, Tensor};
use descant_lora::{LoraAdapters, LoraConfig};
use descant_model::{GptOss, SiteKind};
use descant_train::{CrossEntropy, Error, Objective, PROVEN_AFTER_STEP, Sample, TrainConfig, Trainer};

use crate::golden::{folder, values};

fn model() -> GptOss {
    GptOss::load(&folder("parity-a"), &Device::flex()).expect("the golden model loads")
}

fn config() -> TrainConfig {
    TrainConfig { max_steps: 8, warmup_steps: 1, learning_rate: 1e-2, ..TrainConfig::default() }
}

fn fresh(model: &GptOss, targets: &[&str]) -> LoraAdapters {
    let lora = LoraConfig { r: 4, alpha: 8.0, targets: targets.iter().map(|t| (*t).to_owned()).collect() };
    LoraAdapters::init(&model.config, &lora, 7, &Device::flex().autodiff()).expect("a valid configuration")
}

fn samples(n: usize, length: usize) -> Vec<Sample> {
    let sample = |row: usize| Sample {
        row,
        ids: (0..length).map(|i| ((row * 131 + i * 37 + 5) % 512) as u32).collect(),
        weights: (0..length).map(|i| if i > length / 3 { 1.0 } else { 0.0 }).collect(),
        first_analysis: Some(length / 2),
    };
    (0..n).map(sample).collect()
}

fn bits(lora: &LoraAdapters) -> Vec<u32> {
    lora.tensors().flat_map(|t| values(t.clone().inner())).map(f32::to_bits).collect()
}

fn train(model: &GptOss, adapters: LoraAdapters, micro: usize, steps: usize) -> (Vec<f32>, LoraAdapters) {
    let samples = samples(6, 19);
    let mut trainer = Trainer::new(model, adapters, config()).expect("valid");
    let batches: Vec<Vec<&Sample>> = samples.chunks(micro).map(|c| c.iter().collect()).collect();
    let losses = (0..steps).map(|_| trainer.step(&batches).expect("a step").loss).collect();
    (losses, trainer.into_adapters().expect("the device works"))
}

/// Another objective than cross-entropy.
#[derive(Debug)]
struct Twice;

impl Objective for Twice {
    fn token_losses(&self, model: &GptOss, hidden: Tensor<2>, rows: &[usize], targets: &[u32]) -> Tensor<1> {
        CrossEntropy.token_losses(model, hidden, rows, targets) * 2.0
    }
}

#[test]
fn a_step_goes_towards_the_objective_it_was_given() {
    let (model, samples) = (model(), samples(6, 19));
    let batch: Vec<&Sample> = samples.iter().collect();
    let first = |twice: bool| {
        let trainer = Trainer::new(&model, fresh(&model, &["q_proj"]), config()).expect("valid");
        let mut trainer = if twice { trainer.towards(Box::new(Twice)) } else { trainer };
        trainer.step(std::slice::from_ref(&batch)).expect("a step")
    };
    let (once, twice) = (first(false), first(true));
    assert!((twice.loss / once.loss - 2.0).abs() < 1e-5, "{} and {}", once.loss, twice.loss);
    assert!(
        (twice.grad_norm / once.grad_norm - 2.0).abs() < 1e-3,
        "{} and {}",
        once.grad_norm,
        twice.grad_norm
    );
}

#[test]
fn the_same_run_gives_the_same_bits_on_one_thread_and_on_three() {
    let model = model();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let (losses, lora) = train(&model, fresh(&model, &["q_proj", "gate_up_proj", "down_proj"]), 6, 5);
            (losses.iter().map(|l| l.to_bits()).collect::<Vec<_>>(), bits(&lora))
        })
    };
    let first = run(1);
    assert_eq!(first, run(1));
    assert_eq!(first, run(3));
}

#[test]
fn accumulation_is_the_mean_over_tokens_however_they_are_split() {
    let model = model();
    let whole = train(&model, fresh(&model, &["q_proj", "v_proj"]), 6, 5);
    let split = train(&model, fresh(&model, &["q_proj", "v_proj"]), 1, 5);
    for (a, b) in whole.0.iter().zip(&split.0) {
        assert!((a - b).abs() < 1e-5, "{a} != {b}");
    }
}

#[test]
fn training_lowers_the_loss_of_every_kind_of_site_alone() {
    let model = model();
    for kind in SiteKind::ALL {
        let (losses, _) = train(&model, fresh(&model, &[kind.name()]), 6, 8);
        assert!(losses[7] < losses[0], "{}: {losses:?}", kind.name());
    }
}

#[test]
fn a_site_without_gradient_is_an_error_after_the_third_step() {
    let model = model();
    let mut lora = fresh(&model, &["q_proj", "k_proj"]);
    // With A zero as well as B, nothing ever flows.
    lora.update(|i, t| if i == 2 { (t.inner() * 0.0).autodiff_leaf() } else { t });
    let samples = samples(2, 12);
    let batch = vec![samples.iter().collect()];
    let mut trainer = Trainer::new(&model, lora, config()).expect("valid");
    for _ in 1..PROVEN_AFTER_STEP {
        trainer.step(&batch).expect("too early to say");
    }
    let error = trainer.step(&batch).expect_err("one site is dead");
    assert!(
        matches!(error, Error::ZeroGradient { site, step, .. } if site.kind == SiteKind::Key && step == PROVEN_AFTER_STEP),
        "{error}"
    );
}

trait Leaf {
    fn autodiff_leaf(self) -> Self;
}

impl Leaf for Tensor<3> {
    fn autodiff_leaf(self) -> Self {
        Tensor::from_data(self.into_data(), &Device::flex().autodiff()).require_grad()
    }
}

#[test]
fn experts_that_no_token_reached_are_counted_and_no_error() {
    let model = model();
    let samples = samples(1, 3);
    let mut trainer = Trainer::new(&model, fresh(&model, &["down_proj"]), config()).expect("valid");
    for _ in 0..PROVEN_AFTER_STEP {
        trainer.step(&[samples.iter().collect()]).expect("a step");
    }
    // At most three tokens bear on the loss, two experts each: of eight at least two stay untouched in every layer.
    assert_eq!(trainer.unreached_experts().len(), model.config.num_hidden_layers);
    assert!(trainer.unreached_experts().values().all(|&n| (2..=7).contains(&n)));
}

#[test]
fn a_number_that_is_none_changes_nothing() {
    let model = model();
    let mut lora = fresh(&model, &["o_proj"]);
    lora.update(|i, t| if i == 1 { (t.inner() + f32::MAX).autodiff_leaf() } else { t });
    let before = bits(&lora);
    let samples = samples(2, 12);
    let mut trainer = Trainer::new(&model, lora, config()).expect("valid");
    let error = trainer.step(&[samples.iter().collect()]).expect_err("not finite");
    assert!(matches!(error, Error::NotFinite { step: 1, ref rows, .. } if *rows == [0, 1]), "{error}");
    assert_eq!(bits(trainer.adapters()), before);
    assert_eq!(trainer.steps(), 0);
}

#[test]
fn a_step_without_trained_tokens_is_refused() {
    let model = model();
    let mut samples = samples(2, 12);
    for sample in &mut samples {
        sample.weights.fill(0.0);
        // The first token is never predicted, so its weight trains nothing.
        sample.weights[0] = 1.0;
    }
    let mut trainer = Trainer::new(&model, fresh(&model, &["o_proj"]), config()).expect("valid");
    let error = trainer.step(&[samples.iter().collect()]).expect_err("nothing is trained");
    assert!(matches!(error, Error::NothingTrained { step: 1, samples: 2 }), "{error}");
}

#[test]
fn malformed_samples_and_settings_are_refused() {
    let model = model();
    let mut sample = samples(1, 5).remove(0);
    sample.row = 42;
    sample.weights.pop();
    let mut trainer = Trainer::new(&model, fresh(&model, &["o_proj"]), config()).expect("valid");
    assert!(matches!(trainer.step(&[vec![&sample]]), Err(Error::Sample { row: 42, .. })));
    let bad = TrainConfig { learning_rate: f64::NAN, ..config() };
    assert!(matches!(Trainer::new(&model, fresh(&model, &["o_proj"]), bad), Err(Error::Config(_))));
}
