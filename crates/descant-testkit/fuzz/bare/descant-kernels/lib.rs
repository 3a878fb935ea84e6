//! Of descant-kernels what settings and errors name, for the crates that use it: no device is asked here.

#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../../../../descant-kernels/src/layer/plan.rs"]
mod plan;
#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../../../../descant-kernels/src/site.rs"]
mod site;

pub use plan::{Keep, LayerSizes};
pub use site::{PerSite, SiteKind};

/// What a device would have said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no device")]
pub struct DeviceError;
