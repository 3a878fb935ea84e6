//! Product with a frozen weight: a dense one, or one matrix an expert, packed or not.
//!
//! Rows of `x` that belong to one matrix follow each other; [`Groups`] says where each matrix' rows begin. The
//! backward goes to `x` alone and reads the same packed weight.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod mxfp4;
pub(crate) mod reference;
mod weight;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::{DType, Device, Tensor};

use crate::op::graph::operator;
pub(crate) use cpu::tasks;
pub use mxfp4::{Mxfp4Layout, Mxfp4Piece, NotTiled};
pub use weight::{FrozenWeight, Groups};
pub(crate) use weight::{RowGroups, WeightPrimitive};

/// `x · weight^T + bias`, each row with its group's matrix.
///
/// # Shapes
/// - `x` `[rows, in]`, the result `[rows, out]`
/// - `bias` `[matrices, out]`
pub fn linear(x: Tensor<2>, weight: &FrozenWeight, bias: Option<&Tensor<2>>, groups: &Groups) -> Tensor<2> {
    if has_form(&x.device(), x.dtype(), weight, groups) {
        let bias = match bias {
            Some(bias) => bias.clone(),
            None => Tensor::zeros([weight.n_matrices(), weight.d_out()], (&x.device().inner(), x.dtype())),
        };
        let (x, bias) = (x.into_dispatch(), bias.into_dispatch());
        return Tensor::from_dispatch(Dispatch::linear(x, weight.primitive(), bias, groups.primitive()));
    }
    reference::linear(x, weight, bias, groups)
}

/// By how many features grouped products on a card go.
pub(crate) const GROUPED_FEATURES: usize = 32;

/// Whether the device's own form is written for these sizes; the CPU's takes all.
fn has_form(device: &Device, dtype: DType, weight: &FrozenWeight, groups: &Groups) -> bool {
    // A single dense product on a card is cuBLASLt's.
    let one = matches!((weight, groups.rows()), (FrozenWeight::Dense(_), None));
    let unit = if one { 8 } else { GROUPED_FEATURES };
    let fits = [weight.d_in(), weight.d_out()].iter().all(|n| n.is_multiple_of(unit));
    crate::is_cpu(device) || (fits && crate::device::has_form(device, dtype))
}

/// Forward and backward of a backend.
pub(crate) trait LinearKernel: Backend {
    fn linear_forward(
        x: FloatTensor<Self>,
        weight: WeightPrimitive<Self>,
        bias: FloatTensor<Self>,
        groups: RowGroups<Self>,
    ) -> FloatTensor<Self>;

    fn linear_backward(
        grad: FloatTensor<Self>,
        weight: WeightPrimitive<Self>,
        groups: RowGroups<Self>,
    ) -> FloatTensor<Self>;
}

operator! {
    (Cube: cfg(feature = "cuda"), Flex, Autodiff) pub(crate) trait LinearOp of LinearKernel;
    fn linear(
        x: FloatTensor, #[extension_type] weight: WeightPrimitive, bias: FloatTensor,
        #[extension_type] groups: RowGroups
    );
    B::linear_forward(x, weight, bias, groups);
    [x] => |(weight, groups), grad| [B::linear_backward(grad, weight, groups)], |_| {
        let (x, weight, groups) = (x.primitive().clone(), weight.inner(), groups.inner());
        let y = B::linear_forward(x, weight.clone(), bias.into_primitive(), groups.clone());
        (y, (weight, groups))
    }
}
