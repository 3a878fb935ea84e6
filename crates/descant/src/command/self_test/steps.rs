//! Training steps of the made model: on the device against the CPU, twice for the same adapter, and the operators of one
//! longer step with their times.

use anyhow::{Context as _, Result};
use burn::tensor::Device;
use descant_kernels::{Keep, gauge};
use descant_lora::{LoraAdapters, LoraConfig};
use descant_model::{GptOss, Placement, SiteKind};
use descant_train::{Sample, Schedule, TrainConfig, Trainer};
use serde::Serialize;

use super::made::Made;
use crate::command::load;
use crate::command::random_ids::MersenneTwister;
use crate::command::timed::digest;
use crate::talk::Talk;

/// Steps that are compared: the second one's loss depends on the first one's update.
const COMPARED: usize = 2;
/// Of losses, in nats (docs/numerics.md).
pub(super) const LOSS: f64 = 3e-2;
/// Of a gradient's norm, relative.
pub(super) const NORM: f64 = 6e-2;

/// A step's loss and the norm of its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Step {
    pub(super) loss: f32,
    pub(super) norm: f32,
}

/// What the steps gave.
#[derive(Debug, Serialize)]
pub(super) struct Steps {
    pub(super) cpu: Vec<Step>,
    pub(super) device: Vec<Step>,
    /// SHA-256 of the adapter behind them, of two runs.
    pub(super) adapters: [String; 2],
    pub(super) tokens: usize,
    pub(super) seconds: f64,
    #[serde(skip)]
    pub(super) operators: Vec<gauge::OperatorTime>,
}

impl Steps {
    pub(super) fn equals_the_cpu(&self) -> bool {
        let near = |(a, b): (&Step, &Step)| {
            let (a, b) = ([a.loss, a.norm].map(f64::from), [b.loss, b.norm].map(f64::from));
            // NaN fails.
            (a[0] - b[0]).abs() <= LOSS && (a[1] - b[1]).abs() <= NORM * b[1].abs()
        };
        self.cpu.len() == self.device.len() && self.device.iter().zip(&self.cpu).all(near)
    }

    pub(super) fn same_bits(&self) -> bool {
        self.adapters[0] == self.adapters[1]
    }
}

pub(super) fn run(device: &Device, made: &Made, talk: Talk) -> Result<Steps> {
    talk.item("model", "random numbers in a temporary folder");
    let folder = made.write()?;
    let on = |device: &Device| load::model(folder.path(), device, Placement::default(), (None, Keep::Auto));
    talk.item("steps", "on the CPU");
    let (cpu, _) = trained(&on(&Device::flex())?, made, COMPARED, made.compared)?;
    talk.item("steps", "on the GPU");
    let model = on(device)?;
    let (first, one) = trained(&model, made, COMPARED, made.compared)?;
    let (_, two) = trained(&model, made, COMPARED, made.compared)?;
    // The first long step chooses algorithms.
    trained(&model, made, 1, made.timed)?;
    gauge::synchronize(device)?;
    let begun = std::time::Instant::now();
    trained(&model, made, 1, made.timed)?;
    gauge::synchronize(device)?;
    let seconds = begun.elapsed().as_secs_f64();
    gauge::profile(device, true);
    trained(&model, made, 1, made.timed)?;
    let operators = gauge::profiled(device);
    gauge::profile(device, false);
    Ok(Steps { cpu, device: first, adapters: [one, two], tokens: made.timed, seconds, operators })
}

/// Steps from a fresh adapter on all sites over one sequence; what they gave, and the adapter's digest.
fn trained(model: &GptOss, made: &Made, steps: usize, tokens: usize) -> Result<(Vec<Step>, String)> {
    let lora = LoraConfig {
        targets: SiteKind::ALL.map(|kind| kind.name().to_owned()).to_vec(),
        ..LoraConfig::default()
    };
    let config = TrainConfig {
        micro_batch: 1.into(),
        max_sequence: tokens,
        max_steps: steps as u64,
        schedule: Schedule::Constant,
        warmup_steps: 0,
        ..TrainConfig::default()
    };
    let mut random = MersenneTwister::new(3);
    let sample = Sample {
        row: 0,
        ids: (0..tokens).map(|_| random.next() % made.vocabulary as u32).collect(),
        weights: vec![1.0; tokens],
        first_analysis: None,
    };
    let adapters = LoraAdapters::init(&model.config, &lora, config.seed, &model.device().clone().autodiff())?;
    let mut trainer = Trainer::new(model, adapters, config)?;
    let mut all = Vec::new();
    for number in 1..=steps {
        let step = trainer.step(&[vec![&sample]]).with_context(|| format!("step {number}"))?;
        all.push(Step { loss: step.loss, norm: step.grad_norm });
    }
    Ok((all, digest(trainer.adapters())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Made = Made {
        hidden: 64,
        inner: 64,
        layers: 2,
        heads: 4,
        key_heads: 2,
        head_dim: 16,
        experts: 2,
        window: 8,
        vocabulary: 304,
        compared: 20,
        timed: 24,
    };

    #[test]
    fn steps_of_the_cpu_equal_themselves_and_the_folder_goes() {
        let steps = run(&Device::flex(), &SMALL, Talk::SILENT).unwrap();
        assert!(steps.equals_the_cpu() && steps.same_bits(), "{steps:?}");
        assert_eq!(steps.device.len(), COMPARED);
        assert!(steps.device.iter().all(|step| step.norm > 0.0 && step.loss > 0.0), "{steps:?}");
        assert!(steps.device[1].loss < steps.device[0].loss, "{steps:?}");
        let own = format!("descant-self-test-{}", std::process::id());
        assert!(!descant_files::list(&std::env::temp_dir()).unwrap().contains(&own));
    }

    #[test]
    fn other_losses_norms_and_adapters_fail() {
        let step = |loss, norm| Step { loss, norm };
        let of = |device| Steps {
            cpu: vec![step(8.0, 1.0)],
            device,
            adapters: ["a".into(), "b".into()],
            tokens: 1,
            seconds: 1.0,
            operators: Vec::new(),
        };
        assert!(of(vec![step(8.01, 1.01)]).equals_the_cpu());
        for wrong in [vec![step(8.1, 1.0)], vec![step(8.0, 1.1)], vec![step(f32::NAN, 1.0)], vec![]] {
            assert!(!of(wrong.clone()).equals_the_cpu(), "{wrong:?}");
        }
        assert!(!of(Vec::new()).same_bits());
    }
}
