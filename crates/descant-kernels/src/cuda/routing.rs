//! Which experts rows go to, for tests that watch it.

use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

use super::driver::copy_to_host;
use super::error::Result;
use super::run::Run;
use super::testing::watcher;

/// What routing chose, a list of experts for each launch, and who watches it. Nothing that computes reads it.
static ROUTED: Mutex<Vec<(ThreadId, Vec<u32>)>> = Mutex::new(Vec::new());

/// What was kept for this thread: for each layer that was computed, in order, the experts of each row, the likeliest
/// first.
pub fn take_routing() -> Vec<Vec<u32>> {
    let me = thread::current().id();
    let mut all = ROUTED.lock().unwrap_or_else(PoisonError::into_inner);
    let (mine, others) = std::mem::take(&mut *all).into_iter().partition(|(who, _)| *who == me);
    *all = others;
    mine.into_iter().map(|(_, chosen): (ThreadId, _)| chosen).collect()
}

impl Run<'_> {
    /// Where the thread that queued this watches routing, keeps what was queued to choose so many experts, i32, at this
    /// address.
    pub(crate) fn keep_routing(&self, experts: u64, count: usize) -> Result<()> {
        let Some(who) = watcher() else { return Ok(()) };
        let mut bytes = vec![0; count * size_of::<i32>()];
        copy_to_host(self.stream, &mut bytes, experts)?;
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        let chosen = bytes.chunks_exact(size_of::<i32>()).map(number).collect();
        ROUTED.lock().unwrap_or_else(PoisonError::into_inner).push((who, chosen));
        Ok(())
    }
}
