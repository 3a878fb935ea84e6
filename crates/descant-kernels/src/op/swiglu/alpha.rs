//! The slope in gpt-oss' activation, which a configuration may say and kernels are compiled with. No device is asked here.

/// The slope of the sigmoid in the experts' activation.
pub const SWIGLU_ALPHA: f64 = 1.702;
