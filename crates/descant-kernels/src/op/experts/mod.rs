//! Grouped products of the experts on a CUDA card: rows sorted by expert times packed MXFP4 matrices, forward and
//! backward, and the thin products of their adapters.
//!
//! The operator that models call is [`crate::linear()`]; here are the kernels and their launches, which the recomputing
//! layer uses as well. Definition and tolerance are those of `linear` and `low_rank`.

mod form;
mod sizes;

cfg_select! {
    feature = "cuda" => {
        pub(crate) mod cuda;
        pub(crate) mod fp8;
        pub(crate) mod fp8_operator;
        pub(crate) mod fp8_rows;
        pub(crate) mod matrices;
    }
    _ => {}
}

pub use form::ExpertForm;
#[cfg(feature = "nvrtc")]
pub(crate) use sizes::GRADIENT_COLUMNS;
pub use sizes::MAX_EXPERT_RANK;
pub(crate) use sizes::{LowRank, RANK_WIDTH};
