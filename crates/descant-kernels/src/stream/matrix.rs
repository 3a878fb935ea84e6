//! The matrices of layers whose experts stream, as products take them.

use std::sync::Arc;

use burn::tensor::Device;
use descant_quant::Packing;

use super::host::{Half, HostExperts};
use super::ring;
use crate::DeviceError;
use crate::device::only_on_a_card;

/// One product's matrices of a layer that streams; cheap to clone.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "experts stream to a card alone"))]
pub struct StreamedMatrix {
    pub(crate) ring: Arc<ring::Ring>,
    /// Which of the ring's layers.
    pub(crate) layer: usize,
    pub(crate) half: Half,
    pub(crate) packing: Packing,
    pub(crate) shape: [usize; 3],
    device: Device,
}

impl StreamedMatrix {
    pub(crate) fn device(&self) -> Device {
        self.device.clone()
    }

    /// For measurements: all that streams with this comes as over a bus of so many bytes a second.
    pub fn slow_down(&self, bytes_per_second: f64) {
        only_on_a_card!(*self.ring, (bytes_per_second), self.ring.slow_down(bytes_per_second));
    }

    /// Whether the card reads the experts where they are, when few of them are chosen; else all of a layer's come over the
    /// bus then too.
    pub fn is_in_place(&self) -> bool {
        only_on_a_card!(*self.ring, (), self.ring.is_in_place())
    }

    /// Whether both are of one layer.
    #[cfg(feature = "cuda")]
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ring, &other.ring) && self.layer == other.layer
    }
}

/// Makes the layers' experts stream through so many slots of a ring on the card: for each layer the matrices of its
/// first and its second product. Layers are given in the order of the forward pass.
///
/// One slot hides the bus where a layer that does not stream lies between two that do; two do it for neighbours.
///
/// # Errors
/// Shapes or packings differ between layers or fit no kernel, or the card has no room for the slots.
pub fn stream_experts(
    layers: Vec<[HostExperts; 2]>,
    slots: usize,
    device: &Device,
) -> Result<Vec<[StreamedMatrix; 2]>, DeviceError> {
    let device = device.clone().inner();
    let shape = |layer: &[HostExperts; 2]| layer.each_ref().map(|one| (one.packing, one.shape));
    let shapes: Vec<[(Packing, [usize; 3]); 2]> = layers.iter().map(shape).collect();
    for (layer, matrices) in layers.iter().enumerate() {
        if let Some(wrong) = matrices.iter().find(|one| !one.is_whole()) {
            let (shape, packing) = (wrong.shape, wrong.packing.name());
            return Err(DeviceError::new(format!(
                "layer {layer} of those that stream is not {shape:?} in {packing}"
            )));
        }
        if shapes[layer] != shapes[0] {
            return Err(DeviceError::new(
                "layers of several shapes or packings do not stream through one ring",
            ));
        }
    }
    if layers.is_empty() {
        return Ok(Vec::new());
    }
    #[cfg(feature = "cuda")]
    {
        let ring = Arc::new(ring::Ring::new(layers, slots, &device)?);
        let matrix = |layer: usize, half, (packing, shape)| {
            let (ring, device) = (Arc::clone(&ring), device.clone());
            StreamedMatrix { ring, layer, half, packing, shape, device }
        };
        let of = |(layer, [gate_up, down]): (usize, &[(Packing, [usize; 3]); 2])| {
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
