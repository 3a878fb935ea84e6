//! What a run needs and what there is, and the sequences at once of a run that chooses them itself.
//!
//! Sums depend on that number, so a run that is resumed keeps the one that it was begun with, and processes that share a
//! run take that of rank 0.

use anyhow::Result;
use descant_model::Config;
use descant_train::checkpoint::Identity;
use descant_train::memory::Asking;
use descant_train::{MicroBatch, Samples, TrainConfig};

use crate::cards::Team;
use crate::cli::Train;
use crate::command::load;
use crate::command::room::{Found, Room};
use crate::run_folder::RunFolder;
use crate::settings::{Resolved, Settings};

/// What a run needs and what there is. Where it chooses the sequences at once by itself, rank 0 chooses for all.
pub(super) fn room_for(
    args: &Train,
    resolved: &Resolved,
    config: &Config,
    samples: &dyn Samples,
    asking: Option<Asking>,
    device: &load::Chosen,
    identity: &Identity,
    team: Option<&Team>,
) -> Result<(Room, Found)> {
    let settings = &resolved.settings;
    let found = Found::by(settings, device)?;
    let found = match team {
        Some(team) => found.among(team.group.world(), team.on_this_host()),
        None => found,
    };
    let chooses = settings.train.micro_batch == MicroBatch::Auto;
    let begun = match team.filter(|team| chooses && !team.is_first()) {
        Some(team) => Some(team.tell("sequences at once", None)?),
        None => begun_with(resolved, args.force, identity),
    };
    let room = Room::find(settings, config, samples, asking, &found, begun)?;
    if let Some(team) = team.filter(|team| chooses && team.is_first()) {
        team.tell("sequences at once", Some(room.train.at_once()))?;
    }
    Ok((room, found))
}

/// What the identity calls the sequences at once of a run that chose them itself.
const AT_ONCE: &str = "sequences at once";

/// The sequences at once with which the run was begun that this one would resume, where it chose them itself.
fn begun_with(resolved: &Resolved, force: bool, identity: &Identity) -> Option<usize> {
    let of_run = resolved.settings.train.micro_batch == MicroBatch::Auto && !force;
    let folder = resolved.settings.run.folder.as_deref();
    let recorded = of_run.then(|| RunFolder::recorded(folder, &resolved.model_name(), identity, AT_ONCE));
    recorded.flatten()?.parse().ok().filter(|sequences| *sequences > 0)
}

/// The identity with the sequences at once that were chosen: the order of sums depends on them.
pub(super) fn with_choice(mut identity: Identity, settings: &Settings, chosen: &TrainConfig) -> Identity {
    if settings.train.micro_batch == MicroBatch::Auto {
        identity.push((AT_ONCE.to_owned(), chosen.at_once().to_string()));
    }
    identity
}

/// How many sequences go through the model at once, where that was chosen here.
pub(crate) fn at_once_in_words(chosen: &TrainConfig, wanted: &TrainConfig) -> String {
    if wanted.micro_batch == MicroBatch::Auto {
        format!(", {} at once", chosen.at_once())
    } else {
        String::new()
    }
}
