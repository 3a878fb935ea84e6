//! Every door through which bytes from outside come in, with damaged bytes: no panic, no hang, no memory out of
//! proportion. `cargo test --test doors -- --nocapture` prints what was measured.
//!
//! Alone in its binary, because the allocator that counts is the process's; its tests take turns for the same reason.
//! One door lies inside the binary and is tested there: settings, in `settings/tests.rs`.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue should stop where it is")]

mod adapters;
mod checkpoints;
mod exports;
mod files;
mod models;
mod texts;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use descant_testkit::heap::Counting;

#[global_allocator]
static HEAP: Counting = Counting;

/// Waits for the test's turn.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// Writes a new file, without asking for the disk: these files live for a moment, and some file systems flush what
/// was cut to nothing and written again.
fn put(path: &Path, bytes: &[u8]) {
    let _ = std::fs::remove_file(path);
    std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), bytes).unwrap();
}
