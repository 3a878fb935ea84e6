//! The cards of a run, each of which has a process of its own.
//!
//! Calls are queued in burn's stream, so that they come behind whatever made the tensors. The
//! library reads its own environment (`NCCL_*`), which is not touched here.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::backend::DispatchDevice;
use burn::tensor::{DType, Device, Tensor};
use burn_cubecl::CubeDevice;
use cudarc::driver::sys;

use super::library::{Comm, FLOAT32, ID_BYTES, Nccl, SUCCESS, UniqueId};
use crate::cuda::driver::check;
use crate::cuda::error::{CudaError, Result};
use crate::cuda::gpu::Gpu;
use crate::cuda::tensor::{empty, floats, gpu_of_device, primitive, tensor};

/// How long tensors may be on their way once everybody has computed them.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a thread that waits looks without a pause: a sleep ends late, and tensors mostly come within milliseconds.
const EAGER: Duration = Duration::from_millis(20);
/// How often it looks after that.
const GLANCE: Duration = Duration::from_micros(50);

/// The version of the library, such as 2.28.3.
///
/// # Errors
/// It is not found.
#[expect(unsafe_code, reason = "calls NCCL")]
pub fn version() -> Result<String> {
    let nccl = Nccl::get()?;
    let mut number = 0;
    // SAFETY: the pointer is to a variable that lives through the call.
    nccl.check("ncclGetVersion", unsafe { (nccl.version)(&raw mut number) })?;
    Ok(format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100))
}

/// A name for a new group of cards.
///
/// # Errors
/// The library is not found, or refuses.
#[expect(unsafe_code, reason = "calls NCCL")]
pub fn new_group() -> Result<Vec<u8>> {
    let nccl = Nccl::get()?;
    let mut id = UniqueId([0; ID_BYTES]);
    // SAFETY: the pointer is to a variable that lives through the call.
    nccl.check("ncclGetUniqueId", unsafe { (nccl.unique_id)(&raw mut id) })?;
    Ok(id.0.to_vec())
}

/// A card among others.
pub struct CardGroup {
    nccl: &'static Nccl,
    gpu: Gpu,
    device: CubeDevice,
    comm: Address,
    rank: usize,
    patience: Duration,
    /// Whether the library has ended the group: the handle is of no use then.
    is_over: AtomicBool,
}

/// NCCL's handle, as a number, so that closures can take it to the card's thread.
#[derive(Clone, Copy)]
struct Address(usize);

impl Address {
    fn comm(self) -> Comm {
        self.0 as Comm
    }
}

impl std::fmt::Debug for CardGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CardGroup(rank {} on card {})", self.rank, self.gpu.index())
    }
}

#[expect(unsafe_code, reason = "calls NCCL")]
impl CardGroup {
    /// Joins the others; returns when all have.
    ///
    /// # Errors
    /// The library is not found or refuses, as where two processes have one card.
    pub fn join(device: &Device, id: &[u8], rank: usize, world: usize) -> Result<Self> {
        let nccl = Nccl::get()?;
        let wrong = |text: &str| CudaError::Nccl { call: "ncclCommInitRank", text: text.to_owned() };
        let inner = device.clone().inner();
        let DispatchDevice::Cube(card) = inner.as_dispatch() else {
            return Err(wrong("the device is not a CUDA card"));
        };
        let id: [u8; ID_BYTES] = id.try_into().map_err(|_| wrong("the name of the group is cut"))?;
        let gpu = gpu_of_device(card)?;
        let comm = gpu.call(Vec::new(), move |_, _| {
            let mut comm: Comm = std::ptr::null_mut();
            // SAFETY: the pointer is to a variable that lives through the call; this thread's context is the card's.
            let status =
                unsafe { (nccl.init_rank)(&raw mut comm, world as c_int, UniqueId(id), rank as c_int) };
            nccl.check("ncclCommInitRank", status)?;
            Ok(Address(comm as usize))
        })?;
        let (device, is_over) = (card.clone(), AtomicBool::new(false));
        Ok(Self { nccl, gpu, device, comm, rank, patience: PATIENCE, is_over })
    }

