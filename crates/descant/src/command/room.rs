//! Whether a run fits into memory: what it will need, what is free, and what would fit instead.
//!
//! On the CPU the estimate starts from what the process uses once the data is read, and is compared with what the
//! system says is available and against `memory.limit`. On a card it is compared with what the driver says is free.
//! Where the system does not report free memory, nothing is refused.

use std::iter::Peekable;

use anyhow::Result;
use burn::tensor::Device;
use descant_kernels::{Keep, gauge};
use descant_model::{Config, Placement};
use descant_train::memory::{
    Arrangement, Asking, Load, Memory, Place, arrange, check_card, estimate, estimate_asking,
};
use descant_train::{MicroBatch, Samples, TrainConfig};

use super::host_memory::{available, resident};
use super::load::Chosen;
use crate::failure::{Hinted, NotEnoughMemory};
use crate::settings::Settings;
use crate::words::{GIB, MIB};

/// What a card's driver takes before anything is asked of it.
const CONTEXT: u64 = 512 << 20;
/// Of what is free, the share that may be planned for: others want some, and an estimate is one.
const SHARE: f64 = 0.95;
/// Bytes a second that cross the bus of a card that is not here: what PCIe 4.0 x16 gives.
const BUS: f64 = 25e9;
/// Tokens of a micro-batch up to which `micro_batch = "auto"` merges sequences: beyond, an expert has rows enough, and
/// memory does more where it keeps results for the backward.
const MERGED_TOKENS: u64 = 16_384;
/// On the CPU, what telling languages apart brings into memory: the models of the eight Latin ones, from the program.
const JUDGE: u64 = if descant_evaluate::TELLS_LATIN_APART { 33 << 20 } else { 0 };

/// What a run was found to need.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub(crate) needs: Memory,
    /// Which weights lie on the host, and how they cross the bus.
    pub(crate) arrangement: Arrangement,
    /// The settings with the number of sequences that go through the model at once.
    pub(crate) train: TrainConfig,
    /// What goes through the model at once.
    pub(crate) load: Load,
    /// How prompts are asked, as many at once as there is room for, and as many as was wanted.
    pub(crate) asking: Option<Asking>,
    wanted: Option<Asking>,
    on_card: bool,
    /// What the process used before; on a card, what was in use there.
    held: u64,
    pub(crate) free: Option<u64>,
    /// What crosses the bus in a step, where anything does.
    pub(crate) bus: Option<Bus>,
    /// Where it does not fit: what to do about it.
    pub(crate) advice: Option<String>,
}

/// What crosses the bus between host and card in a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bus {
    /// Of weights, and of inputs of layers there and back.
    pub(crate) bytes: u64,
    /// Bytes a second.
    pub(crate) rate: f64,
    /// Whether that was measured here.
    pub(crate) is_measured: bool,
}

impl Bus {
    fn of(
        arrangement: Arrangement,
        needs: &Memory,
        micro_batches: usize,
        config: &Config,
        found: &Found,
    ) -> Option<Self> {
        let inputs = needs.on_host.saturating_sub(arrangement.placement.host_bytes(config));
        let passes = micro_batches.div_ceil(arrangement.together) as u64;
        let bytes = arrangement.bus_bytes(config, micro_batches) + 2 * passes * inputs;
        let measured = (bytes > 0).then(|| found.card.as_ref().and_then(gauge::bus_rate))?;
        Some(Self { bytes, rate: measured.or(found.bus).unwrap_or(BUS), is_measured: measured.is_some() })
    }

    /// Seconds of a step, at least, where nothing hides them.
    pub(crate) fn seconds(&self) -> f64 {
        self.bytes as f64 / self.rate
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        let how = if self.is_measured { "measured here" } else { "assumed" };
        format!(
            "{} a step over the bus: at least {:.2} s at {:.0} GB/s ({how}), beside what the card computes",
            size(self.bytes),
            self.seconds(),
            self.rate / 1e9
        )
    }
}

