//! One card as our operators see it: its kernels, its products, its stream by way of CubeCL, and its errors.
//!
//! Work is queued and not waited for, so that an error cannot be returned where it is caused. A thread is a stream:
//! the first error of each is kept, what follows it there is skipped, as is what reads its results elsewhere, and
//! whoever reads a result back asks with [`Gpu::take_error`].

use std::cell::Cell;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cubecl::server::Handle;
use cubecl_environment::stream::StreamId;

use super::args::{Arg, Extent};
use super::blas::Blas;
use super::driver::{self, Card, Context, Event, Stream};
use super::error::{CudaError, Result, guarded};
use super::family::{FAMILIES, Family, Row};
use super::interop::{InPlace, Thread};
use super::launch::{Function, Kernels, launch};
use super::recorder::{Recorded, Recorder};
use super::store::Choices;
use super::table::{Architecture, Capability, Define, UNITS};

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
    /// Bytes of [`DeviceMemory`](super::memory::DeviceMemory) that are taken.
    taken: AtomicI64,
    /// What was in use beside all that is counted, when that was looked at: context, kernels, libraries.
    uncounted: AtomicI64,
}

/// What a context takes of a card at most. The driver reports what all programs have together; what was in use beyond
/// this once our context was there is taken for others'.
const CONTEXT: u64 = 640 << 20;

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu")
            .field("index", &self.0.index)
            .field("card", &self.0.card)
            .finish_non_exhaustive()
    }
}

/// How a test wants this thread's work to be done; what a thread queues takes it along, so that tests beside each other
/// do not disturb it.
#[derive(Debug, Clone, Copy, Default)]
struct Testing {
    portable: bool,
    poison: bool,
    /// Bytes of a piece that may be pinned; `None` for as many as the system lets us.
    pinned: Option<usize>,
}

thread_local! {
    static TESTING: Cell<Testing> =
        const { Cell::new(Testing { portable: false, poison: false, pinned: None }) };
}

/// To what this thread queues, a card takes the portable kernels, whatever it is: they can then be tested and measured on
/// a card at hand.
pub fn portable_kernels(on: bool) {
    TESTING.set(Testing { portable: on, ..TESTING.get() });
}

/// For tests: fills every buffer that an operator of this thread is given to write with values that no result survives,
/// so that what is read before it was written shows.
pub fn poison_buffers(on: bool) {
    TESTING.set(Testing { poison: on, ..TESTING.get() });
}

/// For tests: to this thread the system refuses to pin host memory in larger pieces.
pub fn pin_at_most(bytes: Option<usize>) {
    TESTING.set(Testing { pinned: bytes, ..TESTING.get() });
}

/// The largest piece of host memory that this thread may try to pin.
pub(crate) fn most_pinned() -> usize {
    TESTING.get().pinned.unwrap_or(usize::MAX)
}

