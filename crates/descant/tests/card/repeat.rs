//! Twenty steps twice, and interrupted in the middle: the same bits, for both optimizers.

use burn::tensor::Device;
use descant_kernels::read_floats;
use descant_train::memory::Arrangement;
use descant_train::{OptimizerKind, Sample, TrainConfig, Trainer, Workers};

use crate::card;
use crate::models::{Case, varied};

const STEPS: usize = 20;
const MICRO_BATCHES: usize = 3;

/// What a run reported, and the bits of its adapter at the end.
#[derive(Debug, PartialEq)]
pub(crate) struct Done {
    /// Bits of loss and norm of each step.
    told: Vec<[u32; 2]>,
    adapter: Vec<Vec<u32>>,
}

/// Trains; with `stop`, by two trainers of which the second continues from the first one's state after so many steps.
pub(crate) fn train(
    case: &Case,
    card: &Device,
    how: Arrangement,
    optimizer: OptimizerKind,
    stop: Option<usize>,
) -> Done {
    train_among(case, card, how, optimizer, stop, None)
}

/// The same as one of the processes that share the steps.
pub(crate) fn train_among(
    case: &Case,
    card: &Device,
    how: Arrangement,
    optimizer: OptimizerKind,
    stop: Option<usize>,
    workers: Option<Workers<'_>>,
) -> Done {
    let model = case.load_placed(card, how.placement);
    let config = TrainConfig {
        optimizer,
        max_steps: STEPS as u64,
        warmup_steps: 2,
        learning_rate: 5e-3,
        ..TrainConfig::default()
    };
    let trainer = || {
        let trainer = Trainer::new(&model, case.adapter(&model), config.clone()).expect("valid");
        let trainer = trainer.arranged(how);
        match workers {
            // At most all of them, and as many that come.
            Some(workers) => trainer.shared(workers, 2 * MICRO_BATCHES as u64),
            None => trainer,
        }
    };
    let mut current = trainer();
    let ids = case.sequences(model.config.vocab_size);
    let sample = |row: usize| {
        let ids: Vec<u32> = ids[row % ids.len()].iter().map(|id| (id + row as u32) % 1000).collect();
        Sample { row, weights: vec![1.0; ids.len()], ids, first_analysis: None }
    };
    let mut told = Vec::new();
    for step in 0..STEPS {
        if stop == Some(step) {
            let state = current.state().expect("a state");
            current = trainer();
            current.restore(&state).expect("its own state");
        }
        let samples: Vec<Sample> = (0..MICRO_BATCHES).map(|n| sample(MICRO_BATCHES * step + n)).collect();
        let micro: Vec<Vec<&Sample>> = samples.iter().map(|sample| vec![sample]).collect();
        let result = current.step(&micro).expect("a step");
        told.push([result.loss.to_bits(), result.grad_norm.to_bits()]);
    }
    let bits = |tensor| read_floats(tensor).expect("values").into_iter().map(f32::to_bits).collect();
    Done { told, adapter: current.adapters().tensors().map(|tensor| bits(tensor.clone())).collect() }
}

#[test]
#[ignore = "needs a card"]
fn twenty_steps_twice_and_resumed_have_the_same_bits() {
    let card = card();
    let case = varied();
    let on_card = Arrangement::default();
    for optimizer in [OptimizerKind::AdamW, OptimizerKind::AdamW8bit] {
        let whole = train(&case, &card, on_card, optimizer, None);
        assert_eq!(whole, train(&case, &card, on_card, optimizer, None), "{optimizer:?}, again");
        for stop in [1, 10] {
            assert_eq!(
                whole,
                train(&case, &card, on_card, optimizer, Some(stop)),
                "{optimizer:?}, stopped after {stop}"
            );
        }
        assert_ne!(whole.told[0][0], whole.told[STEPS - 1][0], "nothing was learned");
    }
}
