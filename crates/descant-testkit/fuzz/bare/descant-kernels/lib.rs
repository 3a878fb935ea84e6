//! Of descant-kernels what settings and errors name, for the crates that use it: no device is asked here.

#[path = "../../../../descant-kernels/src/op/swiglu/alpha.rs"]
mod alpha;
#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../../../../descant-kernels/src/op/experts/form.rs"]
mod form;
#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../../../../descant-kernels/src/memory/keep.rs"]
mod keep;
#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../../../../descant-kernels/src/site.rs"]
mod site;
#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../../../../descant-kernels/src/memory/sizes.rs"]
mod sizes;

/// Where the files above look for it.
mod op {
    pub(crate) mod experts {
        pub(crate) use crate::form::ExpertForm;
    }
}

pub use alpha::SWIGLU_ALPHA;
pub use form::ExpertForm;
pub use keep::Keep;
pub use site::{PerSite, SiteKind};
pub use sizes::LayerSizes;

/// What a device would have said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no device")]
pub struct DeviceError;