/// Whether this thread's new buffers are poisoned.
pub(crate) fn is_poisoning() -> bool {
    TESTING.get().poison
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
        let others = ((total - free) as u64).saturating_sub(CONTEXT);
        let gpu = Self(Arc::new(Inner {
            index,
            card,
            context,
            thread: Thread::of(index),
            kernels: Kernels::default(),
            blas: Blas::default(),
            errors: Mutex::default(),
            recorder: Recorder::default(),
            others,
            taken: AtomicI64::new(0),
            uncounted: AtomicI64::new(0),
        }));
        gpus.insert(index, gpu.clone());
        Ok(gpu)
    }

    /// Makes the kernels of models with heads of this width and so many queries a key, and opens cuBLASLt, in threads
    /// of their own, so that the first step need not wait for the compiler and for large libraries to come from the
    /// disk. Errors are left to whoever launches one.
    pub(crate) fn compile_ahead(&self, head_dim: usize, group: usize) {
        let architecture = self.architecture();
        let heads = [("HEAD_DIM", head_dim as i64), ("GROUP", group as i64)];
        let fits = |defines: &&'static [Define]| {
            defines.iter().all(|define| heads.iter().all(|head| head.0 != define.0 || head == define))
        };
        let wanted: Vec<_> = UNITS
            .iter()
            .filter(|unit| unit.only.is_none_or(|number| number == architecture.number))
            .flat_map(|unit| unit.variants.iter().copied().filter(fits).map(move |defines| (unit, defines)))
            .collect();
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(wanted.len());
        let shared = Arc::new((wanted, AtomicUsize::new(0)));
        let gpu = self.clone();
        std::thread::spawn(move || gpu.enter().and_then(|()| gpu.0.blas.open()));
        for _ in 0..threads {
            let (gpu, shared) = (self.clone(), Arc::clone(&shared));
            std::thread::spawn(move || {
                let (wanted, next) = &*shared;
                while let Some((unit, defines)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    drop(gpu.0.kernels.image(architecture, unit, defines));
                }
            });
        }
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
        if TESTING.get().portable { portable() } else { Some(own) }
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
        self.0.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of our own pieces.
    pub(crate) fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed).max(0) as u64
    }

    /// What was in use beside all that is counted when nobody else was seen to come.
    pub(crate) fn uncounted(&self) -> &AtomicI64 {
        &self.0.uncounted
    }

    /// Queues `f` in burn's stream, behind everything this thread queued before; nothing waits.
    ///
    /// It gets an address for each handle, in order, good until it returns: work it puts on the stream may use
    /// them, because CubeCL hands a freed buffer only to later work of the same stream.
    pub fn enqueue(
        &self,
        handles: Vec<Handle>,
        f: impl FnOnce(&Run<'_>, &[u64]) -> Result<()> + Send + 'static,
    ) {
        let gpu = self.clone();
        let stream = StreamId::current();
        let (testing, choices) = (TESTING.get(), Choices::of_thread());
        let origins: Vec<StreamId> = handles.iter().map(|handle| handle.stream).collect();
        self.0.thread.queue(handles, move |resolved| {
            let errors = gpu.errors();
            if let Some(error) = std::iter::once(&stream).chain(&origins).find_map(|of| errors.get(of)) {
                let error = error.clone();
                drop(errors);
                return gpu.keep_error(stream, error);
            }
            drop(errors);
            TESTING.set(testing);
            let choices = choices.as_ref();
            let result = resolved.and_then(|(stream, held)| {
                let pointers: Vec<u64> = held.iter().map(|held| held.address).collect();
                guarded(|| f(&Run { gpu: &gpu, stream, choices }, &pointers))
            });
            if let Err(error) = result {
                gpu.keep_error(stream, error);
            }
        });
    }

    /// Runs `f` like [`enqueue`](Self::enqueue) and waits until it has returned; the card may still be at work. Addresses
    /// are good until then, as there: [`in_place`](Self::in_place) has some that last.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn call<R: Send>(
        &self,
        handles: Vec<Handle>,
        f: impl FnOnce(&Run<'_>, &[u64]) -> Result<R> + Send,
    ) -> Result<R> {
        let (testing, choices) = (TESTING.get(), Choices::of_thread());
        self.0.thread.call(handles, |stream, held| {
            TESTING.set(testing);
            let choices = choices.as_ref();
            let pointers: Vec<u64> = held.iter().map(|held| held.address).collect();
            f(&Run { gpu: self, stream, choices }, &pointers)
        })
    }

    /// Addresses of buffers that stay good for as long as the result lives, behind everything this thread queued before.
    ///
    /// # Errors
    /// A buffer was never written, or the card refuses.
    pub fn in_place(&self, handles: Vec<Handle>) -> Result<InPlace> {
        self.0.thread.call(handles, |_, held| Ok(InPlace::new(held)))
    }

    /// This thread's first error since the last time, once everything queued before was launched.
    ///
    /// After an error nothing of this thread is launched until it was taken, and what was to be computed is garbage:
    /// this is to be asked wherever the host reads a result.
    pub fn take_error(&self) -> Option<CudaError> {
        let settled = self.0.thread.settle();
        let first = self.errors().remove(&StreamId::current());
        first.or_else(|| settled.err())
    }

    /// The error that waits to be taken by the thread that made this buffer.
    pub(crate) fn error_behind(&self, buffer: &Handle) -> Option<CudaError> {
        self.errors().get(&buffer.stream).cloned()
    }

    fn errors(&self) -> MutexGuard<'_, BTreeMap<StreamId, CudaError>> {
        self.0.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an error of this thread, if it is the first.
    pub(crate) fn fail(&self, error: CudaError) {
        self.keep_error(StreamId::current(), error);
    }

    fn keep_error(&self, stream: StreamId, error: CudaError) {
        self.errors().entry(stream).or_insert(error);
    }

    /// Makes the card's context the current one of this thread, for calls of the driver outside CubeCL's.
    pub(crate) fn enter(&self) -> Result<()> {
        self.0.context.enter()
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    pub(crate) fn thread(&self) -> &Thread {
        &self.0.thread
    }
}

/// The inside of an enqueued closure: everything here puts work on burn's stream.
pub struct Run<'a> {
    gpu: &'a Gpu,
    pub(crate) stream: Stream,
    choices: Option<&'a Choices>,
}

