//! `descant bench step`: how fast a training step is, in how much memory, and how far its parts are from what the
//! device gives.
//!
//! A step is what docs/benchmarks.md compares: random ids, every position a label, forward, backward, clipping, the
//! optimizer. Ceilings are measured in the same process, so that every ratio is of one run.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use burn::tensor::Device;
use descant_kernels::{Keep, gauge};
use descant_lora::{LoraAdapters, LoraConfig};
use descant_model::{Config, GptOss, SiteKind};
use descant_train::fp8::{Deviation, Gates, measure};
use descant_train::memory::{Arrangement, NoFp8, estimate};
use descant_train::{Experts, Sample, Schedule, TrainConfig, Trainer};

use super::bench_answer::{Answer, print, rows};
use super::bench_cards::{Scaled, load_of};
use super::in_fp8::InFp8;
use super::load;
use super::operations::flops_per_token;
use super::random_ids::{ID_LIMIT, MersenneTwister};
use super::room::{self, Found};
use super::timed::{digest, median};
use crate::cards::{self, Role, Team};
use crate::cli::{BenchStep, KernelChoice};
use crate::failure::Exit;
use crate::talk::Talk;
use crate::words::GIB;

/// Measures and prints: alone, as one of several processes, or as the one that starts them.
pub(super) fn run(args: &BenchStep, model: &Path, talk: Talk) -> Result<Exit> {
    match cards::role(args.cards.as_ref(), cards::place()?, &args.on.device.name)? {
        Role::Alone(device) => {
            work(args, model, device.as_deref().unwrap_or(&args.on.device.name), None, talk)
        }
        Role::Starts(devices) => cards::launch(&devices),
        Role::Member(place) => {
            let (batch, sequence) = (args.batch.to_string(), args.sequence.to_string());
            let facts =
                [("--batch", batch), ("--sequence", sequence), ("--accumulate", args.accumulate.to_string())];
            let facts = facts.map(|(name, value)| (name.to_owned(), value)).to_vec();
            cards::in_team(&place, facts, talk, |team, _, talk| {
                work(args, model, &team.device(&args.on.device.name)?, Some(team), talk)
            })
        }
    }
}

