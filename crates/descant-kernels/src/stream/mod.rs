//! Weights that have no room on a card: they lie in pinned host memory, and come over the bus while the card computes.
//!
//! A layer's packed experts pass through a [ring](ring) of slots on the card, or are read where they are when few of
//! them are chosen; rows of the embedding are gathered by the card itself. Not a bit of a weight changes, and the
//! kernels are those for weights on the card, so that results do not depend on where a weight lies.
//!
//! Which weights go where is the model's business.

#[cfg(feature = "cuda")]
pub(crate) mod ring;
#[cfg(feature = "cuda")]
pub(crate) mod rows;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod slots;

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};

use crate::DeviceError;
#[cfg(feature = "cuda")]
use crate::cuda::HostMemory;
use crate::op::linear::FrozenWeight;

/// Without a card there is nothing of this kind.
#[cfg(not(feature = "cuda"))]
#[derive(Debug)]
enum HostMemory {}
#[cfg(not(feature = "cuda"))]
pub(crate) mod ring {
    //! See above.
    #[derive(Debug)]
    pub(crate) enum Ring {}
}

/// Bytes of a tensor in pinned host memory, where a card reads them; cheap to clone.
#[derive(Debug, Clone)]
pub struct HostBytes(Arc<HostMemory>);

#[cfg(feature = "cuda")]
impl HostBytes {
    pub(crate) fn new(memory: HostMemory) -> Self {
        Self(Arc::new(memory))
    }
}

impl HostBytes {
    fn len(&self) -> usize {
        #[cfg(feature = "cuda")]
        return self.0.bytes().len();
        #[cfg(not(feature = "cuda"))]
        match *self.0 {}
    }
}

/// A frozen table of bf16 rows on the host, `[rows, width]`.
#[derive(Debug, Clone)]
pub struct HostTable {
    bytes: HostBytes,
    rows: usize,
    width: usize,
    device: Device,
}

impl HostTable {
    /// # Errors
    /// The bytes are not those of the shape, or rows are no multiple of 16 bytes.
    pub fn new(bytes: HostBytes, [rows, width]: [usize; 2], device: &Device) -> Result<Self, DeviceError> {
        if bytes.len() != 2 * rows * width || !width.is_multiple_of(8) {
            return Err(DeviceError::new(format!("{} bytes are no table of {rows} x {width}", bytes.len())));
        }
        Ok(Self { bytes, rows, width, device: device.clone().inner() })
    }

    /// The rows of these indices, `[n, width]`, read by the card over the bus.
    ///
    /// # Shapes
    /// `indices` `[n]`, i32, each below the number of rows
    pub fn select(&self, indices: &Tensor<1, Int>) -> Tensor<2> {
        debug_assert!(self.rows > 0 && indices.device() == self.device);
        #[cfg(feature = "cuda")]
        return rows::gather(&self.bytes.0, indices, self.width);
        #[cfg(not(feature = "cuda"))]
        match *self.bytes.0 {}
    }
}

/// Packed matrices of all experts of a layer on the host.
#[derive(Debug, Clone)]
pub struct HostExperts {
    /// As in [`FrozenWeight::Mxfp4`].
    pub blocks: HostBytes,
    /// As in [`FrozenWeight::Mxfp4`].
    pub scales: HostBytes,
    /// Matrices, output features, input features.
    pub shape: [usize; 3],
}

/// Which of a layer's products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    GateUp,
    Down,
}

/// One product's matrices of a layer that streams; cheap to clone.
#[derive(Debug, Clone)]
pub struct StreamedMatrix {
    pub(crate) ring: Arc<ring::Ring>,
    /// Which of the ring's layers.
    pub(crate) layer: usize,
    pub(crate) half: Half,
    pub(crate) shape: [usize; 3],
    device: Device,
}

impl StreamedMatrix {
    pub(crate) fn device(&self) -> Device {
        self.device.clone()
    }

    /// Whether both are of one layer.
    #[cfg(feature = "cuda")]
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ring, &other.ring) && self.layer == other.layer
    }
}

/// Makes the layers' experts stream through so many slots of a ring on the card: for each layer the weights of its first
/// and its second product. Layers are given in the order of the forward pass.
///
/// One slot hides the bus where a layer that does not stream lies between two that do; two do it for neighbours.
///
/// # Errors
/// Shapes differ between layers or fit no kernel, or the card has no room for the slots.
pub fn stream_experts(
    layers: Vec<[HostExperts; 2]>,
    slots: usize,
    device: &Device,
) -> Result<Vec<[FrozenWeight; 2]>, DeviceError> {
    let device = device.clone().inner();
    let shapes: Vec<[[usize; 3]; 2]> = layers.iter().map(|layer| [layer[0].shape, layer[1].shape]).collect();
    for (layer, matrices) in layers.iter().enumerate() {
        for HostExperts { blocks, scales, shape } in matrices {
            let [count, outputs, inputs] = *shape;
            let numbers = count * outputs * inputs;
            let whole = blocks.len() == numbers / 2 && scales.len() == numbers / descant_quant::mxfp4::BLOCK;
            if !whole || [outputs, inputs].iter().any(|n| !n.is_multiple_of(descant_quant::mxfp4::BLOCK)) {
                return Err(DeviceError::new(format!("layer {layer} of those that stream is not {shape:?}")));
            }
        }
        if shapes[layer] != shapes[0] {
            return Err(DeviceError::new("layers of several shapes do not stream through one ring"));
        }
    }
    if layers.is_empty() {
        return Ok(Vec::new());
    }
    #[cfg(feature = "cuda")]
    {
        let ring = Arc::new(ring::Ring::new(layers, slots, &device)?);
        let matrix = |layer: usize, half, shape| {
            let (ring, device) = (Arc::clone(&ring), device.clone());
            FrozenWeight::Streamed(StreamedMatrix { ring, layer, half, shape, device })
        };
        let of = |(layer, [gate_up, down]): (usize, &[[usize; 3]; 2])| {
            [matrix(layer, Half::GateUp, *gate_up), matrix(layer, Half::Down, *down)]
        };
        Ok(shapes.iter().enumerate().map(of).collect())
    }
    #[cfg(not(feature = "cuda"))]
    {
        let _ = (slots, device);
        Err(DeviceError::new("this build has no card to stream to"))
    }
}
