//! Tensors from one card to the others, by NCCL: `library.rs` has its functions, `group.rs` the cards.

#[cfg(feature = "cuda")]
mod group;
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only a card calls what was found"))]
mod library;

#[cfg(feature = "cuda")]
pub use group::{CardGroup, new_group, version};