/// The same in one process.
fn work(args: &BenchStep, model: &Path, device: &str, team: Option<&Team>, talk: Talk) -> Result<Exit> {
    let device = chosen(args, device, talk)?;
    load::check_dir(model)?;
    let architecture = load::config(model)?;
    let (lora, config) = trained(args);
    let (arrangement, planned) = arranged(args, &architecture, &lora, &config, &device, team)?;
    let started = Instant::now();
    let placement = arrangement.placement;
    let model = load::model(model, &device.device, placement, (args.on.memory.bytes(), args.keep))?;
    let bus = slow_bus(args.bus, &model, arrangement, talk);
    let in_fp8 = InFp8::prepare(&model, config.experts)?;
    gauge::synchronize(&device.device)?;
    let load_seconds = started.elapsed().as_secs_f64();
    let fresh = || LoraAdapters::init(&model.config, &lora, config.seed, &device.device.clone().autodiff());
    let samples = samples(args, model.config.vocab_size);
    let link = team.map(|team| team.link(&device.device)).transpose()?;
    // Algorithms of products that were found by one are those of all.
    let scaled = match team.zip(link.as_deref()) {
        Some((team, link)) => {
            let bench = Scaled { args, team, link, model: &model, samples: &samples, device: &device.device };
            Some(bench.measure(&config, arrangement, &fresh)?)
        }
        None => None,
    };
    if team.is_some_and(|team| !team.is_first()) {
        return Ok(Exit::Success);
    }
    let (adapters, experts_numbers) = (fresh()?, config.experts.form().name());
    let trained_parameters = adapters.n_parameters();
    let mut trainer = Trainer::new(&model, adapters, config.clone())?.arranged(arrangement);
    let micro_batches: Vec<Vec<&Sample>> =
        samples.chunks(args.batch).map(|chunk| chunk.iter().collect()).collect();
    let (mut seconds, mut losses, mut peak) = (Vec::new(), Vec::new(), None);
    let mut run_step = |trainer: &mut Trainer<'_>, losses: &mut Vec<f32>| -> Result<f64> {
        let start = Instant::now();
        let result = trainer.step(&micro_batches)?;
        gauge::synchronize(&device.device)?;
        // Before the look at the limit, which gives back what nobody uses.
        peak = peak.max(room::in_use(&device));
        model.workspace().check_limit(&device.device)?;
        losses.push(result.loss);
        Ok(start.elapsed().as_secs_f64())
    };
    for number in 0..args.warmup + args.steps {
        let took = run_step(&mut trainer, &mut losses).with_context(|| format!("step {}", number + 1))?;
        talk.detail(format_args!("step {}: {took:.3} s", number + 1));
        seconds.push(took);
    }
    let adapter_sha256 = digest(trainer.adapters())?;
    let (whole, operators) = recorded(&device.device, || run_step(&mut trainer, &mut Vec::new()))?;
    let deviation = deviation(&model, fresh()?, micro_batches.first(), in_fp8.is_some())?;
    let (memory_plan, rates) = ceilings(trainer, &model, &device.device)?;
    let timed = seconds.split_off(args.warmup);
    let first_step_seconds = seconds.first().or(timed.first()).copied().unwrap_or(f64::NAN);
    let median = median(&timed);
    let tokens = args.batch * args.sequence * args.accumulate;
    let model_flops = flops_per_token(&model.config, args.sequence) * tokens as f64 / median;
    let answer = Answer {
        device: device.why,
        card: gauge::card(&device.device),
        batch: args.batch,
        sequence: args.sequence,
        accumulate: args.accumulate,
        experts: args.experts,
        kernels: args.kernels.name(),
        experts_numbers,
        experts_in_bf16: in_fp8.as_ref().map(InFp8::names).unwrap_or_default(),
        experts_beyond: deviation.iter().flat_map(|found| found.beyond(&Gates::WHOLE_MODEL)).collect(),
        experts_deviation: deviation,
        keep: args.keep.to_string(),
        trained_parameters,
        tokens_per_step: tokens,
        load_seconds,
        first_step_seconds,
        step_seconds_median: median,
        step_seconds: timed,
        tokens_per_second: tokens as f64 / median,
        memory_limit: args.on.memory.bytes(),
        planned_memory_gib: planned as f64 / GIB,
        peak_memory_gib: peak.map(|bytes| bytes as f64 / GIB),
        memory_plan,
        weights: model.formats().to_string(),
        placement: Some(arrangement.words().collect::<Vec<_>>().join("; ")).filter(|words| !words.is_empty()),
        together: arrangement.together,
        bus_gb_per_second: bus.map(|bus| bus as f64 / 1e9),
        model_tflops: model_flops / 1e12,
        model_to_gemm: model_flops / rates.flops,
        gemm_tflops: rates.flops / 1e12,
        copy_gb_per_second: rates.bytes / 1e9,
        losses,
        adapter_sha256,
        operators: rows(&operators, whole, &rates),
        cards: scaled,
    };
    if args.on.json {
        talk.data(serde_json::to_string(&answer)?)?;
    } else {
        print(&answer, in_fp8.as_ref(), talk)?;
    }
    Ok(Exit::Success)
}

/// The seconds of a step, and those of its operators.
fn recorded(device: &Device, step: impl FnOnce() -> Result<f64>) -> Result<(f64, Vec<gauge::OperatorTime>)> {
    gauge::profile(device, true);
    let whole = step()?;
    let operators = gauge::profiled(device);
    gauge::profile(device, false);
    Ok((whole, operators))
}

/// How far a step in fp8 of an untrained adapter is from one in bf16. After the steps, whose times and memory it leaves alone.
fn deviation(
    model: &GptOss,
    untrained: LoraAdapters,
    samples: Option<&Vec<&Sample>>,
    in_fp8: bool,
) -> Result<Option<Deviation>> {
    let Some(samples) = samples.filter(|_| in_fp8) else { return Ok(None) };
    Ok(measure(model, &untrained, samples)?)
}

