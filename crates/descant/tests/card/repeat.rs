//! Twenty steps twice, and interrupted in the middle: the same bits, for both optimizers.

use descant_kernels::read_floats;
use descant_train::{OptimizerKind, Sample, TrainConfig, Trainer};

use crate::card;
use crate::models::{Case, varied};

const STEPS: usize = 20;

/// Losses, norms and the adapter after so many steps.
fn train(
    case: &Case,
    card: &burn::tensor::Device,
    optimizer: OptimizerKind,
) -> (Vec<[u32; 2]>, Vec<Vec<u32>>) {
    let model = case.load(card);
    let config = TrainConfig {
        optimizer,
        max_steps: STEPS as u64,
        warmup_steps: 2,
        learning_rate: 5e-3,
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::new(&model, case.adapter(&model), config).expect("valid");
    let ids = case.sequences(model.config.vocab_size);
    let samples: Vec<Sample> = (0..2 * STEPS)
        .map(|row| Sample {
            row,
            ids: ids[row % ids.len()].iter().map(|id| (id + row as u32) % 1000).collect(),
            weights: vec![1.0; ids[row % ids.len()].len()],
            first_analysis: None,
        })
        .collect();
    let mut told = Vec::new();
    for two in samples.chunks(2) {
        let micro: Vec<Vec<&Sample>> = two.iter().map(|sample| vec![sample]).collect();
        let result = trainer.step(&micro).expect("a step");
        told.push([result.loss.to_bits(), result.grad_norm.to_bits()]);
    }
    let bits = |tensor| read_floats(tensor).expect("values").into_iter().map(f32::to_bits).collect();
    let adapter = trainer.adapters().tensors().map(|tensor| bits(tensor.clone())).collect();
    (told, adapter)
}

#[test]
fn twenty_steps_twice_have_the_same_bits() {
    let Some(card) = card() else { return };
    let case = varied();
    for optimizer in [OptimizerKind::AdamW, OptimizerKind::AdamW8bit] {
        let (first, second) = (train(&case, &card, optimizer), train(&case, &card, optimizer));
        assert_eq!(first, second);
        assert_ne!(first.0[0][0], first.0[STEPS - 1][0], "nothing was learned");
    }
}
