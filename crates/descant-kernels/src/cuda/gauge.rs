//! Times of stages on the card, and the card's ceilings.
//!
//! While recording is on, each stage is put between two events; reading them waits for the card, so it is done once,
//! after the step. Off, a stage costs nothing.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use burn::tensor::Device;
use cubecl::MemoryScope;

use super::blas::Matrices;
use super::cap::Limited;
use super::driver::{self, Scratch};
use super::error::{CudaError, Result};
use super::event::Event;
use super::gpu::Gpu;
use super::host::HostMemory;
use super::interop::refused;
use super::run::Run;
use super::spec::MatmulSpec;
use super::tensor::{cube_device, index_of};
use crate::rates::{FREE_SHARE, OperatorTime, Rates, Shares};

fn gpu(device: &Device) -> Result<Gpu> {
    Gpu::of(index_of(device).ok_or_else(|| CudaError::backend("no CUDA card"))?)
}

/// See [`crate::gauge::profile`].
pub(crate) fn profile(device: &Device, on: bool) {
    if let Ok(gpu) = gpu(device) {
        gpu.recorder().with(|recorded| *recorded = on.then(Vec::new));
    }
}

/// See [`crate::gauge::profiled`].
pub(crate) fn profiled(device: &Device) -> Vec<OperatorTime> {
    let Ok(gpu) = gpu(device) else { return Vec::new() };
    if synchronize(device).is_err() {
        return Vec::new();
    }
    let recorded = gpu.recorder().with(Option::take).unwrap_or_default();
    let mut sums: BTreeMap<&'static str, OperatorTime> = BTreeMap::new();
    for one in &recorded {
        let none = OperatorTime { name: one.name, count: 0, seconds: 0.0, flops: 0.0, bytes: 0.0 };
        let sum = sums.entry(one.name).or_insert(none);
        sum.count += 1;
        sum.seconds += one.end.since(&one.start).map_or(f64::NAN, |ms| f64::from(ms) / 1e3);
        sum.flops += one.flops;
        sum.bytes += one.bytes;
    }
    let mut all: Vec<OperatorTime> = sums.into_values().collect();
    all.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    all
}

/// See [`crate::gauge::synchronize`].
pub(crate) fn synchronize(device: &Device) -> Result<()> {
    let gpu = gpu(device)?;
    let waited = gpu.call(Vec::new(), |_, _| driver::synchronize());
    gpu.take_error().or(waited.err()).map_or(Ok(()), Err)
}

/// See [`crate::gauge::memory_in_use`].
pub(crate) fn memory_in_use(device: &Device) -> Option<u64> {
    Some(gpu(device).ok()?.used().ok()?.0)
}

/// Gives back to the driver what burn's pool holds and nobody uses.
pub(crate) fn release_unused(gpu: &Gpu) -> Result<()> {
    cube_device(gpu.index()).client().memory_cleanup().map_err(|error| refused(&error))
}

/// A piece of burn's pool.
pub(crate) fn page(index: usize, bytes: usize) -> impl Sized {
    super::tensor::buffer(&cube_device(index), bytes, false)
}

/// Bytes that this process is known to have: burn's pool, and pieces of our own.
fn counted(gpu: &Gpu) -> u64 {
    let pool = cube_device(gpu.index()).client().memory_report(MemoryScope::Device).usage();
    pool.bytes_reserved + gpu.cap().taken()
}

/// See [`crate::gauge::shares`].
pub(crate) fn shares(device: &Device) -> Option<Shares> {
    let gpu = gpu(device).ok()?;
    let (free, total) = gpu.memory().ok()?;
    let own = counted(&gpu) + gpu.uncounted().load(Ordering::Relaxed).max(0) as u64;
    let in_use = (total - free) as u64;
    Some(Shares { total: total as u64, free: free as u64, own: own.min(in_use) })
}

/// Bytes in use that are this process's: what is neither free nor others' who were there first, nor what came all at
/// once since the last look.
pub(crate) fn own(gpu: &Gpu) -> Result<u64> {
    let (used, beside) = (gpu.used()?.0, gpu.uncounted().load(Ordering::Relaxed));
    let own = counted(gpu) as i64 + beside;
    Ok(if beside == 0 || (used as i64) < own + LATER { used } else { own as u64 })
}

/// Growth beside what is counted that is not taken for another program's: kernels that are loaded later.
const LATER: i64 = 64 << 20;

/// Has the process keep within this limit on the card for as long as the result lives. One that is broken already is
/// refused and bounds nobody: it could only stop others.
pub(crate) fn limited(gpu: &Gpu, limit: u64) -> Result<Limited> {
    if gpu.cap().limit().is_none() {
        // What was seen under an earlier limit may be long over.
        gpu.uncounted().store(0, Ordering::Relaxed);
    }
    if own(gpu)? > limit {
        release_unused(gpu)?;
    }
    let wanted = own(gpu)?;
    if wanted > limit {
        return Err(CudaError::Limit { wanted, allowed: limit });
    }
    look_beside(gpu)?;
    Ok(gpu.cap().hold(limit))
}

/// Looks how much is in use beside burn's pool and pieces of our own.
pub(crate) fn look_beside(gpu: &Gpu) -> Result<()> {
    gpu.cap().set_beside(own(gpu)?.saturating_sub(counted(gpu)));
    Ok(())
}

