//! Whether a run fits into memory: what it will need, what is free, and what would fit instead.
//!
//! On the CPU the estimate starts from what the process holds once the data is read, and is held against what the
//! system says is available and against `memory.limit`. On a card it is held against what the driver says is free.
//! Where the system does not say what is free, nothing is refused.

use std::path::Path;

use anyhow::Result;
use descant_kernels::{Keep, gauge};
use descant_model::{Config, Placement};
use descant_train::memory::{
    Asking, Load, Memory, Place, check_card, estimate, estimate_asking, place_weights,
};
use descant_train::{Samples, TrainConfig};

use super::load::Chosen;
use crate::failure::{Hinted, NotEnoughMemory};
use crate::settings::Settings;

/// What a card's driver takes before anything is asked of it.
const CONTEXT: u64 = 512 << 20;
/// Of what is free, the share that may be planned for: others want some, and an estimate is one.
const SHARE: f64 = 0.95;
/// On the CPU, what telling languages apart brings into memory: the models of the eight Latin ones, from the program.
const JUDGE: u64 = if descant_evaluate::TELLS_LATIN_APART { 33 << 20 } else { 0 };
const MIB: f64 = (1_u64 << 20) as f64;
const GIB: f64 = (1_u64 << 30) as f64;

/// What a run was found to need.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub(crate) needs: Memory,
    /// Which weights lie on the host.
    pub(crate) placement: Placement,
    /// What the process held before; on a card, what was in use there.
    held: u64,
    pub(crate) free: Option<u64>,
    /// Where it does not fit: what to do about it.
    pub(crate) advice: Option<String>,
}

impl Room {
    /// Estimates a run, and what would fit if that does not.
    pub(crate) fn find(
        settings: &Settings,
        config: &Config,
        samples: &dyn Samples,
        asking: Option<Asking>,
        found: &Found,
    ) -> Result<Self> {
        if matches!(found.place, Place::Card { .. }) {
            check_card(&settings.lora)?;
        }
        let placed = |train: &TrainConfig, asking: Option<Asking>| {
            let load = Load::of_run(samples, train)?;
            found.placed(config, |place| {
                let mut needs = estimate(config, &settings.lora, train, load, asking, place);
                if asking.is_some() && matches!(place, Place::Cpu { .. }) {
                    needs.runtime += JUDGE;
                }
                Ok(needs)
            })
        };
        let needs = |train: &TrainConfig, asking: Option<Asking>| Ok(placed(train, asking)?.1);
        let fits = |needs: &Memory| found.fits(needs);
        let (placement, all) = placed(&settings.train, asking)?;
        let advice = (!fits(&all)).then(|| smaller(settings, asking, &needs, &fits)).transpose()?;
        Ok(Self { needs: all, placement, held: found.held, free: found.free, advice })
    }

    /// Refuses a run that does not fit.
    pub(crate) fn refuse(&self, device: &Chosen) -> Result<()> {
        let Some(advice) = &self.advice else { return Ok(()) };
        let error = NotEnoughMemory(format!(
            "not enough memory on {}\n  needs {}, {} free ({})",
            device.name,
            size(self.needs.least()),
            size(self.free.unwrap_or(0)),
            self.parts_in_words()
        ));
        Err(Hinted::new(error, advice).into())
    }

    /// Bytes that the process, or all that is at work on a card, will hold at the worst moment.
    pub(crate) fn planned(&self) -> u64 {
        self.held + self.needs.total()
    }

    /// For people. Steps and prompts are never in memory together.
    pub(crate) fn line(&self) -> String {
        let free = self.free.map_or_else(|| "an unknown amount".to_owned(), size);
        let both = if self.needs.asking > 0 {
            format!("; steps {}, held-out prompts {}", size(self.steps()), size(self.prompts()))
        } else {
            String::new()
        };
        let placement = self.placement.words().map_or_else(String::new, |words| format!("; {words}"));
        format!("{} of {free} free: {}{both}{placement}", size(self.needs.total()), self.parts_in_words())
    }

    /// So many bytes and what was in use before.
    pub(crate) fn planned_for(&self, bytes: u64) -> u64 {
        self.held + bytes
    }

    /// Bytes while steps are made.
    pub(crate) fn steps(&self) -> u64 {
        Memory { asking: 0, ..self.needs }.total()
    }

    /// Bytes while prompts are answered.
    pub(crate) fn prompts(&self) -> u64 {
        let needs = self.needs;
        needs.base + needs.adapter + needs.asking + needs.runtime
    }

    fn parts_in_words(&self) -> String {
        let parts: Vec<String> =
            self.parts().map(|(what, bytes)| format!("{what} {}", size(bytes))).collect();
        parts.join(", ")
    }

