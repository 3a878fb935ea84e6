//! `descant bench generate`: how fast a model continues prompts, with the time to the first token, the share of what the
//! bytes of a step allow, and where the time goes.
//!
//! Prompts are random ids and continue greedily to the end, so that every step has all sequences. Ceilings are measured in
//! the same process, so that every ratio is of one run.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use burn::tensor::Device;
use descant_kernels::gauge;
use descant_lora::{LoraAdapters, LoraConfig};
use descant_model::{
    Bare, Config, GenerateOptions, Go, GptOss, NewToken, Overlay, Request, SiteKind, StopReason, Watch,
};
use descant_train::memory::Asking;
use serde::Serialize;

use super::load;
use super::random_ids::MersenneTwister;
use super::room::{self, place_for_asking};
use crate::cli::BenchGenerate;
use crate::failure::{Exit, Hinted, NotEnoughMemory};
use crate::talk::Talk;
use crate::words::{GIB, grouped};

const BF16: f64 = 2.0;
/// Seed of an adapter that was never trained.
const SEED: u64 = 0;

/// What is printed.
#[derive(Debug, Serialize)]
struct Answer {
    device: String,
    card: Option<String>,
    batch: usize,
    prompts: usize,
    context: usize,
    new_tokens: usize,
    /// Bytes, where there was a limit.
    memory_limit: Option<u64>,
    adapter: String,
    load_seconds: f64,
    /// From the prompts to the first token of each, in the first run of the process and in the one that is measured.
    cold_first_token_seconds: f64,
    first_token_seconds: f64,
    prefill_tokens_per_second: f64,
    /// Of the steps in which all sequences take part.
    milliseconds_per_token: f64,
    tokens_per_second: f64,
    /// From the first prompt to the last token of all, and new tokens a second of that.
    seconds_in_all: f64,
    tokens_per_second_in_all: f64,
    /// Bytes that a step has to read, and the share of the time that they take at the rate of a copy.
    bytes_per_step: f64,
    share_of_floor: f64,
    copy_gb_per_second: f64,
    peak_memory_gib: Option<f64>,
    placement: Option<String>,
    weights: String,
    /// SHA-256 of the new ids.
    ids_sha256: String,
    operators: Vec<Operator>,
}

/// A row of the table: of one step.
#[derive(Debug, Serialize)]
struct Operator {
    name: &'static str,
    count: f64,
    microseconds: f64,
    gb_per_second: f64,
}

/// What became of prompts.
struct Asked {
    clock: Clock,
    /// Seconds to the first token of those who came first, and to the end.
    first: f64,
    seconds: f64,
    ids: Vec<Vec<u32>>,
}

/// When tokens came.
#[derive(Debug, Default)]
struct Clock {
    /// Where operators are timed, and so many steps from when all sequences are at work; some steps later all end.
    profiled: Option<(Device, usize)>,
    sequences: usize,
    begun: usize,
    /// When all sequences had their first token.
    first: Option<Instant>,
    /// The last token before one of them ended, and how many came since.
    last: Option<Instant>,
    tokens: usize,
    has_ended: bool,
}

impl Clock {
    /// Tokens a second while all sequences are at work.
    fn rate(&self) -> f64 {
        let seconds = self.last.zip(self.first).map(|(last, first)| (last - first).as_secs_f64());
        seconds.map_or(f64::NAN, |seconds| self.tokens as f64 / seconds)
    }
}

impl Watch for Clock {
    fn token(&mut self, token: &NewToken<'_>) -> Go {
        let now = Instant::now();
        if self.first.is_some() && !self.has_ended {
            (self.last, self.tokens) = (Some(now), self.tokens + 1);
        }
        if token.step == 0 {
            self.begun += 1;
            if self.begun == self.sequences {
                self.first = Some(now);
            }
        }
        let Some((device, before)) = self.profiled.as_ref().filter(|_| self.first.is_some()) else {
            return Go::On;
        };
        if self.tokens == before * self.sequences {
            gauge::profile(device, true);
        }
        if self.tokens >= (before + PROFILED) * self.sequences { Go::EndAll } else { Go::On }
    }

    fn ended(&mut self, _: usize, _: StopReason) {
        self.has_ended = true;
    }
}

