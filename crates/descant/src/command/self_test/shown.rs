//! The block of text that a self-test ends with.

use std::fmt::Write as _;

use descant_kernels::gauge;
use serde::Serialize;

use super::operators::{self, Checked};
use super::steps::{self, Steps};
use crate::command::load::Chosen;
use crate::words::grouped;

/// What is printed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) facts: Facts,
    pub(super) operators: Vec<Checked>,
    pub(super) steps: Steps,
    pub(super) rates: Vec<Rate>,
    /// Of a large product, and of a copy, on the same device.
    pub(super) gemm_tflops: f64,
    pub(super) copy_gb_per_second: f64,
    pub(super) seconds: f64,
}

/// Which program, which device.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    program: String,
    device: String,
    kernels: &'static str,
    driver: Option<String>,
    multiprocessors: Option<u32>,
    memory_bytes: Option<u64>,
    /// What other programs have, a desktop among them.
    others_bytes: Option<u64>,
    bus_gb_per_second: Option<f64>,
}

impl Facts {
    pub(super) fn of(chosen: &Chosen, kernels: &'static str) -> Self {
        let shares = gauge::shares(&chosen.device);
        Self {
            program: format!("descant {}, commit {}", crate::version::VERSION, crate::version::COMMIT),
            device: chosen.why.clone(),
            kernels,
            driver: crate::command::doctor::driver(),
            multiprocessors: multiprocessors(chosen),
            memory_bytes: shares.map(|shares| shares.total),
            others_bytes: shares.map(|shares| shares.others()),
            bus_gb_per_second: gauge::bus_rate(&chosen.device).map(|rate| rate / 1e9),
        }
    }
}

#[cfg(feature = "cuda")]
fn multiprocessors(chosen: &Chosen) -> Option<u32> {
    let index = descant_kernels::cuda::index_of(&chosen.device)?;
    Some(descant_kernels::cuda::Gpu::of(index).ok()?.multiprocessors())
}

#[cfg(not(feature = "cuda"))]
fn multiprocessors(_chosen: &Chosen) -> Option<u32> {
    None
}

/// An operator's time in the longer step.
#[derive(Debug, Serialize)]
pub(super) struct Rate {
    name: &'static str,
    milliseconds: f64,
    tflops: f64,
    /// Of the least time that its operations and bytes take at the device's own rates.
    share: f64,
}

impl Rate {
    /// Operators that take a hundredth of a step and more.
    pub(super) fn all(times: &[gauge::OperatorTime], rates: &gauge::Rates) -> Vec<Self> {
        let all: f64 = times.iter().map(|time| time.seconds).sum();
        let rate = |time: &gauge::OperatorTime| Self {
            name: time.name,
            milliseconds: time.seconds * 1e3,
            tflops: time.flops / time.seconds / 1e12,
            share: time.floor(rates) / time.seconds,
        };
        times.iter().filter(|time| time.seconds >= 0.01 * all).map(rate).collect()
    }
}

impl Report {
    pub(super) fn failures(&self) -> usize {
        let failed = self.operators.iter().filter(|checked| !checked.passed()).count();
        failed + usize::from(!self.steps.equals_the_cpu()) + usize::from(!self.steps.same_bits())
    }

    /// In Markdown, as a block of code.
    pub(super) fn block(&self) -> String {
        let mut text = String::from("```text\n");
        self.write(&mut text).expect("writes to memory");
        text + "```"
    }

