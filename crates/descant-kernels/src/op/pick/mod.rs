//! The choice of a token from its logits: the largest, or one at random.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod draw;
mod order;
pub(crate) mod reference;
mod weights;

use burn::tensor::Tensor;

use crate::{DeviceError, read_floats};

pub use draw::{Draw, Drawn, DrawnRow};
#[cfg(feature = "nvrtc")]
pub(crate) use weights::ONE;

/// The id of the largest logit of each row, ties to the lower id. On a card the rows stay there.
///
/// # Shapes
/// `logits` `[rows, vocabulary]`
///
/// # Errors
/// The device failed.
pub fn best_tokens(logits: Tensor<2>) -> Result<Vec<u32>, DeviceError> {
    #[cfg(feature = "cuda")]
    if crate::is_cuda(&logits.device()) && cuda::has_form(&logits) {
        return cuda::best_tokens(logits.inner());
    }
    let [_, width] = logits.dims();
    let values = read_floats(logits)?;
    Ok(values.chunks_exact(width).map(|row| reference::best_token(row) as u32).collect())
}

/// A token of each row, as its [`Draw`] says. On a card the rows stay there.
///
/// # Shapes
/// `logits` `[rows, vocabulary]`
///
/// # Errors
/// The device failed.
pub fn draw_tokens(logits: Tensor<2>, rows: &[DrawnRow<'_>]) -> Result<Vec<Drawn>, DeviceError> {
    assert_eq!(logits.dims()[0], rows.len(), "a row says how it is drawn");
    #[cfg(feature = "cuda")]
    if crate::is_cuda(&logits.device()) && cuda::has_form(&logits) {
        return Ok(cuda::draw_tokens(logits.inner(), rows)?);
    }
    let [_, width] = logits.dims();
    let values = read_floats(logits)?;
    Ok(values.chunks_exact(width).zip(rows).map(|(logits, row)| row.draw(logits)).collect())
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device};

    use super::*;

    #[test]
    fn the_largest_is_chosen_the_first_of_equal_ones_and_never_what_is_no_number() {
        let nan = f32::NAN;
        let rows = [[1.0, 3.0, 3.0, nan], [nan, 1.0, 2.0, 0.0], [-1.0, nan, -0.5, -2.0]];
        let logits = Tensor::<2>::from_data(rows, (&Device::flex(), DType::F32));
        assert_eq!(best_tokens(logits).unwrap(), [1, 0, 2]);
    }
}