/// Measures and prints.
pub(super) fn run(args: &BenchGenerate, model: &Path, talk: Talk) -> Result<Exit> {
    load::check_dir(model)?;
    let device = load::said_device(&args.on.device.name, talk)?;
    let architecture = load::config(model)?;
    let tokens = (args.context + args.new) as u64;
    let asking = Asking { batch: args.batch as u64, tokens, scored: 0 };
    let limit = args.on.memory.bytes();
    let (placement, fits) = place_for_asking(&device, limit, &architecture, asking, 1)?;
    if fits.batch < asking.batch {
        let error = NotEnoughMemory(format!(
            "not enough memory on {} for {} prompts at once",
            device.name, args.batch
        ));
        return Err(Hinted::new(error, format!("--batch {} fits", fits.batch)).into());
    }
    let started = Instant::now();
    let model = load::model(model, &device.device, placement, (limit, descant_kernels::Keep::Auto))?;
    gauge::synchronize(&device.device)?;
    let load_seconds = started.elapsed().as_secs_f64();
    let (overlay, words) = overlay(args, &model, &device)?;
    let mut random = MersenneTwister::new(0);
    let limit = (model.config.vocab_size as u32).min(super::random_ids::ID_LIMIT);
    let prompts = args.prompts.unwrap_or(args.batch).max(args.batch);
    let requests: Vec<Request> = (0..prompts)
        .map(|_| {
            let prompt = (0..args.context).map(|_| random.next() % limit).collect();
            Request { adapter: true, ..Request::greedy(prompt, args.new) }
        })
        .collect();
    let ask = |prompts: usize, new: usize, profiled: Option<(Device, usize)>| -> Result<Asked> {
        let requests: Vec<Request> =
            requests[..prompts].iter().map(|one| Request { max_new_tokens: new, ..one.clone() }).collect();
        let options = GenerateOptions { at_once: Some(args.batch), ..GenerateOptions::default() };
        let clock = Clock { sequences: args.batch, profiled, ..Clock::default() };
        let (mut clock, start) = (clock, Instant::now());
        let made = model.generate(&requests, overlay.as_ref(), &options, &mut clock)?;
        let seconds = start.elapsed().as_secs_f64();
        let first = clock.first.context("a token")?.duration_since(start).as_secs_f64();
        Ok(Asked { clock, first, seconds, ids: made.into_iter().map(|one| one.ids).collect() })
    };
    let cold_first_token_seconds = ask(args.batch, args.new, None)?.first;
    let Asked { clock, first: first_token_seconds, seconds, ids } = ask(prompts, args.new, None)?;
    anyhow::ensure!(
        clock.tokens > 0,
        "the first replies end before the last prompts are read: raise --new, or lower --batch or --context"
    );
    let peak = room::in_use(&device);
    // In the middle of the replies, where sequences are as long as on the average.
    let before = (args.new / 2).saturating_sub(PROFILED);
    ask(args.batch, args.new, Some((device.device.clone(), before)))?;
    let operators = gauge::profiled(&device.device);
    gauge::profile(&device.device, false);
    // Each step chooses once.
    let chosen = operators.iter().find(|operator| operator.name == "choose");
    let steps = chosen.map_or(PROFILED as f64, |operator| operator.count as f64);
    let rates = gauge::rates(&device.device);
    let bytes = bytes_per_step(&model.config, args.batch, args.context + args.new / 2);
    let step = args.batch as f64 / clock.rate();
    let answer = Answer {
        device: device.why,
        card: gauge::card(&device.device),
        batch: args.batch,
        prompts,
        context: args.context,
        new_tokens: args.new,
        memory_limit: args.on.memory.bytes(),
        adapter: words,
        load_seconds,
        cold_first_token_seconds,
        first_token_seconds,
        prefill_tokens_per_second: (args.batch * args.context) as f64 / first_token_seconds,
        milliseconds_per_token: step * 1e3,
        tokens_per_second: args.batch as f64 / step,
        seconds_in_all: seconds,
        tokens_per_second_in_all: ids.iter().map(Vec::len).sum::<usize>() as f64 / seconds,
        bytes_per_step: bytes,
        share_of_floor: bytes / rates.bytes / step,
        copy_gb_per_second: rates.bytes / 1e9,
        peak_memory_gib: peak.map(|bytes| bytes as f64 / GIB),
        placement: placement.words(),
        weights: model.formats().to_string(),
        ids_sha256: digest(&ids),
        operators: operators.iter().map(|operator| row(operator, steps)).collect(),
    };
    if args.on.json {
        talk.data(serde_json::to_string(&answer)?)?;
    } else {
        print(&answer, talk)?;
    }
    Ok(Exit::Success)
}

/// Steps whose operators are timed, all with every sequence.
const PROFILED: usize = 8;

