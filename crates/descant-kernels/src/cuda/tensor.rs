//! Between burn's tensors and our launches: buffers out of tensors, tensors over new buffers.

use burn::backend::tensor::Device as BackendDevice;
use burn::backend::{DispatchDevice, TensorMetadata as _};
use burn::tensor::kind::Basic;
use burn::tensor::{BackendPrimitive, DType, Device, Shape, Tensor};
use burn_cubecl::kernel::{cast, into_contiguous};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use cubecl::server::Handle;
use cubecl_environment::stream::StreamId;

use super::error::{CudaError, Result};
use super::gpu::Gpu;
use super::run::Run;
use super::testing::is_poisoning;

/// The index of the CUDA card that a device is, if it is one; an autodiff device is its inner one.
pub fn index_of(device: &Device) -> Option<usize> {
    match device.clone().inner().as_dispatch() {
        DispatchDevice::Cube(CubeDevice::Cuda(card)) => Some(card.index),
        _ => None,
    }
}

/// The card of a tensor.
///
/// # Panics
/// If it is on no CUDA card or the driver is gone: the operators are called for CUDA tensors alone, and such a
/// tensor cannot be without its card.
pub fn gpu_of(tensor: &CubeTensor) -> Gpu {
    gpu_of_device(&tensor.device).expect("a tensor on a CUDA card")
}

/// The card of a backend's device.
///
/// # Errors
/// It is not a CUDA GPU, or the driver refuses.
pub fn gpu_of_device(device: &BackendDevice<CubeBackend>) -> Result<Gpu> {
    match device {
        CubeDevice::Cuda(card) => Gpu::of(card.index),
        other => Err(CudaError::backend(format!("{other:?} is not a CUDA GPU"))),
    }
}

/// Every bf16 and f32 of such bytes is NaN, every integer -1.
const POISON_BYTE: u8 = 0xff;

/// Fills `bytes` at `to` where buffers are poisoned.
pub(crate) fn poison(run: &Run<'_>, to: u64, bytes: usize) -> Result<()> {
    if is_poisoning() { run.memset(to, POISON_BYTE, bytes) } else { Ok(()) }
}

/// A new contiguous tensor with arbitrary contents.
pub fn empty(shape: impl Into<Shape>, dtype: DType, device: &BackendDevice<CubeBackend>) -> CubeTensor {
    empty_within(shape, dtype, device, 0)
}

/// The same in a page of its own, of exactly its size, which stays for as long as the tensor.
pub(super) fn empty_alone(shape: Shape, dtype: DType, device: &BackendDevice<CubeBackend>) -> CubeTensor {
    let bytes = shape.num_elements() * dtype.size();
    let alone = |()| over(buffer(device, bytes, true), shape, dtype, device);
    device.client().memory_persistent_allocation((), alone)
}

/// A new buffer, alone in its page or not, which a card's pool gives within its [`Cap`](super::cap::Cap).
pub(super) fn buffer(device: &BackendDevice<CubeBackend>, bytes: usize, is_alone: bool) -> Handle {
    match gpu_of_device(device) {
        Ok(gpu) if gpu.cap().of_pool().is_some() => {
            let (refused, stream) = (gpu.clone(), StreamId::current());
            gpu.thread().room(bytes as u64, is_alone, move |error| refused.keep_error(stream, error))
        }
        _ => device.client().empty(bytes),
    }
}

/// As [`empty`], at the beginning of a buffer of `room` bytes where that is more.
pub fn empty_within(
    shape: impl Into<Shape>,
    dtype: DType,
    device: &BackendDevice<CubeBackend>,
    room: usize,
) -> CubeTensor {
    let shape = shape.into();
    let bytes = shape.num_elements() * dtype.size();
    over(buffer(device, bytes.max(room), false), shape, dtype, device)
}

