//! Our launches in burn's stream: the only place that leans on what CubeCL shows but does not promise.
//!
//! CubeCL runs everything that concerns a card on one thread of its own, and everything a caller's thread asks for
//! on one stream. A closure queued here runs on that thread, between burn's launches, and gets the stream and the
//! addresses of buffers. Buffers may be moved by CubeCL's pool, so an address is good only inside the closure.
//!
//! CubeCL starts its thread's work when 32 tasks are queued or somebody waits; a closure of ours is often a whole
//! layer, so the queue is flushed after each.

use std::sync::Mutex;

use cubecl::device::DeviceId;
use cubecl::device_handle::DeviceHandle;
use cubecl::server::{Handle, IoError, LaunchError, ServerError, ServerStorage};
use cubecl_environment::stream::StreamId;
use cubecl_server::runtime::Runtime;
use cubecl_server::stream::WriteScoped;

use super::driver::Stream;
use super::error::{CudaError, Result, guarded};

/// CubeCL's server for CUDA.
type Server = <cubecl::cuda::CudaRuntime as Runtime>::Server;

/// CubeCL's number for the CUDA runtime in a device's id.
const CUDA: u16 = 0;

/// The way to a card's thread.
#[derive(Clone)]
pub(crate) struct Thread(DeviceHandle<Server>);

/// An address that is good as long as this lives.
pub(crate) struct Held {
    pub(crate) address: u64,
    /// Keeps the buffer where it is.
    _guard: Box<dyn Send>,
}

/// Buffers that stay where they are, with what is in them, for as long as this lives: for addresses that outlive a
/// closure, such as those of a recorded graph.
///
/// Holding a tensor is not enough. It keeps its bytes, but the pool may move them: whenever it gives memory back to the
/// driver, it empties pages of sizes that it has outgrown into newer ones first.
pub struct InPlace {
    addresses: Vec<u64>,
    // Locked by nobody: what guards a buffer may be sent to a thread, but not be shared by two.
    _held: Mutex<Vec<Held>>,
}

impl InPlace {
    pub(crate) fn new(held: Vec<Held>) -> Self {
        Self { addresses: held.iter().map(|held| held.address).collect(), _held: Mutex::new(held) }
    }

    /// Where the buffers are, in the order in which they were given.
    pub fn addresses(&self) -> &[u64] {
        &self.addresses
    }
}

impl std::fmt::Debug for InPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("InPlace").field(&self.addresses).finish()
    }
}

impl Thread {
    /// To the card of this index; starts it where it is the first.
    pub(crate) fn of(index: usize) -> Self {
        Self(DeviceHandle::new(DeviceId { type_id: CUDA, index_id: index as u16 }))
    }

    /// Queues `f` in the caller's stream. It gets the stream and an address for each handle, or what went wrong
    /// before; nothing waits.
    pub(crate) fn queue(
        &self,
        handles: Vec<Handle>,
        f: impl FnOnce(Result<(Stream, Vec<Held>)>) + Send + 'static,
    ) {
        let stream = StreamId::current();
        self.0.submit(move |server: &mut Server| f(resolve(server, stream, handles)));
        self.0.flush_queue();
    }

    /// Runs `f` like [`queue`](Self::queue) and waits for its result.
    pub(crate) fn call<R: Send>(
        &self,
        handles: Vec<Handle>,
        f: impl FnOnce(Stream, Vec<Held>) -> Result<R> + Send,
    ) -> Result<R> {
        let stream = StreamId::current();
        let result = self.0.submit_blocking(move |server: &mut Server| {
            let (stream, held) = resolve(server, stream, handles)?;
            guarded(|| f(stream, held))
        });
        result.unwrap_or_else(|error| Err(CudaError::backend(format!("{error:?}"))))
    }

    /// Waits until everything queued before has been handed to the driver.
    pub(crate) fn settle(&self) -> Result<()> {
        let result = self.0.submit_blocking(|_: &mut Server| ());
        result.map_err(|error| CudaError::backend(format!("{error:?}")))
    }
}

/// The stream of `id`, and the buffers bound in place, ordered behind whoever wrote them.
fn resolve(server: &mut Server, id: StreamId, handles: Vec<Handle>) -> Result<(Stream, Vec<Held>)> {
    // Makes the stream where this is its first use.
    drop(server.write_streams().resolve(id, [].into_iter()).map_err(|e| refused(&e))?);
    let mut held = Vec::with_capacity(handles.len());
    for handle in handles {
        let guard = server.get_resource(handle.binding(), id).map_err(|e| refused(&e))?;
        held.push(Held { address: guard.resource().ptr, _guard: Box::new(guard) });
    }
    let stream = server.write_streams().try_stream_mut(&id);
    let stream = stream.ok_or_else(|| CudaError::backend("the stream that was just made is gone"))?.sys;
    Ok((stream, held))
}

/// CubeCL's error as ours, with what kind it is of.
pub(crate) fn refused(error: &ServerError) -> CudaError {
    CudaError::Backend { text: error.to_string(), out_of_memory: is_full(error) }
}

fn is_full(error: &ServerError) -> bool {
    match error {
        ServerError::Io(error) => matches!(error, IoError::OutOfMemory { .. } | IoError::BufferTooBig { .. }),
        ServerError::Launch(error) => matches!(error, LaunchError::OutOfMemory { .. }),
        ServerError::Unwritten { root, .. } => is_full(root),
        ServerError::Several { errors, .. } => errors.iter().any(is_full),
        _ => false,
    }
}