impl Run<'_> {
    /// The card.
    pub fn gpu(&self) -> &Gpu {
        self.gpu
    }

    /// The same, with another stream.
    pub(crate) fn on(&self, stream: Stream) -> Run<'_> {
        Run { gpu: self.gpu, stream, choices: self.choices }
    }

    /// The kernel `entry` of the file `unit` with these constants; compiled at first use.
    ///
    /// # Errors
    /// It is not in the table, does not compile, or there is no compiler.
    pub fn kernel(
        &self,
        unit: &'static str,
        entry: &'static str,
        defines: &[Define],
    ) -> Result<&'static Function> {
        self.gpu.0.kernels.get(self.gpu.architecture(), unit, entry, defines)
    }

    /// Launches a kernel; nothing at all for an empty grid.
    ///
    /// # Errors
    /// The arguments are not the kernel's, or the driver refuses.
    pub(crate) fn launch(
        &self,
        function: &Function,
        grid: impl Into<Extent>,
        block: impl Into<Extent>,
        shared_bytes: u32,
        arguments: &[Arg],
    ) -> Result<()> {
        launch(self.stream, function, grid.into(), block.into(), shared_bytes, arguments, false)
    }

    /// The same for a kernel that waits by itself for the one before (`step.cuh`): where the card can, it may start
    /// while that is still at work.
    pub(crate) fn launch_early(
        &self,
        function: &Function,
        grid: impl Into<Extent>,
        block: impl Into<Extent>,
        shared_bytes: u32,
        arguments: &[Arg],
    ) -> Result<()> {
        let can = self.gpu.is_hopper();
        launch(self.stream, function, grid.into(), block.into(), shared_bytes, arguments, can)
    }

    /// Matrix products.
    pub(crate) fn blas(&self) -> super::blas::Products<'_> {
        self.gpu.0.blas.on(self.gpu.name(), self.stream, self.choices)
    }

    /// Sets bytes.
    ///
    /// # Errors
    /// The driver refuses.
    pub(crate) fn memset(&self, to: u64, value: u8, bytes: usize) -> Result<()> {
        if bytes == 0 { Ok(()) } else { driver::memset(self.stream, to, value, bytes) }
    }

    /// Copies on the device.
    ///
    /// # Errors
    /// The driver refuses.
    pub(crate) fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        if bytes == 0 { Ok(()) } else { driver::copy(self.stream, to, from, bytes) }
    }

    /// Copies small host data, for example a list of segments; the source may go right after.
    ///
    /// # Errors
    /// The driver refuses.
    pub(crate) fn upload(&self, to: u64, from: &[u8]) -> Result<()> {
        if from.is_empty() { Ok(()) } else { driver::copy_from_host(self.stream, to, from) }
    }

    /// Does `work`, a part of an operator that has so many operations to do and bytes to move at least.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn stage(
        &self,
        name: &'static str,
        flops: f64,
        bytes: f64,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if self.gpu().recorder().with(|recorded| recorded.is_none()) {
            return work();
        }
        let (start, end) = (Event::new(true)?, Event::new(true)?);
        start.record(self.stream)?;
        work()?;
        end.record(self.stream)?;
        self.gpu().recorder().with(|recorded| {
            if let Some(recorded) = recorded {
                recorded.push(Recorded { name, flops, bytes, start, end });
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs a card"]
    fn wrong_launches_are_reported_to_the_reader_and_what_follows_is_skipped() {
        let gpu = Gpu::of(0).expect("the card");
        let run = |arguments: Vec<Arg<'static>>| {
            gpu.enqueue(Vec::new(), move |run, _| {
                let kernel = run.kernel("norm", "rms_norm", &[])?;
                run.launch(kernel, 1u32, 128u32, 0, &arguments)
            });
        };
        run(vec![Arg::Ptr(0)]);
        gpu.enqueue(Vec::new(), |_, _| panic!("must be skipped"));
        match gpu.take_error() {
            Some(CudaError::Arguments { kernel: "rms_norm", what }) => {
                assert!(what.contains("8 arguments"), "{what}");
            }
            other => panic!("{other:?}"),
        }
        gpu.enqueue(Vec::new(), |_, _| panic!("a bug of ours"));
        assert_eq!(gpu.take_error(), Some(CudaError::Panicked { text: "a bug of ours".into() }));
        gpu.enqueue(Vec::new(), |run, _| run.kernel("norm", "no_such_kernel", &[]).map(|_| ()));
        assert!(matches!(gpu.take_error(), Some(CudaError::Driver { .. })));
        gpu.enqueue(Vec::new(), |run, _| run.kernel("no such file", "x", &[]).map(|_| ()));
        assert!(matches!(gpu.take_error(), Some(CudaError::NoUnit { .. })));
        assert_eq!(gpu.take_error(), None);
    }
}
