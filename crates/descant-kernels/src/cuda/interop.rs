//! Our launches in burn's stream: the only place that leans on what CubeCL shows but does not promise.
//!
//! CubeCL runs everything that concerns a card on one thread of its own, and everything a caller's thread asks for
//! on one stream. A closure queued here runs on that thread, between burn's launches, and gets the stream and the
//! addresses of buffers. Buffers may be moved by CubeCL's pool, so an address is good only inside the closure.
//!
//! CubeCL starts its thread's work when 32 tasks are queued or somebody waits; a closure of ours is often a whole
//! layer, so the queue is flushed after each.

use std::sync::{Arc, Mutex};

use cubecl::device::DeviceId;
use cubecl::device_handle::DeviceHandle;
use cubecl::server::{Handle, IoError, LaunchError, Server as _, ServerError, ServerStorage};
use cubecl_environment::stream::StreamId;
use cubecl_server::memory_management::PageUpdate;
use cubecl_server::runtime::Runtime;
use cubecl_server::stream::WriteScoped;

use super::cap::Cap;
use super::driver::Stream;
use super::error::{CudaError, Result, guarded};

/// CubeCL's server for CUDA.
type Server = <cubecl::cuda::CudaRuntime as Runtime>::Server;

/// CubeCL's number for the CUDA runtime in a device's id.
const CUDA: u16 = 0;

/// What CubeCL aligns buffers to.
const ALIGNMENT: u64 = 512;

/// The way to a card's thread.
#[derive(Clone)]
pub(crate) struct Thread {
    handle: DeviceHandle<Server>,
    cap: Arc<Cap>,
}

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
    pub(crate) fn of(index: usize, cap: Arc<Cap>) -> Self {
        Self { handle: DeviceHandle::new(DeviceId { type_id: CUDA, index_id: index as u16 }), cap }
    }

    /// A new buffer of burn's pool, alone in its page or not. Where the pool had to grow beyond its cap, `refused` gets the
    /// error, and the buffer has no memory: who uses it finds an error.
    pub(crate) fn room(
        &self,
        bytes: u64,
        is_alone: bool,
        refused: impl FnOnce(CudaError) + Send + 'static,
    ) -> Handle {
        let (stream, size) = (StreamId::current(), bytes.next_multiple_of(ALIGNMENT));
        let handle = Handle::new(self.handle.service_id(), stream, size);
        let (memory, cap) = (handle.memory.clone(), Arc::clone(&self.cap));
        self.handle.submit(move |server: &mut Server| match admit(server, stream, size, is_alone, &cap) {
            // An error of the driver is the buffer's.
            Ok(()) => drop(server.initialize_memory(memory, size, stream)),
            Err(error) => refused(error),
        });
        handle.offset_start(0).offset_end(size - bytes)
    }

    /// Queues `f` in the caller's stream. It gets the stream and an address for each handle, or what went wrong
    /// before; nothing waits.
    pub(crate) fn queue(
        &self,
        handles: Vec<Handle>,
        f: impl FnOnce(Result<(Stream, Vec<Held>)>) + Send + 'static,
    ) {
        let (stream, cap) = (StreamId::current(), Arc::clone(&self.cap));
        self.handle.submit(move |server: &mut Server| f(resolve(server, stream, handles, &cap)));
        self.handle.flush_queue();
    }

    /// Runs `f` like [`queue`](Self::queue) and waits for its result.
    pub(crate) fn call<R: Send>(
        &self,
        handles: Vec<Handle>,
        f: impl FnOnce(Stream, Vec<Held>) -> Result<R> + Send,
    ) -> Result<R> {
        let stream = StreamId::current();
        let result = self.handle.submit_blocking(move |server: &mut Server| {
            let (stream, held) = resolve(server, stream, handles, &self.cap)?;
            guarded(|| f(stream, held))
        });
        result.unwrap_or_else(|error| Err(CudaError::backend(format!("{error:?}"))))
    }

    /// Waits until everything queued before has been handed to the driver.
    pub(crate) fn settle(&self) -> Result<()> {
        let result = self.handle.submit_blocking(|_: &mut Server| ());
        result.map_err(|error| CudaError::backend(format!("{error:?}")))
    }
}

/// The stream of `id`, and the buffers bound in place, ordered behind whoever wrote them.
fn resolve(
    server: &mut Server,
    id: StreamId,
    handles: Vec<Handle>,
    cap: &Cap,
) -> Result<(Stream, Vec<Held>)> {
    // Makes the stream where this is its first use.
    look(server, id, cap)?;
    let mut held = Vec::with_capacity(handles.len());
    for handle in handles {
        let guard = server.get_resource(handle.binding(), id).map_err(|e| refused(&e))?;
        held.push(Held { address: guard.resource().ptr, _guard: Box::new(guard) });
    }
    let stream = server.write_streams().try_stream_mut(&id);
    let stream = stream.ok_or_else(|| CudaError::backend("the stream that was just made is gone"))?.sys;
    Ok((stream, held))
}

/// Whether a buffer of so many bytes is within the pool's cap: there is room in what the pool holds, or it may grow.
fn admit(server: &mut Server, id: StreamId, size: u64, is_alone: bool, cap: &Cap) -> Result<()> {
    let page = if is_alone { size } else { cap.page(size) };
    within(
        server,
        id,
        cap,
        |held, most, has_room| {
            if held + page <= most || has_room(size) { Ok(()) } else { Err(held + page) }
        },
    )
}

/// Whether the pool is within its cap, whoever made it grow; makes the stream where this is its first use.
fn look(server: &mut Server, id: StreamId, cap: &Cap) -> Result<()> {
    within(server, id, cap, |held, most, _| if held <= most { Ok(()) } else { Err(held) })
}

/// What `fits` says, if need be once the pool has given back what it holds for later. It gets the bytes that the pool holds
/// and may hold, and who looks for room in what it holds, and says how many there would be.
fn within(
    server: &mut Server,
    id: StreamId,
    cap: &Cap,
    fits: impl Fn(u64, u64, &mut dyn FnMut(u64) -> bool) -> std::result::Result<(), u64>,
) -> Result<()> {
    let look = |server: &mut Server| {
        let mut streams = server.write_streams().resolve(id, [].into_iter()).map_err(|e| refused(&e))?;
        let Some(most) = cap.of_pool() else { return Ok(Ok(())) };
        let held = streams.all().map(|stream| stream.memory_management_gpu.bytes_allocated()).sum();
        let (stream, failures) = streams.current_and_failures();
        // What is reserved here is free again at once, for whom it was looked for.
        let mut has_room =
            |size| stream.memory_management_gpu.reserve(size, PageUpdate::Forbidden, failures).is_ok();
        Ok(fits(held, most, &mut has_room))
    };
    if look(server)?.is_ok() {
        return Ok(());
    }
    server.memory_cleanup(id).map_err(|e| refused(&e))?;
    look(server)?.map_err(|wanted| cap.refusal(wanted))
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
