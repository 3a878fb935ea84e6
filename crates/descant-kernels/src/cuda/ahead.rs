//! Kernels that are made before the first step asks for them.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::gpu::Gpu;
use super::wanted::{Model, is_decoders, wanted, wanted_by_fp8};

/// Of the threads that make what a first step asks for, one of so many continues with the decoder's: steps are queued
/// meanwhile, and their thread must not wait for a core.
const SHARE_FOR_DECODER: usize = 4;

/// Threads of the process that make kernels or open a library.
static AT_WORK: AtomicUsize = AtomicUsize::new(0);

/// Whether some do. What a compiler's library does at a process's end must not be done under its threads.
pub(crate) fn is_at_work() -> bool {
    AT_WORK.load(Ordering::SeqCst) > 0
}

/// Does `work` in a thread that counts as long as it lives.
fn beside(work: impl FnOnce() + Send + 'static) {
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            AT_WORK.fetch_sub(1, Ordering::SeqCst);
        }
    }
    AT_WORK.fetch_add(1, Ordering::SeqCst);
    let counted = Counted;
    std::thread::spawn(move || {
        work();
        drop(counted);
    });
}

impl Gpu {
    /// Makes the kernels for experts in fp8, each in a thread of its own, as [`compile_ahead`](Self::compile_ahead) makes
    /// the others.
    pub(crate) fn compile_fp8_ahead(&self) {
        let architecture = self.architecture();
        for (unit, defines) in wanted_by_fp8() {
            let gpu = self.clone();
            beside(move || drop(gpu.compiled().image(architecture, unit, defines)));
        }
    }

    /// Makes the kernels of such models, and opens cuBLASLt, in threads of their own, so that the first step need not
    /// wait for the compiler and for large libraries to come from the disk. Errors are left to whoever launches one.
    pub(crate) fn compile_ahead(&self, model: Model) {
        let architecture = self.architecture();
        let wanted = wanted(model, architecture, self.is_hopper());
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(wanted.len());
        let for_decoder = (threads / SHARE_FOR_DECODER).max(1);
        let shared = Arc::new((wanted, AtomicUsize::new(0)));
        let gpu = self.clone();
        beside(move || drop(gpu.enter().and_then(|()| gpu.products().open())));
        for thread in 0..threads {
            let (gpu, shared) = (self.clone(), Arc::clone(&shared));
            beside(move || {
                let (wanted, next) = &*shared;
                let of_step = wanted.iter().take_while(|(unit, _)| !is_decoders(unit)).count();
                let last = if thread < for_decoder { wanted.len() } else { of_step };
                let take = |at: usize| (at < last).then_some(at + 1);
                while let Ok(at) = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
                    let (unit, defines) = wanted[at];
                    drop(gpu.compiled().image(architecture, unit, defines));
                }
            });
        }
    }
}
