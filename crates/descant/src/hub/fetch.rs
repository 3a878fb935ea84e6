//! A download, as people see it.

use std::time::Duration;

use anyhow::Result;
use descant_hub::{Cache, Hub, HubConfig, Patience, Reference, Snapshot};

use super::environment::Environment;
use super::hint::hinted;
use crate::observe::Transfer;
use crate::talk::Talk;

/// How long a look at the network waits.
const IMPATIENT: Duration = Duration::from_secs(5);

/// Brings a repository into the cache.
pub(super) fn fetch(
    environment: &Environment,
    cache: Cache,
    reference: &Reference,
    thoroughly: bool,
    talk: Talk,
) -> Result<Snapshot> {
    let hub = Hub::new(environment.config.clone(), cache).map_err(hinted)?;
    let transfer = Transfer::new(talk);
    let fetched = hub.download(reference, thoroughly, &transfer);
    transfer.finish();
    let fetched = fetched.map_err(hinted)?;
    let (new, all) = (fetched.new_files, fetched.files.len());
    let (label, text) = match (new, all) {
        (0, 1) => ("cached", "the file was there".to_owned()),
        (0, _) => ("cached", format!("all {all} files were there")),
        (1, 1) => ("verified", "the file was fetched and has its published hash".to_owned()),
        _ => ("verified", format!("{new} of {all} files fetched, each with its published hash")),
    };
    talk.item(label, text);
    Ok(fetched.snapshot)
}

/// How long the hub takes to answer; a second question is not asked.
pub(super) fn reach(environment: &Environment, cache: Cache) -> Result<Duration> {
    let patience = Patience { connect: IMPATIENT, answer: IMPATIENT, ..Patience::default() };
    let hub = Hub::new(HubConfig { patience, ..environment.config.clone() }, cache).map_err(hinted)?;
    hub.reach().map_err(hinted)
}
