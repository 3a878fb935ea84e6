//! The operators of a training step of gpt-oss, each with its definition and a hand-written backward.
//!
//! `op/` has the operators, `layer/` a whole decoder layer as one of them, `memory/` what a model's layers may use,
//! `stream/` the weights that lie on the host, and `cuda/` the shell for NVIDIA cards.
//!
//! Tests compare every form with its definition. Everything is token-major and without padding: activations are
//! `[tokens, features]`, and [`Segments`] says which tokens are one sequence. Frozen weights never get a gradient.
//!
//! This crate knows no configuration, no tensor names and no files.

#![expect(
    clippy::inline_always,
    reason = "`vectorized` compiles only what is inlined into it for wider registers"
)]

mod cpu;
#[cfg(feature = "nvrtc")]
pub mod cuda;
mod decode;
mod device;
pub mod gauge;
mod laid;
mod layer;
mod load;
mod memory;
mod op;
mod rates;
mod read;
mod site;
mod source;
mod stream;

pub use decode::{
    Decoder, MANY_ROWS, PAGE_TOKENS, STEP_KEYS, STEP_ROWS, STEPS_AHEAD, StepCache, StepChoice, StepDraw,
    StepModel, StepRow, StepTable, THIN_ROWS, WIDE_ROWS, step_rows,
};
pub use device::{compile_ahead, is_compiling, is_cpu, is_cuda, wants_rows_in_order};
pub use laid::{from_host, joined, zeros};
pub use layer::{
    Angles, DecoderLayer, DenseWeight, KeptForward, LayerPairs, LayerPlace, LayerSpec, LayerTensors,
    LowRankPair, PairGradients, PlacedBatch, StepPlaces,
};
pub use load::{Loader, NotPinned};
pub use memory::{
    Chunks, Claim, Keep, Kept, LayerLoad, LayerMemory, LayerSizes, MemorySettings, Reservation, Workspace,
    pool_page,
};
pub use op::attention::{AttentionSpec, Segment, Segments, attention};
pub use op::cache::write_rows;
pub use op::experts::{ExpertForm, MAX_EXPERT_RANK};
pub use op::linear::{FrozenWeight, Groups, Mxfp4Layout, Mxfp4Piece, NotTiled, linear};
pub use op::loss::{LogitsRoom, divergences, token_losses, weighted_sum};
pub use op::low_rank::low_rank;
pub use op::norm::rms_norm;
pub use op::optimizer::{
    AdamW, AdamWSpec, Clip, FlatSum, MomentFormat, Moments, Update, accumulate, flattened, grad_norm, reached,
};
pub use op::pick::{Draw, Drawn, DrawnRow, best_tokens, draw_tokens};
pub use op::rotary::rotary;
pub use op::route::{Routing, combine_experts, expert_weights, route, take_tokens};
pub use op::select::{gather_rows, select_rows};
pub use op::swiglu::{SWIGLU_ALPHA, swiglu};
pub use read::{DeviceError, read_all, read_bytes, read_floats, read_indices};
pub use site::{PerSite, SiteKind};
pub use source::{Source, first_in};
pub use stream::{HostBytes, HostExperts, HostTable, StreamedMatrix, stream_experts};

/// Experts' products in fp8 on a card, and what they are made of, for tests.
#[cfg(feature = "cuda")]
pub mod fp8 {
    pub use crate::op::experts::fp8_operator::{Codes, Fp8Experts};
}

/// The definitions, for tests and for devices that have no form of their own yet.
pub mod reference {
    pub use crate::op::attention::reference::attention;
    pub use crate::op::cache::reference::write_rows;
    pub use crate::op::linear::reference::linear;
    pub use crate::op::loss::reference::{divergence, token_losses, weighted_sum};
    pub use crate::op::low_rank::reference::low_rank;
    pub use crate::op::norm::reference::rms_norm;
    pub use crate::op::optimizer::reference::{accumulate, grad_norm, reached};
    pub use crate::op::pick::reference::best_token;
    pub use crate::op::rotary::reference::rotary;
    pub use crate::op::route::reference::{combine_experts, expert_weights, route, take_tokens};
    pub use crate::op::select::reference::select_rows;
    pub use crate::op::swiglu::reference::swiglu;
}
