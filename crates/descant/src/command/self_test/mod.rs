//! `descant bench --self-test`: whether the kernels are right and how fast they are on a GPU that nobody of us has.
//!
//! In order: every operator against the CPU, twice for the same bits; two training steps of a model with the layers of
//! the 20b against the CPU, twice again; the times of one step's operators against the GPU's own products. The end is a
//! block of text to paste into an issue. Nothing is downloaded: the model is made of random numbers. It does not test
//! memory limits, several GPUs, or generation.

mod made;
mod operators;
mod shown;
mod steps;

use anyhow::{Result, anyhow};
use descant_kernels::gauge;

use super::load;
use crate::cli::{KernelChoice, SelfTest};
use crate::failure::{Exit, Hinted};
use crate::talk::Talk;

pub(super) fn run(args: &SelfTest, talk: Talk) -> Result<Exit> {
    // First, because the device is named with its kernels.
    args.kernels.take();
    let chosen = load::device(&args.device.name)?;
    let device = &chosen.device;
    if descant_kernels::is_cpu(device) {
        let error = anyhow!("--self-test compares a GPU with the CPU, and the device is the {}", chosen.why);
        let hint = "run it where `descant doctor` finds a GPU: `cargo xtask --cuda bench --self-test`";
        return Err(Hinted::new(error, hint).into());
    }
    talk.item("device", &chosen.why);
    let begun = std::time::Instant::now();
    talk.item("compiling", "kernels, at first use up to a minute");
    let operators = operators::check(device, &operators::LIKE_20B, talk);
    let steps = steps::run(device, &made::LIKE_20B, talk)?;
    talk.item("rates", "the GPU's own products and copies");
    let rates = gauge::rates(device);
    let kernels = match args.kernels {
        KernelChoice::Auto => "by capability",
        KernelChoice::Portable => "portable, as asked",
    };
    let report = shown::Report {
        facts: shown::Facts::of(&chosen, kernels),
        operators,
        rates: shown::Rate::all(&steps.operators, &rates),
        steps,
        gemm_tflops: rates.flops / 1e12,
        copy_gb_per_second: rates.bytes / 1e9,
        seconds: begun.elapsed().as_secs_f64(),
    };
    if args.json {
        talk.data(serde_json::to_string(&report)?)?;
    } else {
        talk.data(report.block())?;
        talk.say("paste the block above into an issue, also where everything passed (docs/cards.md)");
    }
    Ok(if report.failures() == 0 { Exit::Success } else { Exit::No })
}
