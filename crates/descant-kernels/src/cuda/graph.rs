//! Work that is recorded once and replayed: a CUDA graph.
//!
//! Other threads use the card while one records. What of theirs could break a recording, or be refused because of one:
//!
//! * Waiting for the whole context (`cuCtxSynchronize`) is refused while any stream of it is recorded, in every mode, and
//!   the recording is lost. Ours are where host memory is given back (`host.rs`, on any thread), which takes turns with
//!   recordings ([`Gpu::recording`](super::Gpu)), and in `gauge.rs`, on CubeCL's thread, as recordings are. CubeCL, cuBLASLt
//!   and NCCL wait for streams and events alone.
//! * Allocating and freeing (`cuMemAlloc`, `cuMemFree`, pinned memory), registering host memory, loading modules, asking for
//!   or waiting for events and other streams, by us or by CubeCL: forbidden to every thread only while a recording was begun
//!   in the global mode. Ours is relaxed, and so are the threads that make them.
//! * The legacy stream, in which synchronous copies and sets go, waits for all streams but those that are not blocking: the
//!   recorded one is of these.
//! * Work in a stream that is recorded would be recorded: nobody else knows that stream, and no event of it is waited for.
//! * CubeCL moves and frees buffers on the thread that records, so never meanwhile, and what a graph has is in place.

use cudarc::driver::sys;

use super::driver::{OwnStream, Stream, check};
use super::error::Result;
use super::run::Run;

/// Recorded work, ready to be queued as a whole.
#[derive(Debug)]
pub(crate) struct Graph(sys::CUgraphExec);

#[expect(unsafe_code, reason = "a graph may be used from any thread")]
// SAFETY: the driver's graphs are not bound to a thread, and this is the only owner of one.
unsafe impl Send for Graph {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: shared references only launch, which the driver orders.
unsafe impl Sync for Graph {}

#[expect(unsafe_code, reason = "calls the driver")]
impl Graph {
    /// Records what `work` queues. Kernels must have been loaded and products chosen before: run `work` once for that.
    ///
    /// # Errors
    /// Those of `work`; or it did what cannot be recorded.
    pub(crate) fn record(run: &Run<'_>, work: impl FnOnce(&Run<'_>) -> Result<()>) -> Result<Self> {
        // A stream of its own: CubeCL's may have work of others between.
        let stream = OwnStream::new()?;
        let recording = run.gpu().recording();
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is ours and empty.
        check("cuStreamBeginCapture", unsafe { sys::cuStreamBeginCapture_v2(stream.0, mode) })?;
        let worked = work(&run.on(stream.0));
        let mut graph = std::ptr::null_mut();
        // SAFETY: the pointer is to a variable that lives through the call. Recording ends whatever came before.
        let ended = check("cuStreamEndCapture", unsafe { sys::cuStreamEndCapture(stream.0, &raw mut graph) });
        drop(recording);
        worked?;
        ended?;
        let mut ready = std::ptr::null_mut();
        // SAFETY: the graph is ours; the executable one does not need it.
        let made = check("cuGraphInstantiate", unsafe {
            sys::cuGraphInstantiateWithFlags(&raw mut ready, graph, 0)
        });
        // SAFETY: ours, and freed once.
        let _ = unsafe { sys::cuGraphDestroy(graph) };
        made?;
        Ok(Self(ready))
    }

    /// Queues all of it.
    pub(crate) fn launch(&self, stream: Stream) -> Result<()> {
        // SAFETY: graph and stream are alive; what was recorded reads memory that its owner holds.
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(self.0, stream) })
    }
}

#[expect(unsafe_code, reason = "calls the driver")]
impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once; the driver keeps it for launches that are under way.
        let _ = unsafe { sys::cuGraphExecDestroy(self.0) };
    }
}
