//! A download, as people see it.

use anyhow::Result;
use descant_hub::{Cache, Hub, Reference, Snapshot};

use super::environment::Environment;
use super::hinted;
use crate::observe::Transfer;
use crate::talk::Talk;

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
    talk.item(
        "verified",
        format_args!(
            "{} of {} files fetched, each with its published hash",
            fetched.new_files,
            fetched.files.len()
        ),
    );
    Ok(fetched.snapshot)
}
