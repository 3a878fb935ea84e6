//! Kernels that are made before the first step asks for them.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ending;
use super::gpu::Gpu;
use super::nvrtc::beside;
use super::wanted::{Model, is_decoders, wanted, wanted_by_fp8};

/// Of the threads that make what a first step asks for, one of so many continues with the decoder's: steps are queued
/// meanwhile, and their thread must not wait for a core.
const SHARE_FOR_DECODER: usize = 4;

impl Gpu {
    /// Makes the kernels for experts in fp8, each in a thread of its own, as [`compile_ahead`](Self::compile_ahead) makes
    /// the others.
    pub(crate) fn compile_fp8_ahead(&self) {
        let architecture = self.architecture();
        for (unit, defines) in wanted_by_fp8() {
            let gpu = self.clone();
            beside(architecture, move || drop(gpu.compiled().image(architecture, unit, defines)));
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
        let beginning = ending::begin();
        std::thread::spawn(move || {
            if let Some(_inside) = ending::enter() {
                drop(gpu.enter().and_then(|()| gpu.products().open()));
            }
            drop(beginning);
        });
        for thread in 0..threads {
            let (gpu, shared) = (self.clone(), Arc::clone(&shared));
            beside(architecture, move || {
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