    /// What takes how many bytes.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Memory { base, adapter, gradients, optimizer, activations, kept, asking, runtime } = self.needs;
        [
            ("base", base),
            ("adapter", adapter),
            ("gradients", gradients),
            ("optimizer", optimizer),
            ("activations", activations),
            ("kept because there is room", kept),
            ("replies", asking),
            ("runtime", runtime),
        ]
        .into_iter()
        .filter(|(_, bytes)| *bytes > 0)
    }
}

/// Where the weights lie so that prompts can be answered within a limit, or within what is free; refuses where they cannot.
pub(crate) fn place_for_asking(
    device: &Chosen,
    limit: Option<u64>,
    config: &Config,
    asking: Asking,
) -> Result<Placement> {
    let found = Found::on(device, limit, Keep::Auto);
    let (placement, needs) = found.placed(config, |place| Ok(estimate_asking(config, asking, place)))?;
    let advice = "raise the limit, ask fewer prompts at once, or allow fewer new tokens";
    found.refuse_with(&needs, device, advice)?;
    Ok(placement)
}

/// What a device has, before a run.
pub(crate) struct Found {
    /// See [`Room`].
    pub(crate) held: u64,
    free: Option<u64>,
    /// Bytes that may be planned for.
    may: Option<u64>,
    /// Bytes of the host that may be pinned for weights.
    host: Option<u64>,
    /// For an estimate.
    pub(crate) place: Place,
}

impl Found {
    /// Refuses what cannot do with what there is.
    pub(crate) fn refuse(&self, needs: &Memory, device: &Chosen) -> Result<()> {
        self.refuse_with(needs, device, "raise --memory, or use fewer or shorter sequences at once")
    }

    fn refuse_with(&self, needs: &Memory, device: &Chosen, advice: &str) -> Result<()> {
        let advice = (!self.fits(needs)).then(|| advice.to_owned());
        let placement = Placement::default();
        Room { needs: *needs, placement, held: self.held, free: self.free, advice }.refuse(device)
    }

    fn fits(&self, needs: &Memory) -> bool {
        self.may.is_none_or(|may| needs.least() <= may)
    }

    /// Where the weights lie so that what `needs` says fits, if it can.
    pub(crate) fn placed(
        &self,
        config: &Config,
        needs: impl FnMut(Place) -> Result<Memory>,
    ) -> Result<(Placement, Memory)> {
        place_weights(config, self.place, self.host, needs, |needs| self.fits(needs))
    }

    /// Asks the device, with what the settings say of it.
    pub(crate) fn by(settings: &Settings, device: &Chosen) -> Result<Self> {
        let (limit, keep) = settings.memory.limit_and_keep()?;
        Ok(Self::on(device, limit, keep))
    }

    /// A card that is not here, of so many bytes.
    pub(crate) fn imagined(card: u64, keep: Keep) -> Self {
        let free = card.saturating_sub(CONTEXT);
        // Which card it is nobody knows; the larger of both layouts fits either.
        let place = Place::Card { free, keep, in_order: true, placement: Placement::default() };
        let may = Some((SHARE * free as f64) as u64);
        Self { held: CONTEXT.min(card), free: Some(free), may, host: None, place }
    }

    /// Asks the device.
    pub(crate) fn on(device: &Chosen, limit: Option<u64>, keep: Keep) -> Self {
        let share = |bytes: u64| (SHARE * bytes as f64) as u64;
        if descant_kernels::is_cpu(&device.device) {
            let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let held = resident("VmRSS").unwrap_or(0);
            let limit = limit.map(|limit| limit.saturating_sub(held));
            let free = [available(), limit].into_iter().flatten().min();
            return Self { held, free, may: free.map(share), host: None, place: Place::Cpu { threads } };
        }
        let held = gauge::memory_in_use(&device.device).unwrap_or(0);
        let limit = limit.map(|limit| limit.saturating_sub(held));
        let of_card = device.free();
        let free = [of_card, limit].into_iter().flatten().min();
        // The layers keep to a limit on their own.
        let may = [of_card.map(share), limit].into_iter().flatten().min();
        let in_order = descant_kernels::wants_rows_in_order(&device.device);
        let placement = Placement::default();
        let place = Place::Card { free: free.unwrap_or(0), keep, in_order, placement };
        Self { held, free, may, host: available().map(share), place }
    }
}

/// Most memory that this process ever held; on a card, what is in use there now, which grows to its most within a few
/// steps. Nothing where the system does not tell.
pub(crate) fn in_use(device: &Chosen) -> Option<u64> {
    if descant_kernels::is_cpu(&device.device) {
        return resident("VmHWM");
    }
    gauge::memory_in_use(&device.device)
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
        let alone = Memory { activations: 0, kept: 0, ..needs(train, Some(asking))? };
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
                size(needed.least())
            ));
        }
    }
    let one = TrainConfig { micro_batch: 1, ..train.clone() };
    let needed = size(needs(&one, asked)?.least());
    Ok(format!(
        "one conversation at a time needs {needed}: lower train.max_sequence or lora.r, or free memory"
    ))
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
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