/// The adapter that takes part: a trained one, or one as training begins with it, which costs the same.
fn overlay(
    args: &BenchGenerate,
    model: &GptOss,
    device: &load::Chosen,
) -> Result<(Box<dyn Overlay>, String)> {
    if let Some(from) = &args.adapter {
        return Ok((load::overlay(Some(from), model)?, from.display().to_string()));
    }
    let Some(r) = args.rank else { return Ok((Box::new(Bare), "none".to_owned())) };
    let mut lora = LoraConfig { r, ..LoraConfig::default() };
    if args.experts {
        let more = [SiteKind::Router, SiteKind::GateUp, SiteKind::Down];
        lora.targets.extend(more.map(|kind| kind.name().to_owned()));
    }
    let words = format!("rank {r} on {}", lora.targets.join(", "));
    let graph = device.device.clone().autodiff();
    let mut adapter = LoraAdapters::init(&model.config, &lora, SEED, &graph)?;
    adapter.update(|_, tensor| tensor.inner());
    Ok((Box::new(adapter), words))
}

/// Bytes that one step reads at least: attention, the chosen experts and the head once, and keys and values of each
/// sequence.
fn bytes_per_step(config: &Config, batch: usize, context: usize) -> f64 {
    let numbers = |kind: SiteKind| {
        let dims = config.site_dims(kind);
        (dims.d_in * dims.d_out) as f64
    };
    let dense: f64 =
        SiteKind::ALL.into_iter().filter(|kind| !kind.is_expert()).map(|kind| BF16 * numbers(kind)).sum();
    // Of so many tokens each goes to `k` of the experts, which are taken to be as likely as each other.
    let missed = 1.0 - config.num_experts_per_tok as f64 / config.num_local_experts as f64;
    let chosen = config.num_local_experts as f64 * (1.0 - missed.powi(batch as i32));
    let of_experts: f64 = [SiteKind::GateUp, SiteKind::Down]
        .map(|kind| config.packing.bytes(numbers(kind) as u64, 2) as f64)
        .iter()
        .sum();
    let head = BF16 * (config.hidden_size * config.vocab_size) as f64;
    let keys: f64 = (0..config.num_hidden_layers)
        .map(|layer| config.window(layer).map_or(context, |window| window.min(context)) as f64)
        .sum();
    let cache = batch as f64 * keys * 2.0 * BF16 * config.key_value_width() as f64;
    config.num_hidden_layers as f64 * (dense + chosen * of_experts) + head + cache
}

fn row(operator: &gauge::OperatorTime, steps: f64) -> Operator {
    Operator {
        name: operator.name,
        count: operator.count as f64 / steps,
        microseconds: operator.seconds * 1e6 / steps,
        gb_per_second: operator.bytes / operator.seconds / 1e9,
    }
}

fn digest(ids: &[Vec<u32>]) -> String {
    let bytes: Vec<u8> = ids.iter().flatten().flat_map(|id| id.to_le_bytes()).collect();
    descant_files::sha256(&bytes)
}

fn print(answer: &Answer, talk: Talk) -> Result<()> {
    talk.data(format_args!(
        "{} at once behind {} tokens: {} tok/s, {:.3} ms a token, {:.0} % of what {:.2} GB a step allow",
        answer.batch,
        answer.context,
        grouped(answer.tokens_per_second as u64),
        answer.milliseconds_per_token,
        100.0 * answer.share_of_floor,
        answer.bytes_per_step / 1e9
    ))?;
    talk.data(format_args!(
        "first token after {:.3} s ({} tok/s of prompts), {:.1} s in a new process; load {:.1} s; adapter: {}",
        answer.first_token_seconds,
        grouped(answer.prefill_tokens_per_second as u64),
        answer.cold_first_token_seconds,
        answer.load_seconds,
        answer.adapter
    ))?;
    if answer.prompts > answer.batch {
        talk.data(format_args!(
            "{} prompts in {:.1} s: {} new tokens a second",
            grouped(answer.prompts as u64),
            answer.seconds_in_all,
            grouped(answer.tokens_per_second_in_all as u64)
        ))?;
    }
    let memory = answer.peak_memory_gib.map_or_else(String::new, |gib| format!("{gib:.2} GiB in use, "));
    talk.data(format_args!("{memory}copies {:.0} GB/s; {}", answer.copy_gb_per_second, answer.weights))?;
    if let Some(words) = &answer.placement {
        talk.data(words)?;
    }
    if !answer.operators.is_empty() {
        talk.data(format_args!("{:<28} {:>8} {:>10} {:>10}", "operator, of a step", "count", "us", "GB/s"))?;
    }
    for row in &answer.operators {
        talk.data(format_args!(
            "{:<28} {:>8.1} {:>10.1} {:>10.0}",
            row.name, row.count, row.microseconds, row.gb_per_second
        ))?;
    }
    Ok(())
}