    fn write(&self, to: &mut String) -> std::fmt::Result {
        let facts = &self.facts;
        let gib = |bytes: Option<u64>| {
            bytes.map_or_else(
                || "?".to_owned(),
                |bytes| format!("{:.2} GiB", bytes as f64 / crate::words::GIB),
            )
        };
        writeln!(to, "self-test of {}", facts.program)?;
        writeln!(to, "device     {}", facts.device)?;
        writeln!(to, "kernels    {}", facts.kernels)?;
        writeln!(to, "driver     {}", facts.driver.as_deref().unwrap_or("?"))?;
        let count = facts.multiprocessors.map_or_else(|| "?".to_owned(), |count| count.to_string());
        let bus = facts.bus_gb_per_second.map_or_else(|| "?".to_owned(), |rate| format!("{rate:.1}"));
        writeln!(to, "memory     {}, {} of it others'", gib(facts.memory_bytes), gib(facts.others_bytes))?;
        writeln!(to, "bus        {bus} GB/s; {count} multiprocessors")?;
        writeln!(
            to,
            "products   {:.1} TFLOP/s, copies {:.0} GB/s",
            self.gemm_tflops, self.copy_gb_per_second
        )?;
        match self.failures() {
            0 => writeln!(to, "result     everything passed, {:.0} s", self.seconds)?,
            failures => writeln!(to, "result     FAILED: {failures}, {:.0} s", self.seconds)?,
        }
        writeln!(
            to,
            "\noperators against the CPU, forward and backward, at most {:.0e}",
            operators::TOLERANCE
        )?;
        for checked in &self.operators {
            let word = if checked.passed() { "ok" } else { "FAILED" };
            let error = checked.error.map_or_else(|| "-".to_owned(), |error| format!("{error:.1e}"));
            let bits = if checked.same_bits { "same bits twice" } else { "OTHER BITS" };
            write!(to, "  {word:<7} {:<28} {error:>8}  {bits}", checked.name)?;
            writeln!(to, "{}", checked.failed.as_ref().map_or_else(String::new, |why| format!("  {why}")))?;
        }
        let steps = &self.steps;
        writeln!(
            to,
            "\ntraining steps against the CPU, losses within {:.0e}, norms within {:.0e}",
            steps::LOSS,
            steps::NORM
        )?;
        for (number, (own, cpu)) in steps.device.iter().zip(&steps.cpu).enumerate() {
            let number = number + 1;
            let (own_loss, own_norm, loss, norm) = (own.loss, own.norm, cpu.loss, cpu.norm);
            writeln!(to, "  step {number}  loss {own_loss:.5} ({loss:.5})  norm {own_norm:.5} ({norm:.5})")?;
        }
        writeln!(to, "  {}", if steps.equals_the_cpu() { "ok" } else { "FAILED" })?;
        writeln!(to, "  {}", if steps.same_bits() { "ok, same bits twice" } else { "FAILED, OTHER BITS" })?;
        let rate = steps.tokens as f64 / steps.seconds;
        writeln!(
            to,
            "\na step of two layers, {} tokens: {:.1} ms, {} tok/s",
            steps.tokens,
            steps.seconds * 1e3,
            grouped(rate as u64)
        )?;
        writeln!(to, "  {:<28} {:>9} {:>9} {:>12}", "operator", "ms", "TFLOP/s", "of the least")?;
        for rate in &self.rates {
            writeln!(
                to,
                "  {:<28} {:>9.3} {:>9.1} {:>10.0} %",
                rate.name,
                rate.milliseconds,
                rate.tflops,
                100.0 * rate.share
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::self_test::steps::Step;

    fn report(error: f64, loss: f32) -> Report {
        let facts = Facts {
            program: "descant 0.0.0, commit abc".into(),
            device: "cuda:0, NVIDIA GeForce RTX 3060".into(),
            kernels: "by capability",
            driver: None,
            multiprocessors: Some(28),
            memory_bytes: Some(12 << 30),
            others_bytes: Some(1 << 29),
            bus_gb_per_second: Some(12.34),
        };
        let time = |name, seconds| gauge::OperatorTime { name, count: 1, seconds, flops: 1e9, bytes: 1.0 };
        let rates = gauge::Rates { flops: 1e13, bytes: 1e11 };
        let times = [time("experts gate_up", 2e-4), time("a thousandth", 1e-7)];
        Report {
            facts,
            operators: vec![Checked {
                name: "rms norm".into(),
                error: Some(error),
                same_bits: true,
                failed: None,
            }],
            steps: Steps {
                cpu: vec![Step { loss: 8.0, norm: 1.0 }],
                device: vec![Step { loss, norm: 1.0 }],
                adapters: ["a".into(), "a".into()],
                tokens: 2048,
                seconds: 0.1,
                operators: Vec::new(),
            },
            rates: Rate::all(&times, &rates),
            gemm_tflops: 10.0,
            copy_gb_per_second: 100.0,
            seconds: 61.0,
        }
    }

    #[test]
    fn the_block_says_everything_and_what_failed() {
        let block = report(1e-3, 8.0).block();
        for part in [
            "```text\nself-test of descant",
            "NVIDIA GeForce RTX 3060",
            "12.00 GiB, 0.50 GiB of it others'",
            "bus        12.3 GB/s; 28 multiprocessors",
            "everything passed, 61 s",
            "20,480 tok/s",
            "experts gate_up                  0.200       5.0         50 %",
        ] {
            assert!(block.contains(part), "{part} in\n{block}");
        }
        assert!(block.ends_with("```") && !block.contains("FAILED") && !block.contains("a thousandth"));
        let wrong = report(0.5, 9.0);
        assert_eq!(wrong.failures(), 2);
        assert!(wrong.block().contains("result     FAILED: 2") && wrong.block().contains("FAILED  rms norm"));
        serde_json::to_string(&wrong).unwrap();
    }
}
