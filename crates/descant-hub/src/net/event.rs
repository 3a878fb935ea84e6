//! Progress of a download.

use std::path::Path;
use std::time::Duration;

use crate::error::Error;
use crate::reference::{Commit, Repo};

/// Something that happened. Files are named as in their repository.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The hub resolved the revision.
    Resolved {
        /// The repository.
        repo: &'a Repo,
        /// The commit.
        commit: &'a Commit,
    },
    /// The plan of the download is known.
    Planned {
        /// Files that a run needs.
        files: usize,
        /// Their length together.
        bytes: u64,
        /// Bytes already in the cache, including partial files.
        present: u64,
        /// Where it goes.
        cache: &'a Path,
    },
    /// A file is begun, or continued.
    Begun {
        /// The file.
        file: &'a str,
        /// Its length.
        size: u64,
        /// Bytes that were there from before.
        from: u64,
    },
    /// Bytes came.
    Received {
        /// How many.
        bytes: u64,
    },
    /// Bytes that were counted are discarded and will be fetched again.
    Lost {
        /// How many.
        bytes: u64,
    },
    /// A file is whole and verified.
    Finished {
        /// The file.
        file: &'a str,
    },
    /// A failure that will be retried.
    Again {
        /// The file, or the address.
        what: &'a str,
        /// What happened.
        error: &'a Error,
        /// How long until then.
        pause: Duration,
    },
    /// A file in the cache is not what was published, and is fetched again.
    Damaged {
        /// The file.
        file: &'a str,
    },
    /// Another process is fetching the same file; this one waits.
    Waiting {
        /// The file.
        file: &'a str,
    },
}

/// Receives events, from several threads.
pub trait Watch: Sync {
    /// Takes an event.
    fn on(&self, event: &Event<'_>);
}

/// Ignores all events.
impl Watch for () {
    fn on(&self, _: &Event<'_>) {}
}
