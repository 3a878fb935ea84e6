//! Which rows are chosen, as index tensors on a card.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;

use crate::cuda;

/// Rows that were chosen, and for each row the place at which it was, or -1.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) rows: CubeTensor,
    pub(super) places: CubeTensor,
}

impl Choice {
    /// Of `count` rows, on the card of a device.
    pub(super) fn new(rows: &[usize], count: usize, device: &Device) -> Self {
        let mut places = vec![-1; count];
        for (place, &row) in rows.iter().enumerate() {
            places[row] = place as i32;
        }
        Self {
            rows: indices(rows.iter().map(|&row| row as i32).collect(), device),
            places: indices(places, device),
        }
    }
}

/// An index tensor on the card of a device.
pub(super) fn indices(values: Vec<i32>, device: &Device) -> CubeTensor {
    let data = TensorData::new(values.clone(), [values.len()]);
    let tensor = Tensor::<1, Int>::from_data(data, (&device.clone().inner(), DType::I32));
    cuda::contiguous(cuda::primitive(tensor).expect("the device is a card"))
}
