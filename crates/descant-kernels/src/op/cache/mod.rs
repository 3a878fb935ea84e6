//! Writing rows of a key-value cache in place. Inference only: a cache has no gradient.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod reference;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};

use crate::device::has_form_if;

/// Puts `values` at `rows` of `cache` and returns it. On a card it is written in place, whoever else holds it; on the CPU
/// where nobody else does.
///
/// # Shapes
/// `cache` `[capacity, features]`, `rows` `[n]` (i32, distinct), `values` `[n, features]`
pub fn write_rows(cache: Tensor<2>, rows: &Tensor<1, Int>, values: Tensor<2>) -> Tensor<2> {
    let fits = cache.dims()[1].is_multiple_of(8) && cache.dtype() == values.dtype();
    if has_form_if(&cache.device(), cache.dtype(), fits) {
        let (rows, values) = (rows.clone().into_dispatch(), values.into_dispatch());
        return Tensor::from_dispatch(Dispatch::write_rows(cache.into_dispatch(), rows, values));
    }
    reference::write_rows(cache, rows, values)
}

#[backend_extension(Cube: cfg(feature = "cuda"), Flex)]
pub(crate) trait CacheOp: Backend {
    fn write_rows(
        cache: FloatTensor<Self>,
        rows: IntTensor<Self>,
        values: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}
