//! Several cards, one run: `--cards` starts a process for each, and torchrun and Slurm are understood.
//!
//! `choice.rs` reads `--cards`, `launch.rs` starts processes and watches them, `leash.rs` ties a process to whoever
//! started it, `team.rs` is a process among others, `replies.rs` deals prompts to them, and `shares.rs` sums up what their
//! steps were. What they compute is descant-train's, and what they send each other descant-workers'.

mod choice;
mod launch;
mod leash;
#[cfg(feature = "cuda")]
mod nccl;
mod replies;
mod shares;
mod team;

use anyhow::{Result, anyhow};
use descant_workers::{Place, Started};

use crate::failure::Hinted;

pub(crate) use choice::Cards;
pub(crate) use launch::launch;
pub(crate) use replies::{Answerers, Told};
pub(crate) use shares::Shares;
pub(crate) use team::{Begin, Team, in_team, told};

/// What this process is in a run.
pub(crate) enum Role {
    /// The only one, on this device where it was named by `--cards`.
    Alone(Option<String>),
    /// It starts others, one for each of these devices.
    Starts(Vec<String>),
    /// One of several.
    Member(Place),
}

/// Where this process stands, by its environment.
///
/// # Errors
/// What is set there cannot be.
pub(crate) fn place() -> Result<Option<Place>> {
    Ok(Place::read(&|name| std::env::var(name).ok())?)
}

/// Whether our launcher started this process, which then says what has been said.
pub(crate) fn is_launched(place: Option<&Place>) -> bool {
    place.is_some_and(|place| place.started == Started::Launcher)
}

/// What to be, with `--cards` as given and the device of the settings.
///
/// # Errors
/// There are no such cards, or somebody else has started the processes already.
pub(crate) fn role(cards: Option<&Cards>, place: Option<Place>, device: &str) -> Result<Role> {
    match (cards, place) {
        (Some(_), Some(place)) if place.started != Started::Launcher => {
            let starter = if place.started == Started::Slurm { "Slurm" } else { "torchrun (RANK is set)" };
            let error = anyhow!("--cards starts processes by itself, and {starter} has started this one");
            Err(Hinted::new(error, "leave --cards out here").into())
        }
        (_, Some(place)) => Ok(Role::Member(place)),
        (Some(cards), None) => {
            let mut devices = cards.devices(device)?;
            Ok(if devices.len() == 1 { Role::Alone(devices.pop()) } else { Role::Starts(devices) })
        }
        (None, None) => Ok(Role::Alone(None)),
    }
}
