//! The operators of a training step of gpt-oss, each with its definition and a hand-written backward.
//!
//! Every operator is a module of the same form:
//!
//! * `reference.rs` is the definition, in plain burn tensor operations; it runs on every device, and burn's own
//!   autodiff gives its gradient;
//! * `cpu.rs` is the fast form for burn's CPU backend, with its backward written by hand;
//! * `mod.rs` is the function to call, and the wiring of forward and backward into burn's graph.
//!
//! Tests hold the two forms equal. Everything is token-major and without padding: activations are
//! `[tokens, features]`, and [`Segments`] says which tokens are one sequence. Frozen weights never get a gradient.
//!
//! This crate knows no configuration, no tensor names and no files.

#![expect(
    clippy::inline_always,
    reason = "`vectorized` compiles only what is inlined into it for wider registers"
)]

mod attention;
mod cache;
mod cpu;
#[cfg(feature = "nvrtc")]
pub mod cuda;
mod device;
mod experts;
pub mod gauge;
mod layer;
mod linear;
mod load;
mod loss;
mod low_rank;
mod memory;
mod norm;
mod optimizer;
mod rates;
mod read;
mod rotary;
mod route;
mod site;
mod swiglu;

pub use attention::{AttentionSpec, Segment, Segments, attention};
pub use cache::write_rows;
pub use device::{compile_ahead, is_cpu, is_cuda, wants_rows_in_order};
pub use experts::MAX_EXPERT_RANK;
pub use layer::{Angles, DecoderLayer, LayerPairs, LayerPlace, LayerSpec, LayerTensors, LowRankPair};
pub use linear::{FrozenWeight, Groups, linear};
pub use load::Loader;
pub use loss::{LogitsRoom, token_losses};
pub use low_rank::low_rank;
pub use memory::{Keep, Kept, LayerLoad, LayerMemory, LayerSizes, MemorySettings, Reservation, Workspace};
pub use norm::rms_norm;
pub use optimizer::{AdamW, AdamWSpec, Clip, MomentFormat, Moments, accumulate, grad_norm, reached};
pub use read::{DeviceError, read_floats};
pub use rotary::rotary;
pub use route::{Routing, combine_experts, expert_weights, route, take_tokens};
pub use site::{PerSite, SiteKind};
pub use swiglu::swiglu;

/// The definitions, for tests and for devices that have no form of their own yet.
pub mod reference {
    pub use crate::attention::reference::attention;
    pub use crate::cache::reference::write_rows;
    pub use crate::linear::reference::linear;
    pub use crate::loss::reference::token_losses;
    pub use crate::low_rank::reference::low_rank;
    pub use crate::norm::reference::rms_norm;
    pub use crate::optimizer::reference::{accumulate, grad_norm, reached};
    pub use crate::rotary::reference::rotary;
    pub use crate::route::reference::{combine_experts, expert_weights, route, take_tokens};
    pub use crate::swiglu::reference::swiglu;
}
