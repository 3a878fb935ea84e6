//! Ctrl-C while a reply comes: it ends the reply, not the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

/// Whether Ctrl-C was pressed.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches SIGINT from here on, where somebody sits at a terminal; elsewhere it ends the program as ever.
    pub(super) fn new(terminal: bool) -> Result<Self> {
        let interrupt = Self::default();
        #[cfg(unix)]
        if terminal {
            use anyhow::Context as _;
            signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&interrupt.0))
                .context("catch Ctrl-C")?;
        }
        #[cfg(not(unix))]
        let _ = terminal;
        Ok(interrupt)
    }

    /// Forgets what was pressed before.
    pub(super) fn clear(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    pub(super) fn came(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
