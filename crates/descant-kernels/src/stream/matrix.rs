//! The matrices of layers whose experts stream, as products take them.

use std::sync::Arc;

use burn::tensor::Device;

use super::host::{Half, HostExperts};
use super::ring;
use crate::DeviceError;

/// One product's matrices of a layer that streams; cheap to clone.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "experts stream to a card alone"))]
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

    /// For measurements: all that streams with this comes as over a bus of so many bytes a second.
    pub fn slow_down(&self, bytes_per_second: f64) {
        #[cfg(feature = "cuda")]
        self.ring.slow_down(bytes_per_second);
        #[cfg(not(feature = "cuda"))]
        {
            let _ = bytes_per_second;
            match *self.ring {}
        }
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
/// Shapes differ between layers or fit no kernel, or the card has no room for the slots.
pub fn stream_experts(
    layers: Vec<[HostExperts; 2]>,
    slots: usize,
    device: &Device,
) -> Result<Vec<[StreamedMatrix; 2]>, DeviceError> {
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
            StreamedMatrix { ring, layer, half, shape, device }
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
