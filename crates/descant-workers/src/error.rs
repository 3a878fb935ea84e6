//! What can go wrong between the processes of a run.

use std::time::Duration;

use crate::watch::Cause;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The environment names a place that cannot be.
    #[error("{0}")]
    Place(String),
    /// Rank 0 cannot listen.
    #[error("rank 0 cannot listen on port {port} of this host: {text}")]
    Port {
        /// The port.
        port: u16,
        /// The system's words.
        text: String,
    },
    /// Rank 0 does not answer.
    #[error("rank {rank} does not reach rank 0 at {address}: {text}")]
    Unreached {
        /// Who asks.
        rank: usize,
        /// Where rank 0 should be.
        address: String,
        /// What happened.
        text: String,
    },
    /// Ranks that never came.
    #[error("{} of {world} ranks did not connect within {} s: {ranks:?}", ranks.len(), waited.as_secs())]
    Absent {
        /// Those that are missing.
        ranks: Vec<usize>,
        /// Ranks of the run.
        world: usize,
        /// How long rank 0 waited.
        waited: Duration,
    },
    /// A member of the group ended, failed, or is silent; everybody learns the same cause.
    #[error("{0}")]
    Member(Cause),
}