/// See [`crate::Workspace::check_limit`].
pub(crate) fn check_limit(gpu: &Gpu, limit: u64) -> Result<()> {
    // A limit may have refused a part of what was queued before: what that left is not to be kept.
    if let Some(error) = gpu.take_error() {
        return Err(error);
    }
    let look = || gpu.used().map(|(used, _)| (used, counted(gpu)));
    let uncounted = gpu.uncounted();
    let (used, own) = look()?;
    if used <= limit {
        let beside = used as i64 - own as i64;
        let before = uncounted.load(Ordering::Relaxed);
        // What comes all at once, later, is another program's.
        if before == 0 || beside < before + LATER {
            uncounted.store(beside, Ordering::Relaxed);
            gpu.cap().set_beside(beside.max(0) as u64);
        }
        return Ok(());
    }
    release_unused(gpu)?;
    let (used, own) = look()?;
    let beside = uncounted.load(Ordering::Relaxed);
    // The limit is this program's: what others took since the last look does not count.
    let is_ours = beside == 0 || own as i64 + beside + LATER > limit as i64;
    if used <= limit || !is_ours { Ok(()) } else { Err(CudaError::Limit { wanted: used, allowed: limit }) }
}

/// See [`crate::Workspace::room`].
pub(crate) fn room(device: &Device, limit: Option<u64>) -> Result<u64> {
    let gpu = gpu(device)?;
    release_unused(&gpu)?;
    let (used, all) = gpu.used()?;
    // Another's limit on the card may be smaller.
    let limit = limit.into_iter().chain(gpu.cap().limit()).min();
    Ok(limit.map_or((FREE_SHARE * all.saturating_sub(used) as f64) as u64, |limit| {
        limit.min(all).saturating_sub(used)
    }))
}

/// See [`crate::gauge::card`].
pub(crate) fn card(device: &Device) -> Option<String> {
    Some(gpu(device).ok()?.name().to_owned())
}

/// Rows, inputs and outputs of the measured product.
const PRODUCT: usize = 8192;
/// Bytes of the measured copy: many times a cache, and little enough for the room that is left within a small limit.
const COPY: usize = 256 << 20;
/// Repetitions, of which the best counts.
const REPETITIONS: usize = 10;
/// What the measured product works in: more than steps give theirs, because the ceiling is what the library can do.
const WORKSPACE: usize = 64 << 20;
/// Bytes of the measured copy from the host.
const BUS_COPY: usize = 64 << 20;

/// See [`crate::gauge::rates`]. NaN where the card refuses.
pub(crate) fn rates(device: &Device) -> Rates {
    let nothing = Rates { flops: f64::NAN, bytes: f64::NAN };
    let Ok(gpu) = gpu(device) else { return nothing };
    gpu.call(Vec::new(), measure).unwrap_or(nothing)
}

fn measure(run: &Run<'_>, _: &[u64]) -> Result<Rates> {
    // The ends of one buffer are the operands; bytes that are not zeros, because zeros run faster than data.
    let matrix = PRODUCT * PRODUCT * 2;
    let buffer = Scratch::new(2 * COPY.max(2 * matrix))?;
    let at = buffer.address;
    fill(run, at, 2 * matrix)?;
    let spec = MatmulSpec::forward(PRODUCT, PRODUCT, PRODUCT);
    let workspace = Scratch::new(WORKSPACE)?;
    let (a, b, d) = (at, at + matrix as u64, at + 2 * matrix as u64);
    let matrices = Matrices { a, b, c: None, d, bias: None, workspace: (workspace.address, WORKSPACE) };
    let product = best(run, || run.blas().matmul(&spec, &matrices))?;
    let copy = best(run, || run.copy(at + COPY as u64, at, COPY))?;
    Ok(Rates { flops: 2.0 * (PRODUCT as f64).powi(3) / product, bytes: 2.0 * COPY as f64 / copy })
}

/// See [`crate::gauge::bus_rate`].
pub(crate) fn bus_rate(device: &Device) -> Option<f64> {
    let gpu = gpu(device).ok()?;
    let host = HostMemory::new(&gpu, BUS_COPY).ok()?;
    let seconds = gpu.call(Vec::new(), move |run, _| {
        let to = Scratch::new(BUS_COPY)?;
        best(run, || run.upload(to.address, host.bytes()))
    });
    seconds.ok().map(|seconds| BUS_COPY as f64 / seconds)
}

/// bf16 values around one with random signs and mantissas (xorshift).
fn fill(run: &Run<'_>, to: u64, bytes: usize) -> Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let block: Vec<u8> = (0..(1 << 22))
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let bits = (state >> 32) as u16;
            ((bits & 0x807f) | 0x3f80).to_le_bytes()
        })
        .collect();
    for start in (0..bytes).step_by(block.len()) {
        let n = block.len().min(bytes - start);
        run.upload(to + start as u64, &block[..n])?;
    }
    Ok(())
}

fn best(run: &Run<'_>, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let (start, end) = (Event::new(true)?, Event::new(true)?);
    work()?;
    let mut least = f64::INFINITY;
    for _ in 0..REPETITIONS {
        start.record(run.stream)?;
        work()?;
        end.record(run.stream)?;
        end.wait()?;
        least = least.min(f64::from(end.since(&start)?) / 1e3);
    }
    Ok(least)
}