/// A contiguous tensor at the beginning of a new buffer.
fn over(buffer: Handle, shape: Shape, dtype: DType, device: &BackendDevice<CubeBackend>) -> CubeTensor {
    let bytes = shape.num_elements() * dtype.size();
    let tensor = CubeTensor::new_contiguous(device.client(), device.clone(), shape, buffer, dtype);
    if is_poisoning() && bytes > 0 {
        gpu_of(&tensor).enqueue(handles([&tensor]), move |run, at| poison(run, at[0], bytes));
    }
    tensor
}

/// A new contiguous tensor of zeros. Not burn's own, whose rows may lie apart.
pub fn zeros(shape: impl Into<Shape>, dtype: DType, device: &BackendDevice<CubeBackend>) -> CubeTensor {
    filled_at(empty(shape, dtype, device), 0)
}

/// A new contiguous tensor on the card of this index, each byte of which is `byte`.
pub(crate) fn filled(shape: impl Into<Shape>, dtype: DType, index: usize, byte: u8) -> CubeTensor {
    filled_at(empty(shape, dtype, &cube_device(index)), byte)
}

fn filled_at(tensor: CubeTensor, byte: u8) -> CubeTensor {
    let bytes = tensor.shape().num_elements() * tensor.dtype.size();
    gpu_of(&tensor).enqueue(handles([&tensor]), move |run, at| run.memset(at[0], byte, bytes));
    tensor
}

/// Vectors of one type behind each other; there are some.
pub(crate) fn joined(vectors: Vec<CubeTensor>) -> CubeTensor {
    let vectors: Vec<CubeTensor> = vectors.into_iter().map(contiguous).collect();
    let sizes: Vec<usize> = vectors.iter().map(|vector| vector.shape().num_elements()).collect();
    let (dtype, device) = (vectors[0].dtype, &vectors[0].device);
    let all = empty([sizes.iter().sum::<usize>()], dtype, device);
    let mut places = handles([&all]);
    places.extend(vectors.iter().map(|vector| vector.handle.clone()));
    gpu_of(&all).enqueue(places, move |run, at| {
        let mut to = at[0];
        for (from, numbers) in at[1..].iter().zip(&sizes) {
            let bytes = numbers * dtype.size();
            run.copy(to, *from, bytes)?;
            to += bytes as u64;
        }
        Ok(())
    });
    all
}

/// The tensor with its elements in row-major order, without gaps. CubeCL lays a tensor that comes from the host or
/// out of its own kernels with rows apart where that suits its reads: no address is taken before this was asked.
pub fn contiguous(tensor: CubeTensor) -> CubeTensor {
    into_contiguous(tensor)
}

/// The same values in f32, contiguous: what kernels take as weights of a norm, biases and the like.
pub fn floats(tensor: CubeTensor) -> CubeTensor {
    contiguous(if tensor.dtype == DType::F32 { tensor } else { cast(tensor, DType::F32) })
}

/// The tensor in a buffer that nobody else holds, contiguous: itself, or a copy. For kernels that write in place.
///
/// The copy is ours: burn's may have its rows apart, and would be read as if it had not.
pub fn owned(tensor: CubeTensor) -> CubeTensor {
    let tensor = contiguous(tensor);
    if tensor.can_mut() {
        return tensor;
    }
    let copy = empty(tensor.shape(), tensor.dtype, &tensor.device);
    let bytes = tensor.shape().num_elements() * tensor.dtype.size();
    gpu_of(&copy).enqueue(handles([&tensor, &copy]), move |run, at| run.copy(at[1], at[0], bytes));
    copy
}

/// The same values in bf16, contiguous: what kernels take as activations and matrices.
pub fn halves(tensor: CubeTensor) -> CubeTensor {
    contiguous(if tensor.dtype == DType::BF16 { tensor } else { cast(tensor, DType::BF16) })
}

/// Buffers of contiguous tensors, for [`Gpu::enqueue`].
pub fn handles<const N: usize>(tensors: [&CubeTensor; N]) -> Vec<Handle> {
    tensors.into_iter().map(|tensor| tensor.handle.clone()).collect()
}

