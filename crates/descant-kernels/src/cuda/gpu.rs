//! One card as our operators see it: its kernels, its products, its stream by way of CubeCL, and its errors.
//!
//! Work is queued and not waited for, so that an error cannot be returned where it is caused. A thread is a stream:
//! the first error of each is kept, what follows it there is skipped, as is what reads its results elsewhere, and
//! whoever reads a result back asks with [`Gpu::take_error`]. `queue.rs` queues, `run.rs` is what the queued work can do.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cubecl_environment::stream::StreamId;

use super::architecture::{Architecture, Capability};
use super::blas::Blas;
use super::cap::Cap;
use super::driver::{self, Card, Context};
use super::error::{CudaError, Result};
use super::family::{FAMILIES, Family, Row};
use super::interop::Thread;
use super::launch::Kernels;
use super::recorder::Recorder;
use super::testing::Testing;
use crate::rates::MOST_OF_CONTEXT;

/// A card; cheap to clone.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    index: usize,
    card: Card,
    context: Context,
    thread: Thread,
    kernels: Kernels,
    blas: Blas,
    errors: Mutex<BTreeMap<StreamId, CudaError>>,
    recorder: Recorder,
    /// Bytes that other programs had when this one came.
    others: u64,
    /// What its pool may hold, beside pieces of [`DeviceMemory`](super::memory::DeviceMemory).
    cap: Arc<Cap>,
    /// What was in use beside all that is counted, when that was looked at: context, kernels, libraries.
    uncounted: AtomicI64,
    /// Held while a graph is recorded.
    recording: Mutex<()>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu")
            .field("index", &self.0.index)
            .field("card", &self.0.card)
            .finish_non_exhaustive()
    }
}

/// The cards that were opened, by index. A process has one driver context and one CubeCL stream thread a card, so
/// there is one of these too; what belongs to a model or to a run is theirs (`Workspace`, `Choices`).
static GPUS: Mutex<BTreeMap<usize, Gpu>> = Mutex::new(BTreeMap::new());

impl Gpu {
    /// The card of this index; opened at first use.
    ///
    /// # Errors
    /// There is no driver or no such card.
    pub fn of(index: usize) -> Result<Self> {
        let mut gpus = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = gpus.get(&index) {
            return Ok(gpu.clone());
        }
        let card = Card::of(index)?;
        let context = Context::of(card.device)?;
        context.enter()?;
        let (free, total) = driver::memory()?;
        let others = ((total - free) as u64).saturating_sub(MOST_OF_CONTEXT);
        let cap = Arc::new(Cap::default());
        let gpu = Self(Arc::new(Inner {
            index,
            card,
            context,
            thread: Thread::of(index, Arc::clone(&cap)),
            kernels: Kernels::default(),
            blas: Blas::default(),
            errors: Mutex::default(),
            recorder: Recorder::default(),
            others,
            cap,
            uncounted: AtomicI64::new(0),
            recording: Mutex::new(()),
        }));
        gpus.insert(index, gpu.clone());
        Ok(gpu)
    }

    /// Its index.
    pub fn index(&self) -> usize {
        self.0.index
    }

    /// Its product name.
    pub fn name(&self) -> &str {
        &self.0.card.name
    }

    /// Its compute capability.
    pub fn capability(&self) -> Capability {
        self.0.card.capability
    }

    /// What its kernels are compiled for.
    pub fn architecture(&self) -> Architecture {
        Architecture::of(self.0.card.capability)
    }

    /// Whether to use the kernels that only Hopper has.
    pub(crate) fn is_hopper(&self) -> bool {
        self.kernels().is_some_and(|row| row.family == Family::Hopper)
    }

    /// Which kernels it takes, by the table or because they were asked for; none where it is too old.
    pub fn kernels(&self) -> Option<&'static Row> {
        let own = Row::of(self.capability())?;
        let portable = || FAMILIES.iter().find(|row| row.family == Family::Portable);
        if Testing::of_thread().portable { portable() } else { Some(own) }
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.0.card.multiprocessors
    }

    /// Free and all memory, in bytes, as the driver sees it for all programs.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.0.thread.call(Vec::new(), |_, _| driver::memory())
    }

    /// Bytes in use on the card that are not other programs', the context included, and all that this program may have.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn used(&self) -> Result<(u64, u64)> {
        let (free, total) = self.memory()?;
        let own = |bytes: usize| (bytes as u64).saturating_sub(self.0.others);
        Ok((own(total - free), own(total)))
    }

    /// Counts so many bytes more, or fewer, of our own pieces.
    pub(crate) fn count(&self, bytes: i64) {
        self.0.cap.count(bytes);
    }

    /// What its pool may hold.
    pub(crate) fn cap(&self) -> &Arc<Cap> {
        &self.0.cap
    }

    /// What was in use beside all that is counted when nobody else was seen to come.
    pub(crate) fn uncounted(&self) -> &AtomicI64 {
        &self.0.uncounted
    }

    pub(super) fn errors(&self) -> MutexGuard<'_, BTreeMap<StreamId, CudaError>> {
        self.0.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an error of this thread, if it is the first.
    pub(crate) fn fail(&self, error: CudaError) {
        self.keep_error(StreamId::current(), error);
    }

    /// Keeps an error of this stream, if it is the first.
    pub(super) fn keep_error(&self, stream: StreamId, error: CudaError) {
        self.errors().entry(stream).or_insert(error);
    }

    /// Makes the card's context the current one of this thread, for calls of the driver outside CubeCL's.
    pub(crate) fn enter(&self) -> Result<()> {
        self.0.context.enter()
    }

    /// Keeps others from waiting for all of the card while a graph is recorded, and from recording one while somebody
    /// waits: the driver refuses such a wait, and the recording is lost.
    pub(crate) fn recording(&self) -> MutexGuard<'_, ()> {
        self.0.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    /// CubeCL's thread for it.
    pub(crate) fn thread(&self) -> &Thread {
        &self.0.thread
    }

    /// The kernels that were compiled for it.
    pub(super) fn compiled(&self) -> &Kernels {
        &self.0.kernels
    }

    /// Its matrix products.
    pub(super) fn products(&self) -> &Blas {
        &self.0.blas
    }
}
