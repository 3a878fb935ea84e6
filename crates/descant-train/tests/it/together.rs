//! Several micro-batches through a layer before the next one are the same steps, bit for bit.

use burn::tensor::Device;
use descant_kernels::read_floats;
use descant_lora::{LoraAdapters, LoraConfig};
use descant_train::memory::Arrangement;
use descant_train::{Sample, TrainConfig, Trainer};

use crate::resume::{config, model, samples};

const STEPS: usize = 4;

/// Bits of loss, norm and norms by site of each step, and of the adapter at the end.
type Bits = (Vec<Vec<u32>>, Vec<Vec<u32>>);

fn train(lora: &LoraConfig, micro_batches: &[Vec<Sample>], together: usize) -> Bits {
    let device = Device::flex().autodiff();
    let adapters = LoraAdapters::init(&model().config, lora, 7, &device).expect("valid");
    let config = TrainConfig { max_steps: 60, warmup_steps: 1, ..config(60) };
    let mut trainer = Trainer::new(model(), adapters, config)
        .expect("valid")
        .arranged(Arrangement { together, ..Arrangement::default() });
    trainer.watch(true);
    let mut told = Vec::new();
    for step in 0..STEPS {
        let of_step: Vec<Vec<&Sample>> = micro_batches.iter().map(|batch| batch.iter().collect()).collect();
        let result = trainer.step(&of_step[step % 2..]).expect("a step");
        let norms = result.site_norms.expect("it was watched");
        told.push([result.loss, result.grad_norm].into_iter().chain(norms).map(f32::to_bits).collect());
    }
    let bits = |tensor| read_floats(tensor).expect("values").into_iter().map(f32::to_bits).collect();
    (told, trainer.adapters().tensors().map(|tensor| bits(tensor.clone())).collect())
}

/// Five micro-batches of one to three samples; nothing is trained in the third.
fn micro_batches() -> Vec<Vec<Sample>> {
    let mut batches: Vec<Vec<Sample>> =
        [0..1, 1..3, 3..4, 4..7, 7..8].into_iter().map(|rows| samples()[rows].to_vec()).collect();
    batches[2][0].weights.fill(0.0);
    batches
}

#[test]
fn the_bits_do_not_depend_on_how_many_go_together() {
    let batches = micro_batches();
    for targets in [
        &["q_proj", "k_proj", "v_proj", "o_proj"][..],
        &["down_proj"],
        &["v_proj", "router", "gate_up_proj", "down_proj"],
    ] {
        let targets = targets.iter().map(|name| (*name).to_owned()).collect();
        let lora = LoraConfig { r: 2, alpha: 4.0, targets };
        let alone = train(&lora, &batches, 1);
        for together in [2, 3, 4, 64] {
            assert_eq!(alone, train(&lora, &batches, together), "{together} together, {:?}", lora.targets);
        }
        assert_ne!(alone.0[0], alone.0[STEPS - 1], "nothing was learned");
        // The control: in another order the sums are other ones.
        let other: Vec<Vec<Sample>> = batches.iter().rev().cloned().collect();
        assert_ne!(alone.1, train(&lora, &other, 2).1, "the order shows");
    }
}
