//! How much of a device's memory a model's layers may use, for what, and where it is.
//!
//! The rows of `table.rs` say what each buffer takes; `layout.rs` gives each a place, `plan.rs` chooses what layers
//! keep, `budget.rs` adds it up, and `arena.rs` holds the piece of a card that they work in. A [`Workspace`] owns
//! settings and memory of one model and ends with it: two models on one card do not see each other's, but for the limit,
//! which bounds all that the process has on the card: the smallest holds. The CPU plans nothing.

#[cfg(feature = "cuda")]
pub(crate) mod arena;
pub(crate) mod budget;
pub(crate) mod inputs;
pub(crate) mod keep;
pub(crate) mod layout;
mod low_rank;
pub(crate) mod plan;
pub(crate) mod pool;
mod settings;
pub(crate) mod sizes;
pub(crate) mod table;
pub(crate) mod workspace;

pub use budget::{LayerLoad, LayerMemory};
pub use keep::{Keep, Kept};
pub use pool::pool_page;
pub use settings::{Claim, MemorySettings};
pub use sizes::{Chunks, LayerSizes};
pub use workspace::{Reservation, Workspace};
