//! Whether a run fits into memory: what it will need, what is free, and what would fit instead.
//!
//! On the CPU the estimate starts from what the process holds once the data is read, and is held against what the
//! system says is available and against `memory.limit`. On a card it is a lower bound, see `descant_train::memory`.
//! Where the system does not say what is free, nothing is refused.

use std::path::Path;

use anyhow::{Result, anyhow};
use descant_model::Config;
use descant_train::Sample;
use descant_train::TrainConfig;
use descant_train::memory::{Asking, Load, Memory, estimate};

use super::load::Chosen;
use crate::failure::{Hinted, NotEnoughMemory};
use crate::settings::Settings;

/// Of what is free, the share that may be planned for: others want some, and an estimate is one.
const SHARE: f64 = 0.95;
const MIB: f64 = (1_u64 << 20) as f64;
const GIB: f64 = (1_u64 << 30) as f64;

/// What a run was found to need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    needs: Memory,
    /// What the process held before; 0 on a card.
    held: u64,
    free: Option<u64>,
    on_card: bool,
}

impl Room {
    /// Estimates a run, and refuses one that does not fit.
    pub(crate) fn check(
        settings: &Settings,
        config: &Config,
        samples: &[Sample],
        asking: Option<Asking>,
        device: &Chosen,
    ) -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let needs = |train: &TrainConfig, asking: Option<Asking>| -> Result<Memory> {
            let load = Load::longest(samples, train)?;
            Ok(estimate(config, &settings.lora, train, load, asking, &device.device, threads))
        };
        let limit = settings.memory.limit().map_err(|reason| anyhow!(reason))?;
        let on_card = !descant_kernels::is_cpu(&device.device);
        let (held, free) = if on_card {
            let used = descant_kernels::gauge::memory_in_use(&device.device);
            (0, limit.zip(used).map(|(limit, used)| limit.saturating_sub(used)).or_else(|| device.free()))
        } else {
            let held = resident("VmRSS").unwrap_or(0);
            let limit = limit.map(|limit| limit.saturating_sub(held));
            (held, [available(), limit].into_iter().flatten().min())
        };
        let room = Self { needs: needs(&settings.train, asking)?, held, free, on_card };
        let Some(free) = free else { return Ok(room) };
        let fits = |needs: &Memory| needs.total() as f64 <= SHARE * free as f64;
        if fits(&room.needs) {
            return Ok(room);
        }
        let error = NotEnoughMemory(format!(
            "not enough memory on {}\n  needs {}{}, {} free ({})",
            device.name,
            if on_card { "at least " } else { "" },
            size(room.needs.total()),
            size(free),
            room.parts()
        ));
        Err(Hinted::new(error, smaller(settings, asking, &needs, &fits)?).into())
    }

    /// Bytes that the process will hold at its worst moment, where that can be compared with what it did hold.
    pub(crate) fn planned(&self) -> Option<u64> {
        (!self.on_card).then_some(self.held + self.needs.total())
    }

    /// For people.
    pub(crate) fn line(&self) -> String {
        let least = if self.on_card { "at least " } else { "" };
        let free = self.free.map_or_else(|| "an unknown amount".to_owned(), size);
        format!("{least}{} of {free} free: {}", size(self.needs.total()), self.parts())
    }

    fn parts(&self) -> String {
        let Memory { base, adapter, gradients, optimizer, activations, asking, .. } = self.needs;
        [
            ("base", base),
            ("adapter", adapter),
            ("gradients", gradients),
            ("optimizer", optimizer),
            ("activations", activations),
            ("or held-out prompts", asking),
        ]
        .into_iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(what, bytes)| format!("{what} {}", size(bytes)))
        .collect::<Vec<_>>()
        .join(", ")
    }
}

/// Most memory that this process ever held, where the system tells.
pub(crate) fn peak() -> Option<u64> {
    resident("VmHWM")
}

/// The largest settings that fit and train the same, as advice.
fn smaller(
    settings: &Settings,
    asking: Option<Asking>,
    needs: &dyn Fn(&TrainConfig, Option<Asking>) -> Result<Memory>,
    fits: &dyn Fn(&Memory) -> bool,
) -> Result<String> {
    let train = &settings.train;
    let mut advice = Vec::new();
    let mut asked = asking;
    // What prompts need, beside a micro-batch that needs nothing of note.
    while let Some(asking) = asked.filter(|asking| asking.batch > 1) {
        let alone = Memory { activations: 0, ..needs(train, Some(asking))? };
        if fits(&alone) {
            break;
        }
        asked = Some(Asking { batch: asking.batch / 2, ..asking });
    }
    if let Some(asking) = asked.filter(|now| Some(*now) != asking) {
        advice.push(format!("evaluate.batch = {}", asking.batch));
    }
    let together = train.micro_batch * train.accumulation;
    for micro_batch in (1..=train.micro_batch).rev().filter(|n| together.is_multiple_of(*n)) {
        let smaller = TrainConfig { micro_batch, accumulation: together / micro_batch, ..train.clone() };
        let needed = needs(&smaller, asked)?;
        if fits(&needed) {
            if micro_batch != train.micro_batch {
                advice.push(format!("train.micro_batch = {micro_batch}"));
                advice.push(format!("train.accumulation = {}", smaller.accumulation));
            }
            let advice = advice.join(" and ");
            return Ok(format!(
                "set {advice}: a step sees the same conversations, in {}",
                size(needed.total())
            ));
        }
    }
    let one = TrainConfig { micro_batch: 1, ..train.clone() };
    let needed = size(needs(&one, asked)?.total());
    Ok(format!(
        "one conversation at a time needs {needed}: lower train.max_sequence or lora.r, or free memory"
    ))
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes < GIB { format!("{:.1} MiB", bytes / MIB) } else { format!("{:.2} GiB", bytes / GIB) }
}

/// A line of this process's status.
fn resident(name: &str) -> Option<u64> {
    kib(Path::new("/proc/self/status"), name)
}

/// What the system can give without taking from others, and what the group that this process was put in leaves it.
fn available() -> Option<u64> {
    let system = kib(Path::new("/proc/meminfo"), "MemAvailable");
    let group = |name: &str| -> Option<u64> {
        let bytes = descant_files::read_bounded(Path::new("/sys/fs/cgroup").join(name).as_path(), 64).ok()?;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
    };
    let left = group("memory.max").zip(group("memory.current")).map(|(max, now)| max.saturating_sub(now));
    [system, left].into_iter().flatten().min()
}

/// The value of `NAME:   123 kB` in such a file, in bytes.
fn kib(path: &Path, name: &str) -> Option<u64> {
    let bytes = descant_files::read_bounded(path, 1 << 16).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
