//! A process among others: how it joins them, which card it takes, what it says, and how it ends when one of them fails.
//!
//! Rank 0 prints and writes. The others are silent, and what goes wrong with them reaches rank 0, which names it once.
//! Only that rank 0 itself is gone is said by another: rank 1.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use burn::tensor::Device;
use descant_train::{Link, OverGroup};
use descant_workers::{Cause, Error, Facts, Group, Member, Place, Started, Wait};
use serde::{Deserialize, Serialize};

use super::choice::cards_here;
use super::leash;
use crate::failure::{Exit, Hinted, guarded};
use crate::signals::Signals;
use crate::talk::Talk;
use crate::version;

/// Longest name of a host.
const MAX_NAME: u64 = 1 << 10;
/// What can be done once a process was lost.
const RESUME: &str = "the same command again resumes from the last checkpoint";

/// The others, connected.
pub(crate) struct Team {
    pub(crate) group: Group,
}

/// Joins the others, does `work`, and ends as they do.
pub(crate) fn in_team(
    place: &Place,
    facts: Facts,
    talk: Talk,
    work: impl FnOnce(&Team, &Signals, Talk) -> Result<Exit>,
) -> Result<Exit> {
    let signals = Signals::catch()?;
    if place.started == Started::Launcher {
        leash::listen().context("listen to the launcher")?;
    }
    let version = format!("descant {} ({}, {})", version::VERSION, version::COMMIT, version::TARGET);
    let host = descant_files::read_bounded(Path::new("/proc/sys/kernel/hostname"), MAX_NAME);
    let host =
        host.map_or_else(|_| "a host".to_owned(), |name| String::from_utf8_lossy(&name).trim().to_owned());
    let member = Member { version, host, facts };
    let rank = place.rank;
    let group = match Group::join(place, &member, move |cause| last_resort(rank, &cause, talk)) {
        Ok(group) => group,
        Err(error) => return ended(rank, error.into(), &signals),
    };
    let team = Team { group };
    let talk = if team.group.is_first() { talk } else { talk.silenced() };
    match guarded(|| work(&team, &signals, talk)) {
        Ok(exit) => Ok(exit),
        Err(error) => {
            if cause_in(&error).is_none() {
                team.group.fail(&format!("{error:#}"), Some(Exit::of(&error).code()));
            }
            ended(rank, error, &signals)
        }
    }
}

/// The cause of an error that came from the group.
fn cause_in(error: &anyhow::Error) -> Option<&Cause> {
    error.chain().find_map(|cause| {
        let found = match cause.downcast_ref::<descant_train::Error>() {
            Some(descant_train::Error::Workers(error)) => Some(error),
            _ => cause.downcast_ref::<Error>(),
        };
        match found {
            Some(Error::Member(cause)) => Some(cause),
            _ => None,
        }
    })
}

/// Whether a process says what happened.
fn speaks(rank: usize, cause: Option<&Cause>) -> bool {
    match cause {
        _ if rank == 0 => true,
        // Everybody misses rank 0; one of them says so.
        Some(cause) => rank == 1 && cause.rank == 0 && cause.by == 1,
        None => false,
    }
}

/// How a process ends that cannot continue.
fn ended(rank: usize, error: anyhow::Error, signals: &Signals) -> Result<Exit> {
    let exit = Exit::of(&error);
    let cause = cause_in(&error).cloned();
    // Another was quicker to end by the signal that this one has got too.
    if let Some(exit) = signals.came().filter(|_| cause.is_some()) {
        return Ok(exit);
    }
    let unreached = error.chain().any(|e| matches!(e.downcast_ref(), Some(Error::Unreached { .. })));
    let alone = unreached && rank == 1;
    if !alone && !speaks(rank, cause.as_ref()) {
        return Ok(exit);
    }
    Err(if cause.is_some() { Hinted::new(error, RESUME).into() } else { error })
}