/// Rows and columns.
///
/// # Panics
/// If the tensor is not a matrix.
pub fn matrix(tensor: &CubeTensor) -> [usize; 2] {
    tensor.shape().dims()
}

/// A kind of numbers whose tensors are [`CubeTensor`]s on a card: floats and integers.
pub trait Kind: Basic + BackendPrimitive<CubeBackend, Primitive = CubeTensor> {}
impl<K: Basic + BackendPrimitive<CubeBackend, Primitive = CubeTensor>> Kind for K {}

/// The primitive of a tensor on a plain CUDA device.
///
/// # Errors
/// It is elsewhere, or in a graph.
pub fn primitive<const D: usize, K: Kind>(tensor: Tensor<D, K>) -> Result<CubeTensor> {
    tensor.try_into_primitive::<CubeBackend>().map_err(|e| CudaError::backend(format!("{e:?}")))
}

/// The values of tensors in f32, once everything before them in their stream is done; the card is waited for once.
///
/// # Errors
/// What CubeCL says of the work behind them, with its kind.
pub(crate) fn read_all(tensors: Vec<CubeTensor>) -> Result<Vec<Vec<f32>>> {
    let value = |four: &[u8]| f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    let tensors: Vec<CubeTensor> = tensors.into_iter().map(floats).collect();
    settled(&tensors, |bytes| bytes.chunks_exact(size_of::<f32>()).map(value).collect())
}

/// The values of contiguous i32 tensors, as above.
///
/// # Errors
/// As above.
pub(crate) fn read_indices(tensors: Vec<CubeTensor>) -> Result<Vec<Vec<i32>>> {
    let value = |four: &[u8]| i32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    settled(&tensors, |bytes| bytes.chunks_exact(size_of::<i32>()).map(value).collect())
}

/// The f32 values of one tensor.
///
/// # Errors
/// As above.
pub(crate) fn read(tensor: CubeTensor) -> Result<Vec<f32>> {
    read_all(vec![tensor]).map(|mut values| values.pop().unwrap_or_default())
}

/// The bytes of a contiguous tensor of any type, as above.
///
/// # Errors
/// As above.
pub(crate) fn read_bytes(tensor: CubeTensor) -> Result<Vec<u8>> {
    settled(&[tensor], <[u8]>::to_vec).map(|mut bytes| bytes.pop().unwrap_or_default())
}

/// What `f` says of the bytes of each of these contiguous tensors, once everything before them in their stream is done.
fn settled<R>(tensors: &[CubeTensor], f: impl Fn(&[u8]) -> R) -> Result<Vec<R>> {
    let Some(first) = tensors.first() else { return Ok(Vec::new()) };
    let gpu = gpu_of(first);
    let bytes = first.client.read(tensors.iter().map(|tensor| tensor.handle.clone()).collect());
    // Our own launches first: what could not be read may be only their consequence.
    let behind = || tensors.iter().find_map(|tensor| gpu.error_behind(&tensor.handle));
    if let Some(error) = gpu.take_error().or_else(behind) {
        return Err(error);
    }
    let bytes = bytes.map_err(|error| super::interop::refused(&error))?;
    let of = |tensor: &CubeTensor| tensor.shape().num_elements() * tensor.dtype.size();
    Ok(tensors.iter().zip(bytes).map(|(tensor, bytes)| f(&bytes[..of(tensor)])).collect())
}

/// The tensor of a primitive.
pub fn tensor<const D: usize, K: Kind>(primitive: CubeTensor) -> Tensor<D, K> {
    Tensor::from_primitive::<CubeBackend>(primitive)
}

/// The backend's name for the card of this index.
pub(crate) fn cube_device(index: usize) -> CubeDevice {
    CubeDevice::Cuda(cubecl::cuda::CudaDevice::new(index))
}
