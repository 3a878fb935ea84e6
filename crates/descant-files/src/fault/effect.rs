//! What can go wrong, and when.

/// What happens at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It fails as on a broken disk (EIO); a write has written nothing.
    Broken,
    /// It fails as on a full disk (ENOSPC); a write has written half.
    Full,
    /// The process is ended at once, as by kill -9; a write has written half.
    Kill,
    /// The operation panics.
    Panic,
    /// The power goes: what was not synced is lost or not, as this seed says, and nothing works from then on.
    PowerCut(u64),
    /// The power goes, and every sync before it was a lie: what a writer that does not sync would meet.
    LyingDisk(u64),
    /// Nothing fails, but no log is cut where it should be: what a program that forgets to would do. For showing that
    /// harnesses can fail.
    Uncut,
}

/// A fault: what, when, and whether once or from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Operations that pass before it.
    pub after: u64,
    /// What happens.
    pub effect: Effect,
    /// Whether every later operation fails too.
    pub lasting: bool,
}
