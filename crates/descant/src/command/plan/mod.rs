//! `descant plan`: what a run needs, before anything is loaded or fetched: memory by purpose, steps, tokens, disk, time.
//!
//! It reads the settings, the model's configuration and tokenizer, and the data; no weights. What is not here is planned
//! by what is published of it (`ahead.rs`), also on cards that are not here (`cards.rs`). It opens no socket and writes
//! nothing. The memory is the estimate that `descant train` checks a run against. The time is a lower bound, from
//! operations alone; `descant bench step` measures steps.

use anyhow::Result;
use descant_kernels::gauge;
use descant_train::memory::{Load, Memory};

use super::load::{self, Chosen};
use super::operations::flops_per_token;
use super::room::{Found, Room};
use crate::cli::Plan;
use crate::failure::Exit;
use crate::gpus::Card;
use crate::hub::Places;
use crate::settings::{Recipe, Resolved, Settings};
use crate::talk::Talk;

mod ahead;
mod cards;
mod show;

use ahead::{Base, Rows};
use cards::{Floor, Predicted, Verdict};

/// Smallest base for which the sizes of cards are looked at: any card holds a smaller one.
const WORTH_A_CARD: u64 = 1 << 30;

/// What a run would need.
struct Answer {
    base: Base,
    rows: Rows,
    device: String,
    trained_parameters: u64,
    room: Room,
    steps: u64,
    /// Examples, or packed sequences, of a step.
    units: u64,
    /// Tokens of all steps, as far as they are known.
    tokens: Option<u64>,
    disk: Disk,
    /// Floating-point operations of all steps, and the rate of this device, where it is here.
    operations: f64,
    rate: Option<f64>,
    /// The least time on cards like the one that was asked for.
    floors: Vec<Floor>,
    /// What the steps are expected to take on the card that was named.
    predicted: Option<Predicted>,
    /// Cards that are not here, where none was asked for.
    cards: Vec<Verdict>,
    /// Bytes of the host that stay in place for the card.
    host_bytes: u64,
}

/// Bytes of the run folder, the largest of them, and of what is fetched.
struct Disk {
    checkpoint: u64,
    adapter: u64,
    /// At the worst moment: what is kept, and one more while it is written.
    needs: u64,
    free: Option<u64>,
    /// What is not here yet, as far as it is known, where it goes, and how much is free there.
    download: u64,
    cache: String,
    cache_free: Option<u64>,
    /// Whether the run is planned for another machine, whose disk nobody knows.
    elsewhere: bool,
}

/// Finds out and prints. The status says whether it fits.
pub(crate) fn run(args: &Plan, resolved: &Resolved, places: &Places, talk: Talk) -> Result<Exit> {
    let answer = answer(args, resolved, places, talk)?;
    if args.json {
        talk.data(answer.to_json(resolved))?;
    } else {
        answer.print(resolved, talk)?;
    }
    if let Some(advice) = &answer.room.advice {
        talk.hint(advice);
    }
    if !answer.disk.run_fits() {
        talk.hint("make room where run.folder is, or set it to another disk");
    }
    if !answer.disk.download_fits() {
        talk.hint("set HF_HUB_CACHE to a folder on a larger disk");
    }
    Ok(if answer.fits() { Exit::Success } else { Exit::No })
}

fn answer(args: &Plan, resolved: &Resolved, places: &Places, talk: Talk) -> Result<Answer> {
    let settings = &resolved.settings;
    let base = Base::find(settings)?;
    let rows = Rows::find(settings, &base.renderer, args.settings.file.is_none(), talk)?;
    let in_all = Load::of_run(rows.samples(), &settings.train, 1)?;
    let tokens = rows.tokens(in_all, &settings.train);
    let expected = tokens.unwrap_or(in_all.in_all);
    let recipe = args.recipe.as_deref().map(Recipe::find).transpose()?;
    let asking = rows.asking(resolved, recipe, &base, expected)?;
    let (found, device) = if let Some(wanted) = args.card {
        (imagined(settings, wanted.bytes, wanted.card)?, None)
    } else {
        let device = load::device(&settings.model.device)?;
        (Found::by(settings, &device)?, Some(device))
    };
    if let Rows::Here(training) = &rows {
        for warning in training.account.warnings() {
            talk.warn(warning);
        }
    }
    let room = |found: &Found| Room::find(settings, &base.config, rows.samples(), asking, found, None);
    let of_device = room(&found)?;
    let operations = flops_per_token(&base.config, rows.a_sample()) * expected as f64;
    let on_cpu = device.as_ref().is_some_and(|chosen| descant_kernels::is_cpu(&chosen.device));
    let cards = if on_cpu && of_device.needs.base >= WORTH_A_CARD {
        let find = |card: u64| imagined(settings, card, None).and_then(|found| room(&found));
        cards::verdicts(operations, find)?
    } else {
        Vec::new()
    };
    let bus_seconds = of_device.bus.map_or(0.0, |bus| bus.seconds() * settings.train.max_steps as f64);
    Ok(Answer {
        device: device
            .as_ref()
            .map_or_else(|| args.card.map_or_else(String::new, cards::words), |device| device.why.clone()),
        trained_parameters: of_device.needs.adapter / 4,
        steps: settings.train.max_steps,
        units: settings.train.units() as u64,
        tokens,
        disk: Disk::of(args, settings, &of_device.needs, (&base, &rows), places)?,
        operations,
        rate: device.as_ref().map(|Chosen { device, .. }| gauge::rates(device).flops).filter(|r| *r > 0.0),
        floors: args.card.map_or_else(Vec::new, |wanted| cards::floors_of(wanted, operations)),
        predicted: args.card.and_then(|wanted| cards::predicted(wanted, operations, bus_seconds)),
        cards,
        host_bytes: of_device.needs.on_host,
        room: of_device,
        base,
        rows,
    })
}

/// A card that is not here, of so many bytes, under the settings' limit.
fn imagined(settings: &Settings, bytes: u64, card: Option<&Card>) -> Result<Found> {
    let (limit, keep) = settings.memory.limit_and_keep()?;
    Ok(Found::imagined(bytes, limit, keep, card))
}

impl Disk {
    fn of(
        args: &Plan,
        settings: &Settings,
        needs: &Memory,
        (base, rows): (&Base, &Rows),
        places: &Places,
    ) -> Result<Self> {
        let (adapter, checkpoint) = (needs.adapter, needs.adapter + needs.optimizer);
        let folder = settings.run.folder.clone().unwrap_or_else(|| "runs".into());
        let of_rows = rows.ahead().and_then(ahead::Ahead::download);
        let download = base.download.unwrap_or(0) + of_rows.unwrap_or(0);
        let cache = if download > 0 { Some(places.cache()?) } else { None };
        let cache_free = cache.as_ref().map(|cache| descant_files::free_bytes(cache.root())).transpose()?;
        Ok(Self {
            checkpoint,
            adapter,
            needs: (settings.run.keep as u64 + 1) * checkpoint + adapter,
            free: descant_files::free_bytes(&folder)?,
            download,
            cache: cache.map_or_else(String::new, |cache| cache.root().display().to_string()),
            cache_free: cache_free.flatten(),
            elsewhere: args.card.is_some(),
        })
    }

    fn run_fits(&self) -> bool {
        self.free.is_none_or(|free| free >= self.needs)
    }

    fn download_fits(&self) -> bool {
        self.elsewhere || self.cache_free.is_none_or(|free| free >= self.download)
    }
}

impl Answer {
    /// What the status says.
    fn fits(&self) -> bool {
        self.room.advice.is_none() && self.disk.run_fits() && self.disk.download_fits()
    }
}
