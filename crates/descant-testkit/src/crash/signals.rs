//! Signals at random moments: the process ends with the signal's status, saved, and the run loses nothing.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Bytes, Moment, Subject, wait_for_moment};
use crate::Dice;

impl Subject {
    /// Sends `n` signals, one a process, SIGINT and SIGTERM in turn, at random moments; every process must end with the
    /// signal's status, or well where it came too late, and the run at last with `expected`. Tells how many ended one.
    ///
    /// # Errors
    /// A process ended otherwise; the text has the seed.
    pub fn signals(
        &self,
        dir: &Path,
        expected: &Bytes,
        n: usize,
        length: Duration,
        seed: u64,
    ) -> Result<usize, String> {
        let mut dice = Dice::new(seed);
        let (mut ended, mut run) = (0, 0);
        let folder = |run: usize| dir.join(format!("signals-{run}"));
        for at in 0..n {
            let (name, status) = if at % 2 == 0 { ("INT", 130) } else { ("TERM", 143) };
            let place = folder(run);
            let wrong = |e: String| format!("seed {seed}, signal {at}, {}: {e}", place.display());
            let mut child = self.start(&place)?;
            // Handlers are set within the first moments of a process; before that a signal kills it as any other.
            let moment = length.mul_f64(0.2 + 0.8 * dice.unit());
            if let Moment::Come { .. } = wait_for_moment(&mut child, &place, moment, false).map_err(wrong)? {
                let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
                sent.map_err(|e| e.to_string())?;
            }
            let code = child.wait().map_err(|e| e.to_string())?.code();
            match code {
                Some(0) => {
                    if Bytes::read(&place).map_err(wrong)? != *expected {
                        return Err(wrong("other bytes".to_owned()));
                    }
                    run += 1;
                }
                Some(code) if code == status => ended += 1,
                other => return Err(wrong(format!("SIG{name} ended it with {other:?}"))),
            }
        }
        if self.run(&folder(run))? != *expected {
            return Err(format!("seed {seed}: the last run has other bytes"));
        }
        Ok(ended)
    }
}
