//! Makes the copies of a stream as slow as those of another bus, for measurements: the stream waits on the host until
//! the time is over that the copy would have taken there.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cudarc::driver::sys;

use super::driver::{OwnStream, check};
use super::error::Result;

/// The brake of one stream, whose copies come one after the other.
#[derive(Debug, Default)]
pub(crate) struct Brake {
    /// Bits of the bytes a second; 0 for none.
    rate: AtomicU64,
    /// When the copy began that is on its way.
    began: Arc<Mutex<Option<Instant>>>,
}

/// A call of the driver's thread: the beginning of a copy, or its end with the time that it has to take.
struct Step {
    began: Arc<Mutex<Option<Instant>>>,
    takes: Option<Duration>,
}

impl Brake {
    /// From now on copies are those of a bus of so many bytes a second.
    pub(crate) fn set(&self, bytes_per_second: f64) {
        self.rate.store(bytes_per_second.to_bits(), Ordering::Relaxed);
    }

    fn rate(&self) -> Option<f64> {
        Some(f64::from_bits(self.rate.load(Ordering::Relaxed))).filter(|rate| *rate > 0.0)
    }

    /// To be called before a copy is queued.
    pub(crate) fn begin(&self, copies: &OwnStream) -> Result<()> {
        if self.rate().is_none() { Ok(()) } else { self.queue(copies, None) }
    }

    /// To be called behind a copy of so many bytes.
    pub(crate) fn end(&self, copies: &OwnStream, bytes: usize) -> Result<()> {
        let Some(rate) = self.rate() else { return Ok(()) };
        self.queue(copies, Some(Duration::from_secs_f64(bytes as f64 / rate)))
    }

    #[expect(unsafe_code, reason = "calls the driver")]
    fn queue(&self, copies: &OwnStream, takes: Option<Duration>) -> Result<()> {
        let data = Box::into_raw(Box::new(Step { began: Arc::clone(&self.began), takes }));
        // SAFETY: the box is the callback's, which runs once.
        check("cuLaunchHostFunc", unsafe { sys::cuLaunchHostFunc(copies.0, Some(step), data.cast()) })
    }
}

#[expect(unsafe_code, reason = "called by the driver")]
unsafe extern "C" fn step(data: *mut c_void) {
    // SAFETY: `queue` gave a box, once.
    let step = unsafe { Box::from_raw(data.cast::<Step>()) };
    let mut began = step.began.lock().unwrap_or_else(PoisonError::into_inner);
    match step.takes {
        None => *began = Some(Instant::now()),
        Some(takes) => {
            let left = began.take().and_then(|began| takes.checked_sub(began.elapsed()));
            std::thread::sleep(left.unwrap_or_default());
        }
    }
}
