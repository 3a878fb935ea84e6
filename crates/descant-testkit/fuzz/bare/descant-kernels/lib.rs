//! Of descant-kernels what settings and errors name, for the crates that use it: no device is asked here.

#[path = "../../../../descant-kernels/src/layer/plan.rs"]
mod plan;

pub use plan::{Keep, Kept};

/// What a device would have said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no device")]
pub struct DeviceError;
