//! Weights that have no room on a card: they lie in pinned host memory, and come over the bus while the card computes.
//!
//! A layer's packed experts pass through a ring of slots on the card, or are read where they are when few of
//! them are chosen; rows of the embedding are gathered by the card itself. Not a bit of a weight changes, and the
//! kernels are those for weights on the card, so that results do not depend on where a weight lies.
//!
//! Which weights go where is the model's business.

mod host;
mod matrix;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod slots;
mod table;

cfg_select! {
    feature = "cuda" => {
        pub(crate) mod inputs;
        pub(crate) mod ring;
        mod rows;

        pub(crate) use host::Half;
    }
    _ => {
        pub(crate) mod ring {
            //! See above.
            #[derive(Debug)]
            pub(crate) enum Ring {}
        }
    }
}

pub use host::{HostBytes, HostExperts};
pub use matrix::{StreamedMatrix, stream_experts};
pub use table::HostTable;
