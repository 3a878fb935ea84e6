//! What a run needs of what there is, how it is laid out to fit, and what would fit if it does not.

use std::iter::Peekable;

use anyhow::Result;
use descant_model::Config;
use descant_train::memory::{Arrangement, Asking, Load, Memory, Place, check_card, estimate};
use descant_train::{MicroBatch, Samples, TrainConfig};

use super::asking::{fewer_at_once, most_at_once};
use super::bus::Bus;
use super::found::Found;
use super::refusal::{parts, parts_in_words, refusal};
use crate::command::load::Chosen;
use crate::settings::Settings;
use crate::words::size;

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
    /// The limit that was set, for people.
    pub(crate) limit: Option<String>,
    /// What crosses the bus in a step, where anything does.
    pub(crate) bus: Option<Bus>,
    /// Where it does not fit: what to do about it.
    pub(crate) advice: Option<String>,
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
        let load_of =
            |train: &TrainConfig| Ok::<_, anyhow::Error>(Load::of_run(samples, train, found.workers)?);
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
        found.check_experts(config, train.experts, arrangement)?;
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
        let limit = settings.memory.limit_in_words();
        let (asking, wanted) = (asked, asking);
        let on_card = matches!(found.place, Place::Card { .. });
        Ok(Self {
            on_card,
            needs: all,
            arrangement,
            train,
            load,
            asking,
            wanted,
            held,
            free,
            limit,
            bus,
            advice,
        })
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
        let all: Vec<String> =
            std::iter::once(amounts + &both).chain(self.limit.clone()).chain(self.words()).collect();
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
        "one conversation at a time needs {needed}: lower train.max_sequence or lora.r, free memory or raise memory.limit"
    ))
}