/// Ends a process whose main thread does not ask the group: it waits for a card, or computes something long.
fn last_resort(rank: usize, cause: &Cause, talk: Talk) {
    let error = Hinted::new(Error::Member(cause.clone()), RESUME).into();
    if speaks(rank, Some(cause)) {
        talk.error(&error);
    }
    // What libraries do at a process's end may wait for the card.
    Exit::of(&error).at_once();
}

/// What rank 0 tells the others when it knows whether there is something to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Begin {
    /// Whether the run was done by an earlier process.
    pub(crate) done: bool,
    /// The run's folder.
    pub(crate) folder: std::path::PathBuf,
}

impl Team {
    /// Whether this process prints and writes.
    pub(crate) fn is_first(&self) -> bool {
        self.group.is_first()
    }

    /// Processes of this host.
    pub(crate) fn on_this_host(&self) -> usize {
        self.group.place().local_world
    }

    /// The device of this process, where the settings name `wanted`.
    pub(crate) fn device(&self, wanted: &str) -> Result<String> {
        if let Ok(device) = std::env::var(leash::DEVICE)
            && self.group.place().started == Started::Launcher
        {
            return Ok(device);
        }
        let there = if wanted == "cpu" { 0 } else { cards_here() };
        match wanted {
            "cpu" => Ok("cpu".to_owned()),
            "auto" if there == 0 => Ok("cpu".to_owned()),
            // Where each process is shown a card of its own, that is its first.
            "auto" | "cuda" if there == 1 => Ok("cuda:0".to_owned()),
            "auto" | "cuda" => Ok(format!("cuda:{}", self.group.place().local_rank)),
            other => {
                let error = anyhow!("the device is `{other}`, and this is one of several processes");
                Err(Hinted::new(
                    error,
                    "use model.device = \"cuda\" or \"auto\": each takes a card of its own",
                )
                .into())
            }
        }
    }

    /// Compares everything that the run's bytes depend on.
    pub(crate) fn agree(&self, identity: &Facts) -> Result<()> {
        Ok(self.group.agree("identity", identity, Wait::Long)?)
    }

    /// How gradients go round.
    #[cfg_attr(not(feature = "cuda"), expect(clippy::unnecessary_wraps, reason = "a card's link can fail"))]
    pub(crate) fn link<'a>(&'a self, device: &Device) -> Result<Box<dyn Link + 'a>> {
        #[cfg(feature = "cuda")]
        if !descant_kernels::is_cpu(device) {
            return Ok(Box::new(super::nccl::OverNccl::connect(&self.group, device)?));
        }
        let _ = device;
        Ok(Box::new(OverGroup(&self.group)))
    }

    /// What rank 0 says, everywhere.
    pub(crate) fn tell<T: Serialize + for<'de> Deserialize<'de>>(
        &self,
        name: &str,
        mine: Option<T>,
    ) -> Result<T> {
        let found: Option<T> = told(&self.group, name, &mine)?;
        found.with_context(|| format!("rank 0 had nothing to say about `{name}`"))
    }

    /// For people.
    pub(crate) fn words(&self, device: &Device, micro_batches: usize) -> String {
        let world = self.group.world();
        let mut hosts = self.group.hosts().to_vec();
        hosts.sort();
        hosts.dedup();
        let where_ = if hosts.len() > 1 { format!(" on {} hosts", hosts.len()) } else { String::new() };
        let how = if descant_kernels::is_cpu(device) { "on the CPU" } else { "one a card" };
        format!("{world} processes{where_}, {how}; {micro_batches} micro-batches a step are dealt to them")
    }
}

/// What rank 0 says, everywhere.
pub(crate) fn told<T: Serialize + ?Sized, R: for<'de> Deserialize<'de>>(
    group: &Group,
    name: &str,
    mine: &T,
) -> Result<R> {
    let bytes = serde_json::to_vec(mine).context("write a message")?;
    let bytes = group.broadcast(name, 0, bytes, Wait::Long)?;
    serde_json::from_slice(&bytes).with_context(|| format!("read `{name}` of rank 0"))
}