/// How memory was laid out, and the ceilings, for which that is given back: a limit holds for them too.
fn ceilings(trainer: Trainer<'_>, model: &GptOss, device: &Device) -> Result<(Option<String>, gauge::Rates)> {
    let memory_plan = model.workspace().words();
    drop(trainer);
    model.workspace().make_way(device)?;
    Ok((memory_plan, gauge::rates(device)))
}

/// What is trained, and how.
fn trained(args: &BenchStep) -> (LoraConfig, TrainConfig) {
    let mut lora = LoraConfig::default();
    if args.experts {
        lora.targets.extend([SiteKind::GateUp, SiteKind::Down].map(|kind| kind.name().to_owned()));
    }
    let config = TrainConfig {
        micro_batch: args.batch.into(),
        accumulation: args.accumulate,
        max_sequence: args.sequence,
        max_steps: args.steps as u64 + args.warmup as u64,
        schedule: Schedule::Constant,
        warmup_steps: 1,
        experts: if args.fp8 { Experts::Fp8 } else { Experts::Bf16 },
        ..TrainConfig::default()
    };
    (lora, config)
}

/// The device, with the kernels that were asked for; says so where there are no others. Refuses a plan of a card's memory
/// where there is no card.
fn chosen(args: &BenchStep, device: &str, talk: Talk) -> Result<load::Chosen> {
    // First, because the device is named with its kernels.
    args.kernels.take();
    let device = load::said_device(device, talk)?;
    if args.kernels != KernelChoice::Auto && descant_kernels::is_cpu(&device.device) {
        let name = args.kernels.name();
        talk.warn(format_args!("--kernels {name} changes nothing: the device is the CPU"));
    }
    if descant_kernels::is_cpu(&device.device)
        && (args.on.memory.bytes().is_some() || args.keep != Keep::Auto)
    {
        return Err(anyhow!("--memory and --keep plan the memory of a card; the device is the CPU"));
    }
    Ok(device)
}

/// Where everything is, and the bytes that are planned; refuses what does not fit.
fn arranged(
    args: &BenchStep,
    architecture: &Config,
    lora: &LoraConfig,
    config: &TrainConfig,
    device: &load::Chosen,
    team: Option<&Team>,
) -> Result<(Arrangement, u64)> {
    let found = Found::on(device, args.on.memory.bytes(), args.keep);
    let (workers, of_host) = team.map_or((1, 1), |team| (team.group.world(), team.on_this_host()));
    let found = found.among(workers, of_host);
    let load = load_of(args, team);
    let (arrangement, needs) = found.arranged(architecture, args.accumulate, found.host, |place| {
        Ok(estimate(architecture, lora, config, load, None, place))
    })?;
    if args.fp8 {
        let refused = found.check_fp8(Some(architecture), arrangement);
        refused.map_err(|refused| without_fp8(&refused))?;
    }
    found.refuse(&needs, device)?;
    Ok((arrangement, found.held + needs.total()))
}

/// The error of --fp8 where that cannot be.
fn without_fp8(refused: &NoFp8) -> anyhow::Error {
    let first = match refused {
        NoFp8::Kernels(_) => "",
        NoFp8::Room => "raise --memory, use fewer or shorter sequences, or ",
    };
    anyhow!("--fp8 {refused}; {first}leave out --fp8")
}

/// Holds the bus to the rate that was asked for, where weights come over it; says so where none do.
fn slow_bus(wanted: Option<u64>, model: &GptOss, arrangement: Arrangement, talk: Talk) -> Option<u64> {
    let wanted = wanted?;
    if arrangement.placement.streamed_layers == 0 && !arrangement.inputs_on_host {
        talk.warn("--bus has no effect: no experts are in host memory; use a lower --memory");
        return None;
    }
    model.slow_bus(wanted as f64);
    Some(wanted)
}

/// Sequences of random ids, every position a label.
fn samples(args: &BenchStep, vocabulary: usize) -> Vec<Sample> {
    let mut random = MersenneTwister::new(0);
    let limit = ID_LIMIT.min(vocabulary as u32);
    (0..args.batch * args.accumulate)
        .map(|row| Sample {
            row,
            ids: (0..args.sequence).map(|_| random.next() % limit).collect(),
            weights: vec![1.0; args.sequence],
            first_analysis: None,
        })
        .collect()
}