impl Room {
    /// Estimates a run, and what would fit if that does not. `begun` are the sequences at once that the run was begun
    /// with, where it chose them itself.
    pub(crate) fn find(
        settings: &Settings,
        config: &Config,
        samples: &dyn Samples,
        asking: Option<Asking>,
        found: &Found,
        begun: Option<usize>,
    ) -> Result<Self> {
        if matches!(found.place, Place::Card { .. }) {
            check_card(&settings.lora)?;
        }
        let estimated = |train: &TrainConfig, load: Load, asking: Option<Asking>, place: Place| {
            let mut needs = estimate(config, &settings.lora, train, load, asking, place);
            if asking.is_some() && matches!(place, Place::Cpu { .. }) {
                needs.runtime += JUDGE;
            }
            needs
        };
        let placed = |train: &TrainConfig, load: Load, host: Option<u64>| {
            // Steps say where weights lie; prompts take as many at once as that leaves room for, one at least.
            let one = asking.map(|asking| Asking { batch: 1, ..asking });
            found.arranged(config, train.accumulation, host, |place| Ok(estimated(train, load, one, place)))
        };
        let load_of = |train: &TrainConfig| {
            Ok::<_, anyhow::Error>(Load::of_run(samples, train)?.shared(train.accumulation, found.workers))
        };
        let needs = |train: &TrainConfig| Ok(placed(train, load_of(train)?, found.host)?.1);
        let fits = |needs: &Memory| found.fits(needs);
        let mut candidates = at_once(&settings.train, begun, found.workers);
        let (train, load, arrangement, least) = loop {
            let train = candidates.next().expect("one at once is the last");
            let load = load_of(&train)?;
            let is_last = candidates.peek().is_none();
            if !is_last && load.tokens > MERGED_TOKENS {
                continue;
            }
            let (arrangement, needs) = placed(&train, load, found.host)?;
            if is_last || fits(&needs) {
                break (train, load, arrangement, needs);
            }
        };
        let place = found.place.with(arrangement);
        let asked = asking
            .map(|asking| most_at_once(asking, |asking| fits(&estimated(&train, load, Some(asking), place))));
        let all = estimated(&train, load, asked, place);
        let advice = (!fits(&least)).then(|| match begun {
            _ if found.host.is_some() && fits(&placed(&train, load, None)?.1) => {
                Ok(found.lacking_on_host(&placed(&train, load, None)?.1))
            }
            Some(_) => Ok(begun_with(&train)),
            None => smaller(&train, &needs, &fits),
        });
        let bus = Bus::of(arrangement, &all, train.accumulation, config, found);
        let (held, free, advice) = (found.held, found.free, advice.transpose()?);
        let (asking, wanted) = (asked, asking);
        let on_card = matches!(found.place, Place::Card { .. });
        Ok(Self { on_card, needs: all, arrangement, train, load, asking, wanted, held, free, bus, advice })
    }

    /// Refuses a run that does not fit.
    pub(crate) fn refuse(&self, device: &Chosen) -> Result<()> {
        self.advice.as_ref().map_or(Ok(()), |advice| Err(refusal(&self.needs, self.free, device, advice)))
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
        let amounts = format!("{} of {free} free: {}", size(self.needs.total()), parts_in_words(&self.needs));
        let all: Vec<String> = std::iter::once(amounts + &both).chain(self.words()).collect();
        all.join("; ")
    }