    /// The same, which waits so long for tensors.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn check_alive(&self, call: &'static str) -> Result<()> {
        if self.is_over.load(Ordering::Relaxed) {
            let text = "the group has ended by an error before".to_owned();
            return Err(CudaError::Nccl { call, text });
        }
        Ok(())
    }

    /// Ends the group, here and, by what they miss, everywhere; once.
    fn abort(&self) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            // SAFETY: the handle is alive, and nobody uses it behind the mark.
            let _ = unsafe { (self.nccl.abort)(self.comm.comm()) };
        }
    }

    /// Queues the sending of tensors of so many numbers, f32 `[1, 1, numbers]`, each from its root to all others, in one
    /// call of the library, which sends in all directions at the same time; what everybody has then, in that order.
    /// Nothing waits.
    ///
    /// # Errors
    /// A tensor is not on a card or missing, or the group has ended by an error. What the library refuses is returned
    /// by [`finish`](Self::finish).
    pub fn exchange(&self, sent: Vec<(usize, Option<Tensor<3>>)>, numbers: usize) -> Result<Vec<Tensor<3>>> {
        self.check_alive("ncclBroadcast")?;
        let shape = [1, 1, numbers];
        let roots: Vec<usize> = sent.iter().map(|(root, _)| *root).collect();
        let place = |(root, mine): (usize, Option<Tensor<3>>)| match mine.filter(|_| root == self.rank) {
            Some(mine) if mine.dims() == shape => Ok(floats(primitive(mine)?)),
            None if root != self.rank => Ok(empty(shape, DType::F32, &self.device)),
            _ => {
                let text = format!("rank {root} has no tensor of {numbers} numbers to send");
                Err(CudaError::Nccl { call: "ncclBroadcast", text })
            }
        };
        let all = sent.into_iter().map(place).collect::<Result<Vec<_>>>()?;
        let (nccl, comm) = (self.nccl, self.comm);
        let handles = all.iter().map(|one| one.handle.clone()).collect();
        self.gpu.enqueue(handles, move |run, at| {
            let send = |(root, at): (&usize, &u64)| {
                let (from, to) = (*at as *const c_void, *at as *mut c_void);
                // SAFETY: the buffer has so many f32, in place is allowed, and CubeCL gives it only to later work of
                // this stream.
                let status = unsafe {
                    (nccl.broadcast)(from, to, numbers, FLOAT32, *root as c_int, comm.comm(), run.stream)
                };
                nccl.check("ncclBroadcast", status)
            };
            // SAFETY: the call takes nothing; it is ended below, in this thread, whatever happens between.
            nccl.check("ncclGroupStart", unsafe { (nccl.group_start)() })?;
            let sent = roots.iter().zip(at).try_for_each(send);
            // SAFETY: this thread has begun a group.
            let ended = nccl.check("ncclGroupEnd", unsafe { (nccl.group_end)() });
            sent.and(ended)
        });
        Ok(all.into_iter().map(tensor).collect())
    }

    /// Waits until all that was queued has arrived.
    ///
    /// # Errors
    /// The library or the card failed, or a tensor did not arrive in time. The group has ended then.
    pub fn finish(&self) -> Result<()> {
        self.check_alive("ncclBroadcast")?;
        if let Some(error) = self.gpu.take_error() {
            return Err(error);
        }
        let (nccl, comm) = (self.nccl, self.comm);
        let patience = self.patience;
        let finished = self.gpu.call(Vec::new(), move |stream, _| {
            let start = Instant::now();
            loop {
                // SAFETY: the stream is burn's, and alive.
                match unsafe { sys::cuStreamQuery(stream.stream) } {
                    sys::CUresult::CUDA_SUCCESS => return Ok(()),
                    sys::CUresult::CUDA_ERROR_NOT_READY => {}
                    other => return check("cuStreamQuery", other),
                }
                let mut status = SUCCESS;
                // SAFETY: the handle is alive, and the pointer is to a variable that lives through the call.
                let asked = unsafe { (nccl.async_error)(comm.comm(), &raw mut status) };
                let failed = nccl.check("ncclCommGetAsyncError", asked);
                failed.and_then(|()| nccl.check("a card of another rank", status))?;
                if start.elapsed() > patience {
                    let text = format!("tensors did not arrive within {:.0} s", patience.as_secs_f64());
                    return Err(CudaError::Nccl { call: "ncclBroadcast", text });
                }
                if start.elapsed() > EAGER {
                    std::thread::sleep(GLANCE);
                } else {
                    std::thread::yield_now();
                }
            }
        });
        finished.inspect_err(|_| self.abort())
    }
}

impl Drop for CardGroup {
    fn drop(&mut self) {
        self.abort();
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    extern "C" fn sleep(_: *mut c_void) {
        std::thread::sleep(Duration::from_secs(3));
    }

    #[test]
    #[ignore = "needs a card"]
    #[expect(unsafe_code, reason = "calls the driver")]
    fn tensors_that_do_not_arrive_in_time_end_the_group_in_words() {
        let device = Device::cuda(0);
        let join = || CardGroup::join(&device, &new_group().unwrap(), 0, 1).unwrap();
        let group = join().patient(Duration::from_millis(200));
        let sent = || Some(Tensor::<3>::ones([1, 1, 4096], &device));
        let send = |sent: Option<Tensor<3>>, numbers| group.exchange(vec![(0, sent)], numbers);
        drop(send(sent(), 4096).unwrap());
        group.finish().unwrap();
        for wrong in [send(None, 4096), send(sent(), 4095)] {
            assert!(wrong.unwrap_err().to_string().contains("rank 0 has no tensor of 409"));
        }
        // Somebody whom the tensors wait for, as another card would be.
        group.gpu.enqueue(Vec::new(), |run, _| {
            // SAFETY: the function takes nothing and calls nothing of CUDA.
            check("cuLaunchHostFunc", unsafe {
                sys::cuLaunchHostFunc(run.stream, Some(sleep), std::ptr::null_mut())
            })
        });
        drop(send(sent(), 4096).unwrap());
        let start = Instant::now();
        let late = group.finish().unwrap_err();
        assert!(late.to_string().contains("did not arrive within"), "{late}");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        for after in [group.finish().err(), send(sent(), 4096).err()] {
            assert!(after.unwrap().to_string().contains("has ended by an error before"));
        }
        drop(group);
        // The card is as good as before.
        let again = join();
        let both = vec![(0, sent()), (0, sent().map(|tensor| tensor + 1.0))];
        let came = again.exchange(both, 4096).unwrap();
        again.finish().unwrap();
        let values: Vec<Vec<f32>> = came.into_iter().map(|one| crate::read_floats(one).unwrap()).collect();
        assert_eq!(values, [vec![1.0; 4096], vec![2.0; 4096]]);
    }
}
