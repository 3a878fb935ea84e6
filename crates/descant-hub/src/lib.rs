//! Models and data sets of a hub: pinned to a commit, fetched, verified, kept in the shared cache.
//!
//! ```no_run
//! use descant_hub::{Cache, Hub, HubConfig, Reference};
//!
//! # fn main() -> Result<(), descant_hub::Error> {
//! let cache = Cache::new("/data/hub");
//! let reference = Reference::parse("hf://openai/gpt-oss-20b")?;
//! let model = match cache.find(&reference) {
//!     Ok(snapshot) => snapshot,
//!     Err(_) => Hub::new(HubConfig::default(), cache)?.download(&reference, false, &())?.snapshot,
//! };
//! println!("{} is in {}", model.reference, model.path.display());
//! # Ok(())
//! # }
//! ```
//!
//! What it promises, whatever a server does:
//!
//! * a file gets its name only when its length and hash are the published ones;
//! * nothing is written outside the cache, because every name from outside is a checked relative path;
//! * the token goes to the hub's own origin and to no other, and no text or log holds it;
//! * an interrupted download resumes by range;
//! * [`Cache::find`] and [`Cache::verify`] open no socket; without the feature `net` nothing here can.
//!
//! It reads no environment and prints nothing. It does not know what the files mean beyond which of them a run needs.
//!
//! # Why not `hf-hub`
//!
//! Three promises cannot be kept over the stream of hf-hub 1.0.0: it reports neither status nor range, it sends a HEAD
//! that follows redirects before each request, and without a token it takes one from the environment. The README has the
//! table, the folder `probe` the program that shows it.

mod cache;
mod checksum;
mod error;
mod listing;
#[cfg(feature = "net")]
mod net;
mod reference;
mod select;
mod verify;

pub use cache::{Cache, Snapshot};
pub use checksum::Checksum;
pub use error::{Error, Refusal, Result};
pub use listing::{Listing, MAX_LISTING_BYTES, Published};
#[cfg(feature = "net")]
pub use net::{DEFAULT_ENDPOINT, Event, Fetched, Hub, HubConfig, Patience, Secret, Watch, page};
pub use reference::{Commit, Kind, Reference, Repo};
pub use verify::{Checked, Outcome, check_dir};
