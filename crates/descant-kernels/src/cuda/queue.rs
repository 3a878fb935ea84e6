//! Work on a card's stream, and the errors of work that nobody waits for.

use cubecl::server::Handle;
use cubecl_environment::stream::StreamId;

use super::error::{CudaError, Result, guarded};
use super::gpu::Gpu;
use super::interop::InPlace;
use super::run::Run;
use super::store::Choices;
use super::testing::Testing;

impl Gpu {
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
        let (testing, choices) = (Testing::of_thread(), Choices::of_thread());
        let origins: Vec<StreamId> = handles.iter().map(|handle| handle.stream).collect();
        self.thread().queue(handles, move |resolved| {
            let errors = gpu.errors();
            if let Some(error) = std::iter::once(&stream).chain(&origins).find_map(|of| errors.get(of)) {
                let error = error.clone();
                drop(errors);
                return gpu.keep_error(stream, error);
            }
            drop(errors);
            testing.enter();
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
        let (testing, choices) = (Testing::of_thread(), Choices::of_thread());
        self.thread().call(handles, |stream, held| {
            testing.enter();
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
        self.thread().call(handles, |_, held| Ok(InPlace::new(held)))
    }

    /// This thread's first error since the last time, once everything queued before was launched.
    ///
    /// After an error nothing of this thread is launched until it was taken, and what was to be computed is garbage:
    /// this is to be asked wherever the host reads a result.
    pub fn take_error(&self) -> Option<CudaError> {
        let settled = self.thread().settle();
        let first = self.errors().remove(&StreamId::current());
        first.or_else(|| settled.err())
    }

    /// The error that waits to be taken by the thread that made this buffer.
    pub(crate) fn error_behind(&self, buffer: &Handle) -> Option<CudaError> {
        self.errors().get(&buffer.stream).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::Arg;

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
