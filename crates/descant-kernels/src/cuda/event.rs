//! Marks in streams: times between them, and an order among streams.

use cudarc::driver::{result::DriverError, sys};

use super::driver::{Stream, check};
use super::error::{CudaError, Result};

/// An event; with times where it measures, without where it only orders.
#[derive(Debug)]
pub(crate) struct Event(sys::CUevent);

#[expect(unsafe_code, reason = "calls the driver")]
impl Event {
    pub(crate) fn new(timing: bool) -> Result<Self> {
        let flags = if timing { 0 } else { sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32 };
        let mut event = std::ptr::null_mut();
        // SAFETY: the pointer is to a variable that lives through the call.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&raw mut event, flags) })?;
        Ok(Self(event))
    }

    /// Marks the place in the stream.
    pub(crate) fn record(&self, stream: Stream) -> Result<()> {
        // SAFETY: event and stream are alive.
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.0, stream) })
    }

    /// Waits on the host.
    pub(crate) fn wait(&self) -> Result<()> {
        // SAFETY: the event is alive.
        check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(self.0) })
    }

    /// Lets a stream wait.
    pub(crate) fn hold(&self, stream: Stream) -> Result<()> {
        // SAFETY: event and stream are alive.
        check("cuStreamWaitEvent", unsafe { sys::cuStreamWaitEvent(stream, self.0, 0) })
    }

    /// Milliseconds since an earlier event, both passed.
    pub(crate) fn since(&self, start: &Self) -> Result<f32> {
        // SAFETY: both events are alive.
        let elapsed = unsafe { cudarc::driver::result::event::elapsed(start.0, self.0) };
        elapsed.map_err(|DriverError(code)| CudaError::Driver {
            call: "cuEventElapsedTime",
            code,
            text: format!("{code:?}"),
        })
    }
}

/// The stream that used some memory last, so that another one's work waits for it.
#[derive(Debug, Default)]
pub(crate) struct StreamOrder {
    /// Its address; streams live for the process.
    last: Option<usize>,
}

impl StreamOrder {
    /// Makes a stream's work from here on wait for the work of the one before, where that is another.
    pub(crate) fn enter(&mut self, stream: Stream) -> Result<()> {
        let before = self.last.replace(stream as usize).filter(|last| *last != stream as usize);
        let Some(before) = before else { return Ok(()) };
        let done = Event::new(false)?;
        done.record(before as Stream)?;
        done.hold(stream)
    }
}

#[expect(unsafe_code, reason = "an event may be used from any thread")]
// SAFETY: the driver's events are not bound to a thread.
unsafe impl Send for Event {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: the driver's calls may be made by several threads at once.
unsafe impl Sync for Event {}

#[expect(unsafe_code, reason = "calls the driver")]
impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is not used again; the driver keeps what streams still need.
        let _ = unsafe { sys::cuEventDestroy_v2(self.0) };
    }
}
