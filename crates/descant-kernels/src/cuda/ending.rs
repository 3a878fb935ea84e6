//! The end of a process whose threads are inside NVIDIA's libraries.
//!
//! What such a library does at a process's end takes away what a thread inside it works with: the process crashes in place
//! of ending with its own status. So its end waits here until no thread is inside, and lets none in from then on; whoever is
//! at work inside looks at [`is_over`] and gives up.
//!
//! What is to be done at the end is done in the reverse of the order in which it was registered, and the compiler registers
//! things when it is loaded and in its first compilation. Ours is registered behind those ([`wait_at_end`]), and a thread
//! that has work begun ([`begin`]) waits until that is done before it ends itself, or with it the process: `exit` does first
//! what the thread does at its own end.

use std::ffi::c_int;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

struct State {
    /// Threads that are inside.
    inside: usize,
    /// Beginnings that are not over.
    #[cfg(any(feature = "cuda", test))]
    beginning: usize,
    /// Whether the process ends.
    is_over: bool,
}

/// One for the process, as its end is.
static STATE: Mutex<State> = Mutex::new(State {
    inside: 0,
    #[cfg(any(feature = "cuda", test))]
    beginning: 0,
    is_over: false,
});
static CHANGED: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The compiler is asked whether to give up many times a second, but not while it assembles, which takes seconds. Longer
/// than this nobody is waited for: a process that may crash is better than one that never ends.
const LONGEST: Duration = Duration::from_mins(1);

/// Waits while that is so.
fn wait_while(condition: impl FnMut(&mut State) -> bool) {
    drop(CHANGED.wait_timeout_while(state(), LONGEST, condition));
}

/// A thread is inside as long as this lives.
#[must_use = "a thread is inside as long as this lives"]
pub(super) struct Inside(());

/// Lets a thread in; `None` where the process ends.
pub(super) fn enter() -> Option<Inside> {
    let mut state = state();
    if state.is_over {
        return None;
    }
    state.inside += 1;
    Some(Inside(()))
}

impl Drop for Inside {
    fn drop(&mut self) {
        state().inside -= 1;
        CHANGED.notify_all();
    }
}

/// Whether a process that ends now would wait.
#[cfg(feature = "cuda")]
pub(crate) fn would_wait() -> bool {
    let state = state();
    state.inside + state.beginning > 0
}

/// Whether the process ends.
pub(super) fn is_over() -> bool {
    state().is_over
}

/// Has the process's end wait, before all that was registered so far is done there.
#[expect(unsafe_code, reason = "calls the C library")]
pub(super) fn wait_at_end() {
    unsafe extern "C" {
        safe fn atexit(at_end: extern "C" fn()) -> c_int;
    }
    extern "C" fn at_end() {
        state().is_over = true;
        wait_while(|state| state.inside > 0);
    }
    static REGISTERED: Once = Once::new();
    // Where there is no place in the list the process ends as it did without.
    REGISTERED.call_once(|| _ = atexit(at_end));
}

/// The beginning of work that the calling thread has done by another: a library is loaded, and registers what it does at
/// the end.
#[must_use = "the beginning is over when this is dropped"]
#[cfg_attr(
    not(any(feature = "cuda", test)),
    expect(dead_code, reason = "only a card's kernels are made ahead")
)]
pub(super) struct Beginning(());

/// From here on until the result is dropped, this thread does not end.
#[cfg(any(feature = "cuda", test))]
pub(super) fn begin() -> Beginning {
    struct Waits;
    impl Drop for Waits {
        fn drop(&mut self) {
            wait_while(|state| state.beginning > 0);
        }
    }
    thread_local! {
        static WAITS: Waits = const { Waits };
    }
    // A thread that is about to end waits for nothing new.
    let _ = WAITS.try_with(|_| ());
    state().beginning += 1;
    Beginning(())
}

#[cfg(any(feature = "cuda", test))]
impl Drop for Beginning {
    fn drop(&mut self) {
        state().beginning -= 1;
        CHANGED.notify_all();
    }
}
