//! Kernels that are made before the first step asks for them.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::gpu::Gpu;
use super::table::{Define, UNITS};

/// Files of the decoder.
const DECODER: &str = "decode/";

impl Gpu {
    /// Makes the kernels of models with heads of this width and so many queries a key, and opens cuBLASLt, in threads
    /// of their own, so that the first step need not wait for the compiler and for large libraries to come from the
    /// disk. Errors are left to whoever launches one.
    pub(crate) fn compile_ahead(&self, head_dim: usize, group: usize) {
        let architecture = self.architecture();
        let heads = [("HEAD_DIM", head_dim as i64), ("GROUP", group as i64)];
        let fits = |defines: &&'static [Define]| {
            defines.iter().all(|define| heads.iter().all(|head| head.0 != define.0 || head == define))
        };
        let mut wanted: Vec<_> = UNITS
            .iter()
            .filter(|unit| unit.only.is_none_or(|number| number == architecture.number))
            .flat_map(|unit| unit.variants.iter().copied().filter(fits).map(move |defines| (unit, defines)))
            .collect();
        // Those of this architecture alone come first, those of generation last, long ones before short ones: what a
        // first step asks for is then there soonest.
        wanted.sort_by_key(|(unit, _)| {
            (unit.id.starts_with(DECODER), unit.only.is_none(), std::cmp::Reverse(unit.text.len()))
        });
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(wanted.len());
        let shared = Arc::new((wanted, AtomicUsize::new(0)));
        let gpu = self.clone();
        std::thread::spawn(move || gpu.enter().and_then(|()| gpu.products().open()));
        for _ in 0..threads {
            let (gpu, shared) = (self.clone(), Arc::clone(&shared));
            std::thread::spawn(move || {
                let (wanted, next) = &*shared;
                while let Some((unit, defines)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    drop(gpu.compiled().image(architecture, unit, defines));
                }
            });
        }
    }
}
