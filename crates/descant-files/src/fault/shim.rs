//! What `ops` asks and reports, when faults are built in.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::Path;

use super::effect::{Effect, Fault};
use super::journal::{Journal, Replaced};

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    seen: u64,
    struck: bool,
    /// The power has gone.
    down: bool,
    /// Kept only where the power will go.
    journal: Option<Journal>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Sets a fault, or none; returns whether the one before was reached.
pub(crate) fn set(fault: Option<Fault>) -> bool {
    let cut = fault.is_some_and(|fault| matches!(fault.effect, Effect::PowerCut(_) | Effect::LyingDisk(_)));
    let journal = cut.then(Journal::default);
    STATE.replace(State { fault, journal, ..State::default() }).struck
}

/// Whether nothing works any more.
pub(crate) fn is_down() -> bool {
    STATE.with_borrow(|state| state.down)
}

/// Before an operation.
pub(crate) fn strike() -> Result<()> {
    let effect = STATE.with_borrow_mut(State::next);
    match effect {
        None | Some(Effect::Uncut) => Ok(()),
        Some(Effect::Broken) => Err(Error::other("injected")),
        Some(Effect::Full) => Err(Error::new(ErrorKind::StorageFull, "injected")),
        Some(Effect::Kill) => kill(),
        Some(Effect::Panic) => panic!("injected"),
        Some(Effect::PowerCut(_) | Effect::LyingDisk(_)) => Err(Error::other("the power is off")),
    }
}

/// As by kill -9: nothing is unwound and no destructor runs.
fn kill() -> ! {
    // `abort` too ends at once; both are "killed by a signal" for whoever waits.
    std::process::abort()
}

impl State {
    /// The effect on the operation that comes, if any; counts it.
    fn next(&mut self) -> Option<Effect> {
        let effect = self.peek()?;
        let first = !self.struck;
        self.struck = true;
        if let (Effect::PowerCut(seed) | Effect::LyingDisk(seed), true) = (effect, first) {
            self.down = true;
            if let Some(journal) = self.journal.take() {
                journal.lose(seed);
            }
        }
        Some(effect)
    }

    /// As [`next`](Self::next), but only counts what passes.
    fn peek(&mut self) -> Option<Effect> {
        let fault = self.fault.filter(|fault| fault.effect != Effect::Uncut)?;
        if self.down || (self.struck && fault.lasting) {
            return Some(fault.effect);
        }
        self.seen += 1;
        (!self.struck && self.seen > fault.after).then_some(fault.effect)
    }

    /// Whether the operation that comes will be struck.
    fn will_strike(&self) -> Option<Effect> {
        let fault = self.fault?;
        let now = if self.struck { self.down || fault.lasting } else { self.seen >= fault.after };
        now.then_some(fault.effect)
    }
}

/// Before a write: one that will fail for lack of space, or be cut short, writes half first.
pub(crate) fn writing(path: &Path, file: &mut File, bytes: &[u8]) {
    STATE.with_borrow_mut(|state| {
        if state.down {
            return;
        }
        if let Some(journal) = &mut state.journal {
            journal.written(path, file);
        }
        if matches!(state.will_strike(), Some(Effect::Full | Effect::Kill | Effect::PowerCut(_))) {
            file.write_all(&bytes[..bytes.len() / 2]).expect("the test's folder takes bytes");
        }
    });
}

/// Whether logs are not to be cut.
pub(crate) fn forgets_cuts() -> bool {
    STATE.with_borrow(|state| state.fault.is_some_and(|fault| fault.effect == Effect::Uncut))
}

fn tell(f: impl FnOnce(&mut Journal)) {
    STATE.with_borrow_mut(|state| state.journal.as_mut().map(f));
}

pub(crate) fn created(path: &Path) {
    tell(|journal| journal.created(path));
}

/// Syncs are noted unless the disk lies.
fn note(f: impl FnOnce(&mut Journal)) {
    let lies = STATE
        .with_borrow(|state| state.fault.is_some_and(|fault| matches!(fault.effect, Effect::LyingDisk(_))));
    if !lies {
        tell(f);
    }
}

pub(crate) fn synced(path: &Path) {
    note(|journal| journal.synced(path));
}

pub(crate) fn synced_dir(path: &Path) {
    note(|journal| journal.synced_dir(path));
}

/// What a renaming will put itself in the place of.
pub(crate) fn replaced(to: &Path) -> Replaced {
    STATE.with_borrow(|state| state.journal.as_ref().and_then(|_| std::fs::read(to).ok()))
}

pub(crate) fn renamed(from: &Path, to: &Path, replaced: Replaced) {
    tell(|journal| journal.renamed(from, to, replaced));
}

pub(crate) fn cut(path: &Path, length: u64) {
    tell(|journal| journal.cut(path, length));
}

pub(crate) fn removed(path: &Path) {
    tell(|journal| journal.removed(path));
}
