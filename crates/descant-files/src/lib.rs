//! Outside names and bytes: safe relative paths, bounded reads, mapped files, durable writes.
//!
//! Everything that comes from outside this program by name goes through [`RelPath`], everything it reads whole
//! has a limit, and everything it writes is either there completely or not at all. Other crates join no outside
//! name to a path and call no writing function of the standard library.
//!
//! This crate knows no format, opens no socket and keeps no state between calls.

mod append;
mod atomic;
mod error;
pub mod fault;
mod folder;
mod hash;
mod lock;
mod map;
mod ops;
mod partial;
mod ranges;
mod read;
mod rel_path;
mod share;
mod unnamed;

pub use append::Appender;
pub use atomic::{Growing, NewDir, sweep_stopped, sweep_stopped_in, write_atomic, write_first};
pub use error::{Error, NameDefect, Result};
pub use folder::{is_temporary, list, make, remove, rename, sweep};
pub use hash::{fingerprint, hex, sha256, sha256_file};
pub use lock::Lock;
pub use map::MappedFile;
pub use partial::Partial;
pub use ranges::Ranges;
pub use read::read_bounded;
pub use rel_path::RelPath;
pub use share::{FileLock, create_dirs, free_bytes, link_relative};
pub use unnamed::unnamed;
