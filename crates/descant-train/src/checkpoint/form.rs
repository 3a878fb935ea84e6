//! The form of a checkpoint: its version, the names of its tensor files, and what is written down of a run.

use std::collections::BTreeMap;

/// Version of the form. A newer one is refused, never guessed at.
pub const FORMAT: u32 = 1;

/// Fewest checkpoints that are kept, so that the newest may be damaged.
pub const KEEP_AT_LEAST: usize = 2;

pub(super) const ADAPTER: &str = "adapter.safetensors";
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";

/// What run this is: names and values, settings and hashes of the model and the data among them, in order. Two runs
/// are the same when all of it is.
pub type Identity = Vec<(String, String)>;

/// Lengths of the run's logs in bytes, by file name.
pub type LogLengths = BTreeMap<String, u64>;