    /// What takes how many bytes.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        parts(&self.needs)
    }

    /// How the work is laid out, where that is not the usual.
    pub(crate) fn words(&self) -> impl Iterator<Item = String> {
        let fewer = self.asking.zip(self.wanted).filter(|(asking, wanted)| asking.batch < wanted.batch);
        let fewer = fewer.map(|(asking, wanted)| fewer_at_once(asking, wanted));
        self.arrangement.words().chain(self.bus.map(|bus| bus.words())).chain(fewer)
    }

    /// Most bytes in use in each part of a run, with what was in use before: while the base is loaded, while prompts
    /// are answered, in the steps, and while the adapter is written and read back beside them.
    pub(crate) fn peaks(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let prompts = (self.needs.asking > 0).then(|| ("held-out prompts", self.prompts()));
        let steps = [("training", self.steps()), ("end", self.steps() + self.needs.adapter)];
        let load = self.on_card.then(|| ("load", self.loaded()));
        let all = load.into_iter().chain(prompts).chain(steps);
        all.map(|(part, bytes)| (part, self.planned_for(bytes)))
    }

    /// Bytes when the base is there; on the CPU what passes through memory on its way is not planned.
    fn loaded(&self) -> u64 {
        self.needs.base
    }

    /// The same with what was in use before, where it is planned.
    pub(crate) fn planned_load(&self) -> Option<u64> {
        self.on_card.then(|| self.planned_for(self.loaded()))
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
}

