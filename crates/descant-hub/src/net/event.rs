//! What a download tells while it runs.

use std::path::Path;
use std::time::Duration;

use crate::error::Error;
use crate::reference::{Commit, Repo};

/// Something that happened. Files are named as in their repository.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The hub told what the revision is.
    Resolved {
        /// The repository.
        repo: &'a Repo,
        /// The commit.
        commit: &'a Commit,
    },
    /// It is known what is to be done.
    Planned {
        /// Files that a run needs.
        files: usize,
        /// Their length together.
        bytes: u64,
        /// What of it lies in the cache already, also of files that are not whole.
        present: u64,
        /// Where it goes.
        cache: &'a Path,
    },
    /// A file is begun, or gone on with.
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
    /// Bytes that were counted are worth nothing and will come again.
    Lost {
        /// How many.
        bytes: u64,
    },
    /// A file is whole and verified.
    Finished {
        /// The file.
        file: &'a str,
    },
    /// A failure that is tried again.
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
    /// Another program fetches the same file; we wait for it.
    Waiting {
        /// The file.
        file: &'a str,
    },
}

/// Who is told. Called from several threads.
pub trait Watch: Sync {
    /// Takes an event.
    fn on(&self, event: &Event<'_>);
}

/// Nobody is told.
impl Watch for () {
    fn on(&self, _: &Event<'_>) {}
}
