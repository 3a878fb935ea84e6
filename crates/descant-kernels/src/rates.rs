//! Figures that are measured on a device: its ceilings, times of operators beside them, and who has its memory.

/// Of what is free on a device without a limit, the share that may be planned for and taken: others want some.
pub const FREE_SHARE: f64 = 0.95;
/// What a context takes of a card at least, before anything is asked of it.
pub const CONTEXT: u64 = 512 << 20;
/// What it takes at most. The driver reports what all programs have together; what was in use beyond this once our context
/// was there is taken for others'.
pub const MOST_OF_CONTEXT: u64 = 640 << 20;

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

/// Who has the memory of a card, in bytes. The driver does not report which process uses what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// The card's memory.
    pub total: u64,
    /// What nobody has.
    pub free: u64,
    /// What this process has: what it counts itself, and what was beside that when it was alone.
    pub own: u64,
}

impl Shares {
    /// What other programs have.
    pub fn others(&self) -> u64 {
        (self.total - self.free).saturating_sub(self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_free_nor_ours_is_others() {
        let shares = Shares { total: 100, free: 30, own: 20 };
        assert_eq!(shares.others(), 50);
        assert_eq!(Shares { own: 90, ..shares }.others(), 0, "an estimate may be too large");
    }
}
