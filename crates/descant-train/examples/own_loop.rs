//! Trains an adapter on tokens from a loop of one's own, without files and without the command line:
//!
//! ```sh
//! cargo run --release -p descant-train --example own_loop
//! ```
//!
//! The tiny model of the repository is taught one sequence of tokens. What is asked of a caller is ids and a weight
//! for each: 1 where the token is to be learned, 0 where it only is context.
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::error::Error;
use std::path::Path;

use burn::tensor::Device;
use descant_lora::{LoraAdapters, LoraConfig};
use descant_model::GptOss;
use descant_train::{Sample, TrainConfig, Trainer};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss");

fn main() -> Result<(), Box<dyn Error>> {
    let losses = train(Path::new(MODEL), 12)?;
    for (step, loss) in losses.iter().enumerate() {
        println!("step {:>2}  loss {loss:.4}", step + 1);
    }
    Ok(())
}

/// The loss of each step.
fn train(dir: &Path, steps: u64) -> Result<Vec<f32>, Box<dyn Error>> {
    let device = Device::flex();
    let model = GptOss::load(dir, &device)?;
    // The adapter lies on a device that records; the base does not.
    let config = TrainConfig { max_steps: steps, learning_rate: 5e-3, ..TrainConfig::default() };
    let adapters =
        LoraAdapters::init(&model.config, &LoraConfig::default(), config.seed, &device.autodiff())?;
    let ids: Vec<u32> = (100..140).collect();
    // The first ten tokens are given, the others are to be learned.
    let weights = (0..ids.len()).map(|at| if at < 10 { 0.0 } else { 1.0 }).collect();
    let sample = Sample { row: 1, ids, weights, first_analysis: None };
    let mut trainer = Trainer::new(&model, adapters, config)?;
    let mut losses = Vec::new();
    for _ in 0..steps {
        losses.push(trainer.step(&[vec![&sample]])?.loss);
    }
    Ok(losses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_learns() {
        let losses = train(Path::new(MODEL), 8).unwrap();
        assert!(losses[7] < 0.9 * losses[0], "{losses:?}");
    }
}
