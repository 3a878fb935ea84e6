//! What `descant bench step` says: a row of JSON, or lines for people with a table of operators.

use anyhow::Result;
use descant_kernels::gauge;
use descant_train::fp8::Deviation;
use serde::Serialize;

use super::bench_cards::Scaling;
use super::in_fp8::InFp8;
use crate::talk::Talk;
use crate::words::grouped;

/// What is printed.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    pub(super) device: String,
    pub(super) card: Option<String>,
    pub(super) batch: usize,
    pub(super) sequence: usize,
    pub(super) accumulate: usize,
    pub(super) experts: bool,
    /// `bf16` or `fp8`: in which numbers a step multiplies with the experts' frozen weights.
    pub(super) experts_numbers: &'static str,
    /// Products with experts that are in bf16 all the same.
    pub(super) experts_in_bf16: Vec<String>,
    /// How far an untrained step in fp8 is from one in bf16 on the same tokens, and what of it is beyond a gate.
    pub(super) experts_deviation: Option<Deviation>,
    pub(super) experts_beyond: Vec<String>,
    /// `auto` or `portable`.
    pub(super) kernels: &'static str,
    pub(super) keep: String,
    pub(super) trained_parameters: usize,
    pub(super) tokens_per_step: usize,
    pub(super) load_seconds: f64,
    pub(super) first_step_seconds: f64,
    pub(super) step_seconds: Vec<f64>,
    pub(super) step_seconds_median: f64,
    pub(super) tokens_per_second: f64,
    /// Bytes, where there was a limit.
    pub(super) memory_limit: Option<u64>,
    pub(super) planned_memory_gib: f64,
    pub(super) peak_memory_gib: Option<f64>,
    pub(super) memory_plan: Option<String>,
    /// In which formats the weights came.
    pub(super) weights: String,
    pub(super) placement: Option<String>,
    /// Micro-batches that go through a layer before the next.
    pub(super) together: usize,
    pub(super) bus_gb_per_second: Option<f64>,
    pub(super) model_tflops: f64,
    pub(super) model_to_gemm: f64,
    pub(super) gemm_tflops: f64,
    pub(super) copy_gb_per_second: f64,
    pub(super) losses: Vec<f32>,
    /// SHA-256 of the adapter's f32 values after the steps: equal runs end with equal bytes.
    pub(super) adapter_sha256: String,
    pub(super) operators: Vec<Operator>,
    /// The same step by several cards, where that was asked for; everything above is of one.
    pub(super) cards: Option<Scaling>,
}

/// A row of the table.
#[derive(Debug, Serialize)]
pub(super) struct Operator {
    pub(super) name: &'static str,
    pub(super) count: u64,
    pub(super) milliseconds: f64,
    pub(super) floor_milliseconds: f64,
    pub(super) ratio: f64,
    pub(super) tflops: f64,
    pub(super) gb_per_second: f64,
}

/// A row an operator, and one for what is left of the step that they were recorded in: the rows sum to that step, which
/// recording has made a little slower. None where nothing is recorded.
pub(super) fn rows(operators: &[gauge::OperatorTime], whole: f64, rates: &gauge::Rates) -> Vec<Operator> {
    let seconds = whole - operators.iter().map(|operator| operator.seconds).sum::<f64>();
    let rest = gauge::OperatorTime { name: "between operators", count: 1, seconds, flops: 0.0, bytes: 0.0 };
    let rest = Some(rest).filter(|_| !operators.is_empty());
    operators.iter().chain(&rest).map(|operator| row(operator, rates)).collect()
}

fn row(operator: &gauge::OperatorTime, rates: &gauge::Rates) -> Operator {
    let floor = operator.floor(rates);
    Operator {
        name: operator.name,
        count: operator.count,
        milliseconds: operator.seconds * 1e3,
        floor_milliseconds: floor * 1e3,
        ratio: operator.seconds / floor,
        tflops: operator.flops / operator.seconds / 1e12,
        gb_per_second: operator.bytes / operator.seconds / 1e9,
    }
}

pub(super) fn print(answer: &Answer, in_fp8: Option<&InFp8>, talk: Talk) -> Result<()> {
    talk.data(format_args!(
        "{} x {} tokens x {}: {} tok/s, {:.3} s a step (median of {})",
        answer.batch,
        answer.sequence,
        answer.accumulate,
        grouped(answer.tokens_per_second as u64),
        answer.step_seconds_median,
        answer.step_seconds.len()
    ))?;
    if let Some(peak) = answer.peak_memory_gib {
        let planned = answer.planned_memory_gib;
        talk.data(format_args!("memory in use at most {peak:.2} GiB, planned {planned:.2}"))?;
    }
    if let Some(in_fp8) = in_fp8 {
        talk.data(format_args!("experts in {}", in_fp8.words()))?;
    }
    if let Some(deviation) = &answer.experts_deviation {
        talk.data(deviation.words())?;
        deviation.warning().into_iter().for_each(|warning| talk.warn(warning));
    }
    for words in [&answer.memory_plan, &answer.placement].into_iter().flatten() {
        talk.data(words)?;
    }
    talk.data(format_args!(
        "model {:.3} TFLOP/s, {:.1} % of a large product's {:.3}; copies {:.0} GB/s; load {:.1} s, first step {:.1} s",
        answer.model_tflops,
        100.0 * answer.model_to_gemm,
        answer.gemm_tflops,
        answer.copy_gb_per_second,
        answer.load_seconds,
        answer.first_step_seconds
    ))?;
    if let Some(cards) = &answer.cards {
        talk.data(cards.words())?;
    }
    if !answer.operators.is_empty() {
        talk.data(format_args!(
            "{:<28} {:>6} {:>10} {:>10} {:>6}",
            "operator", "count", "ms", "floor ms", "ratio"
        ))?;
    }
    for row in &answer.operators {
        talk.data(format_args!(
            "{:<28} {:>6} {:>10.3} {:>10.3} {:>6.2}",
            row.name, row.count, row.milliseconds, row.floor_milliseconds, row.ratio
        ))?;
    }
    Ok(())
}
