//! `descant train`: samples and measures before, training, adapter, samples and measures after, report.
//!
//! Everything that can be wrong with settings and data is found before the run folder is made and before the model
//! is asked anything; from there on `writer.rs` has the run, and `others.rs` those of its processes that write nothing.
//! The same command again continues where a stopped run's newest checkpoint is, or does what was left to do after its
//! last step.

use std::time::Instant;

use anyhow::Result;
use descant_lora::LoraAdapters;
use descant_train::memory::{Arrangement, Load};
use descant_train::{Experts, Workers};
use descant_workers::{Place, Wait};

use super::examination::Examination;
use super::identity::{identity, of_all, settings_of_all};
use super::in_fp8::InFp8;
use super::room::{Found, Room};
use super::{load, rows};
use crate::cards::{self, Role, Team};
use crate::cli::Train;
use crate::failure::Exit;
use crate::run_folder::RunFolder;
use crate::settings::Resolved;
use crate::signals::Signals;
use crate::talk::Talk;

mod at_once;
mod base;
mod course;
mod examining;
mod hints;
mod lines;
mod others;
mod writer;

pub(crate) use at_once::at_once_in_words;
use course::course;
use others::Others;
use writer::Writer;

/// Prints the resolved settings. Refuses what the run would refuse of experts in fp8, as far as device and configuration say
/// it: whether all of them have room is known once the data is read.
pub(crate) fn dry_run(resolved: &Resolved, talk: Talk) -> Result<Exit> {
    let settings = &resolved.settings;
    if settings.train.experts == Experts::Fp8 {
        let found = Found::by(settings, &load::device(&settings.model.device)?)?;
        let dir = settings.model.path.as_path();
        // A model that was not fetched yet has none.
        let config = dir.join("config.json").is_file().then(|| load::config(dir)).transpose()?;
        let refused = found.check_fp8(config.as_ref(), Arrangement::default());
        refused.map_err(|refused| refused.of_settings())?;
    }
    talk.data(resolved.text.trim_end())?;
    talk.say(format_args!("the settings of {} are valid; nothing was trained", resolved.origin));
    Ok(Exit::Success)
}

/// The main job: alone, as one of several processes, or as the one that starts them.
pub(crate) fn run(args: &Train, resolved: &Resolved, place: Option<Place>, talk: Talk) -> Result<Exit> {
    let wanted = &resolved.settings.model.device;
    match cards::role(args.cards.as_ref(), place, wanted)? {
        Role::Alone(device) => {
            let signals = Signals::catch()?;
            work(args, resolved, &device.unwrap_or_else(|| wanted.clone()), None, &signals, talk)
        }
        Role::Starts(devices) => {
            // Before anything is started that would only be stopped again.
            resolved.settings.run.folder.as_deref().map_or(Ok(()), RunFolder::refuse_if_held)?;
            cards::launch(&devices)
        }
        Role::Member(place) => {
            cards::in_team(&place, settings_of_all(resolved)?, talk, |team, signals, talk| {
                work(args, resolved, &team.device(wanted)?, Some(team), signals, talk)
            })
        }
    }
}

/// The main job in one process.
fn work(
    args: &Train,
    resolved: &Resolved,
    device: &str,
    team: Option<&Team>,
    signals: &Signals,
    talk: Talk,
) -> Result<Exit> {
    let settings = &resolved.settings;
    let started = Instant::now();
    let is_first = team.is_none_or(Team::is_first);
    if is_first {
        settings.run.folder.as_deref().map_or(Ok(()), RunFolder::refuse_if_held)?;
    }
    let device = load::device(device)?;
    let dir = settings.model.path.as_path();
    let renderer = load::renderer(settings)?;
    // One prepares the data, and the others find what it has put into the cache.
    let prepared = |team: &Team| team.group.barrier("data", Wait::Long);
    team.filter(|_| !is_first).map_or(Ok(()), prepared)?;
    let rows::Training { examples: samples, watched, account } = rows::training(settings, &renderer, talk)?;
    team.filter(|_| is_first).map_or(Ok(()), prepared)?;
    let tokens = Load::of_run(&samples, &settings.train, 1)?.in_all;
    let examination = Examination::new(resolved, &renderer, None, Some(tokens))?;
    let config = load::config(dir)?;
    let identity = identity(resolved, dir, &samples.sha256(), &device.name)?;
    let asking = examination.as_ref().map(Examination::asking);
    let (room, found) =
        at_once::room_for(args, resolved, &config, &samples, asking, &device, &identity, team)?;
    room.refuse(&device)?;
    let examination = examination.map(|examination| as_fits(examination, &room));
    let identity = at_once::with_choice(identity, settings, &room.train);
    // All have measured what is free before anybody takes of it.
    team.map_or(Ok(()), |team| team.agree(&of_all(&identity)))?;
    drop(found);
    let model = base::base(settings, &device, &room, &renderer, talk)?;
    let trained = device.device.clone().autodiff();
    let fresh = || LoraAdapters::init(&model.config, &settings.lora, settings.train.seed, &trained);
    let link = team.map(|team| team.link(&device.device)).transpose()?;
    let workers = team.zip(link.as_deref()).map(|(team, link)| Workers { group: &team.group, link });
    let mut in_fp8 = InFp8::prepare(&model, settings.train.experts)?;
    if let Some(in_fp8) = &mut in_fp8 {
        in_fp8.measure(course(&model, &samples, settings, &room, workers), fresh()?)?;
    }
    let adapters = fresh()?;
    if let Some(team) = team.filter(|_| !is_first) {
        let others = Others { team, settings, room: &room, signals, watched: &watched, talk };
        let examination = examination.as_ref();
        return others
            .work(&model, &samples, adapters, workers, examination)
            .map_err(|e| hints::with_shares(e, &device));
    }
    let writer = Writer {
        args,
        resolved,
        device: &device,
        room: &room,
        in_fp8: in_fp8.as_ref(),
        team,
        signals,
        account: &account,
        started,
        talk,
    };
    writer.work(&model, &samples, &watched, adapters, workers, examination.as_ref(), identity)
}

/// As many prompts at once as there is room for.
fn as_fits<'a>(mut examination: Examination<'a>, room: &Room) -> Examination<'a> {
    if let Some(asking) = room.asking {
        examination.ask_at_once(asking.batch as usize);
    }
    examination
}