/// What takes how many bytes.
fn parts(needs: &Memory) -> impl Iterator<Item = (&'static str, u64)> {
    let Memory { base, adapter, gradients, optimizer, activations, kept, asking, runtime, on_host: _ } =
        *needs;
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

fn parts_in_words(needs: &Memory) -> String {
    let parts: Vec<String> = parts(needs).map(|(what, bytes)| format!("{what} {}", size(bytes))).collect();
    parts.join(", ")
}

/// The error of what does not fit.
fn refusal(needs: &Memory, free: Option<u64>, device: &Chosen, advice: &str) -> anyhow::Error {
    let error = NotEnoughMemory(format!(
        "not enough memory on {}\n  needs {}, {} free ({})",
        device.name,
        size(needs.least()),
        size(free.unwrap_or(0)),
        parts_in_words(needs)
    ));
    Hinted::new(error, advice).into()
}

/// The settings with each number of sequences at once that may be tried, the best first.
fn at_once(
    train: &TrainConfig,
    begun: Option<usize>,
    workers: usize,
) -> Peekable<std::vec::IntoIter<TrainConfig>> {
    let candidates: Vec<TrainConfig> = match (train.micro_batch, begun) {
        (MicroBatch::Of(_), _) => vec![train.clone()],
        (MicroBatch::Auto, Some(sequences)) if train.units().is_multiple_of(sequences) => {
            vec![train.with_at_once(sequences)]
        }
        (MicroBatch::Auto, _) => {
            // Each of several processes has something to do, where there is enough for all.
            let most = (train.units() / workers).max(1);
            train.divisors(most).map(|sequences| train.with_at_once(sequences)).collect()
        }
    };
    candidates.into_iter().peekable()
}

/// What can be done for a run that was begun with more room.
fn begun_with(train: &TrainConfig) -> String {
    format!(
        "this run was begun with {} sequences at once, on which its results depend: make room, or --force begins it \
         again with fewer",
        train.at_once()
    )
}

/// Where the weights lie so that prompts can be answered within a limit, or within what is free, and how many at once:
/// as many as are wanted, or fewer where those do not fit. Refuses where one alone does not. So many processes of this
/// host do so.
pub(crate) fn place_for_asking(
    device: &Chosen,
    limit: Option<u64>,
    config: &Config,
    wanted: Asking,
    of_host: usize,
) -> Result<(Placement, Asking)> {
    let found = Found::on(device, limit, Keep::Auto).among(of_host, of_host);
    let arranged = |asking: Asking, host: Option<u64>| {
        found.arranged(config, 1, host, |place| anyhow::Ok(estimate_asking(config, asking, place)))
    };
    let asking = most_at_once(wanted, |asking| {
        arranged(asking, found.host).is_ok_and(|(_, needs)| found.fits(&needs))
    });
    let (arrangement, needs) = arranged(asking, found.host)?;
    let with_more_host = arranged(asking, None)?.1;
    if found.host.is_some() && !found.fits(&needs) && found.fits(&with_more_host) {
        return Err(refusal(&needs, found.free, device, &found.lacking_on_host(&with_more_host)));
    }
    found.refuse_with(&needs, device, "raise the limit, ask shorter prompts, or allow fewer new tokens")?;
    Ok((arrangement.placement, asking))
}

/// What a device has, before a run.
pub(crate) struct Found {
    /// See [`Room`].
    pub(crate) held: u64,
    free: Option<u64>,
    /// Bytes that may be planned for.
    may: Option<u64>,
    /// Bytes that may lie on the host.
    pub(crate) host: Option<u64>,
    /// The card, where it is here.
    card: Option<Device>,
    /// Bytes a second of its bus, where the card is not here and the rate is known.
    bus: Option<f64>,
    /// For an estimate.
    pub(crate) place: Place,
    /// Processes that share the run.
    workers: usize,
}

impl Found {
    /// Refuses what cannot do with what there is.
    pub(crate) fn refuse(&self, needs: &Memory, device: &Chosen) -> Result<()> {
        self.refuse_with(needs, device, "raise --memory, or use fewer or shorter sequences at once")
    }

    fn refuse_with(&self, needs: &Memory, device: &Chosen, advice: &str) -> Result<()> {
        if self.fits(needs) { Ok(()) } else { Err(refusal(needs, self.free, device, advice)) }
    }

    fn fits(&self, needs: &Memory) -> bool {
        self.may.is_none_or(|may| needs.least() <= may)
    }

    /// How steps of so many micro-batches are laid out so that what `needs` says fits, if it can, with so many bytes of
    /// the host at most.
    pub(crate) fn arranged(
        &self,
        config: &Config,
        micro_batches: usize,
        host: Option<u64>,
        needs: impl FnMut(Place) -> Result<Memory>,
    ) -> Result<(Arrangement, Memory)> {
        arrange(config, self.place, micro_batches, host, needs, |needs| self.fits(needs))
    }

    /// What to do where only the host's memory lacks for what `needs` says.
    fn lacking_on_host(&self, needs: &Memory) -> String {
        format!(
            "the card would do: {} are to lie in the host's memory, which has {} available (MemAvailable and the limit of \
             this process's group, without swap); free host memory or raise the container's limit",
            size(needs.on_host),
            size(self.host.unwrap_or(0))
        )
    }

    /// The same for one of so many processes that share a run, of which so many share this host's memory.
    pub(crate) fn among(self, workers: usize, of_host: usize) -> Self {
        let part = |bytes: Option<u64>| bytes.map(|bytes| bytes / of_host.max(1) as u64);
        let on_cpu = matches!(self.place, Place::Cpu { .. });
        let (free, may) = if on_cpu { (part(self.free), part(self.may)) } else { (self.free, self.may) };
        Self { free, may, host: part(self.host), workers, ..self }
    }

    /// Asks the device, with what the settings say of it.
    pub(crate) fn by(settings: &Settings, device: &Chosen) -> Result<Self> {
        let (limit, keep) = settings.memory.limit_and_keep()?;
        Ok(Self::on(device, limit, keep))
    }

    /// A card that is not here, of so many bytes.
    pub(crate) fn imagined(card: u64, keep: Keep, bus: Option<f64>) -> Self {
        let free = card.saturating_sub(CONTEXT);
        // Which card it is nobody knows; the larger of both layouts fits either.
        let place = Place::Card { free, keep, in_order: true, arrangement: Arrangement::default() };
        let may = Some((SHARE * free as f64) as u64);
        Self {
            held: CONTEXT.min(card),
            free: Some(free),
            may,
            host: None,
            card: None,
            bus,
            place,
            workers: 1,
        }
    }

    /// Asks the device.
    pub(crate) fn on(device: &Chosen, limit: Option<u64>, keep: Keep) -> Self {
        let share = |bytes: u64| (SHARE * bytes as f64) as u64;
        if descant_kernels::is_cpu(&device.device) {
            let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let held = resident("VmRSS").unwrap_or(0);
            let limit = limit.map(|limit| limit.saturating_sub(held));
            let free = [available(), limit].into_iter().flatten().min();
            let place = Place::Cpu { threads };
            return Self {
                held,
                free,
                may: free.map(share),
                host: None,
                card: None,
                bus: None,
                place,
                workers: 1,
            };
        }
        let held = gauge::memory_in_use(&device.device).unwrap_or(0);
        let limit = limit.map(|limit| limit.saturating_sub(held));
        let of_card = device.free();
        let free = [of_card, limit].into_iter().flatten().min();
        // The layers keep to a limit on their own.
        let may = [of_card.map(share), limit].into_iter().flatten().min();
        let in_order = descant_kernels::wants_rows_in_order(&device.device);
        let arrangement = Arrangement::default();
        let place = Place::Card { free: free.unwrap_or(0), keep, in_order, arrangement };
        Self {
            held,
            free,
            may,
            host: available().map(share),
            card: Some(device.device.clone()),
            bus: None,
            place,
            workers: 1,
        }
    }
}

/// Most memory that this process ever used; on a card, what is in use there now, which grows to its most within a few
/// steps. Nothing where the system does not report it.
pub(crate) fn in_use(device: &Chosen) -> Option<u64> {
    if descant_kernels::is_cpu(&device.device) {
        return resident("VmHWM");
    }
    gauge::memory_in_use(&device.device)
}

/// As many prompts at once as fit, out of those that are wanted; one where none do.
fn most_at_once(wanted: Asking, fits: impl Fn(Asking) -> bool) -> Asking {
    let of = |batch: u64| Asking { batch, ..wanted };
    // More never need less.
    let (mut most, mut too_many) = (1, wanted.batch + 1);
    while most + 1 < too_many {
        let middle = most.midpoint(too_many);
        if fits(of(middle)) {
            most = middle;
        } else {
            too_many = middle;
        }
    }
    of(most.min(wanted.batch))
}

/// For people.
pub(crate) fn fewer_at_once(asking: Asking, wanted: Asking) -> String {
    format!("held-out prompts {} at a time in place of {}: more do not fit", asking.batch, wanted.batch)
}

/// The largest settings that fit and train the same, as advice.
fn smaller(
    train: &TrainConfig,
    needs: &dyn Fn(&TrainConfig) -> Result<Memory>,
    fits: &dyn Fn(&Memory) -> bool,
) -> Result<String> {
    let mut advice = Vec::new();
    for sequences in train.divisors(train.at_once()) {
        let smaller = train.with_at_once(sequences);
        let needed = needs(&smaller)?;
        if fits(&needed) {
            if sequences != train.at_once() {
                advice.push(format!("train.micro_batch = {sequences}"));
                advice.push(format!("train.accumulation = {}", smaller.accumulation));
            }
            let advice = advice.join(" and ");
            return Ok(format!(
                "set {advice}: a step sees the same conversations, in {}",
                size(needed.least())
            ));
        }
    }
    let one = TrainConfig { micro_batch: 1.into(), ..train.clone() };
    let needed = size(needs(&one)?.least());
    Ok(format!(
        "one conversation at a time needs {needed}: lower train.max_sequence or lora.r, or free memory"
    ))
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes < GIB { format!("{:.1} MiB", bytes / MIB) } else { format!("{:.2} GiB", bytes / GIB) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_prompts_are_asked_at_once_as_fit() {
        let wanted = Asking { batch: 100, tokens: 6000, scored: 0 };
        let most = |room: u64| most_at_once(wanted, |asking| asking.batch * asking.tokens <= room).batch;
        assert_eq!(most(u64::MAX), 100);
        assert_eq!(most(100 * 6000), 100);
        assert_eq!(most(100 * 6000 - 1), 99);
        assert_eq!(most(37 * 6000 + 5), 37);
        // Where not even one fits that one is what is said not to.
        assert_eq!((most(6000), most(0)), (1, 1));
        let none = Asking { batch: 1, ..wanted };
        assert_eq!(most_at_once(none, |_| false).batch, 1);
    }
}
