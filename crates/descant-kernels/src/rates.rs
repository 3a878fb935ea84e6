//! Figures that are measured on a device: its ceilings, and times of operators beside them.

/// Ceilings of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Floating-point operations a second of a large dense product, in the type that products use there.
    pub flops: f64,
    /// Bytes a second of a large copy, read and written counted.
    pub bytes: f64,
}

/// Time of one kind of operator since [`profile`](crate::gauge::profile) was switched on.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorTime {
    /// What it does.
    pub name: &'static str,
    /// How often it ran.
    pub count: u64,
    /// Seconds on the device.
    pub seconds: f64,
    /// Floating-point operations it had to do.
    pub flops: f64,
    /// Bytes it had to move: each input read once, each output written once.
    pub bytes: f64,
}

impl OperatorTime {
    /// The least time that these operations and bytes take at the device's ceilings.
    pub fn floor(&self, rates: &Rates) -> f64 {
        (self.flops / rates.flops).max(self.bytes / rates.bytes)
    }
}
