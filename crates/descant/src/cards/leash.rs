//! What ties a process to our launcher: its standard input, which the launcher holds.
//!
//! A letter is a signal that came to the launcher; the end of the pipe is the launcher's end, after which the process
//! stops as if it had been asked to, and ends anyway if it does not.

use std::io::Read as _;
use std::time::Duration;

use crate::failure::Exit;

/// The variable by which a process learns its device.
pub(super) const DEVICE: &str = "DESCANT_DEVICE";
/// How long a process may take to save once its launcher is gone.
#[cfg(unix)]
const GRACE: Duration = Duration::from_secs(20);

const INTERRUPT: u8 = b'i';
const TERMINATE: u8 = b't';

/// What is written for a signal.
pub(super) fn word(exit: Exit) -> u8 {
    if exit == Exit::Interrupted { INTERRUPT } else { TERMINATE }
}

/// Listens to the launcher from a thread of its own.
#[cfg(unix)]
pub(super) fn listen() -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::low_level::{exit, raise};
    let listen = || {
        let mut word = [0];
        let mut stdin = std::io::stdin().lock();
        while let Ok(1) = stdin.read(&mut word) {
            let _ = raise(if word[0] == INTERRUPT { SIGINT } else { SIGTERM });
        }
        let _ = raise(SIGTERM);
        std::thread::sleep(GRACE);
        exit(i32::from(Exit::Terminated.code()));
    };
    std::thread::Builder::new().name("leash".to_owned()).spawn(listen).map(drop)
}

/// Elsewhere there are no signals to pass on.
#[cfg(not(unix))]
pub(super) fn listen() -> std::io::Result<()> {
    Ok(())
}
