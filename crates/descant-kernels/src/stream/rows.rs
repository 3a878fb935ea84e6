//! Rows of a table on the host, gathered by the card.

use std::sync::Arc;

use burn::backend::TensorMetadata as _;
use burn::tensor::{DType, Int, Tensor};

use crate::cuda::{Arg, HostMemory, contiguous, empty, gpu_of, handles, int_primitive, tensor};

/// `table[indices]`, bf16 rows of `width`.
pub(super) fn gather(table: &Arc<HostMemory>, indices: &Tensor<1, Int>, width: usize) -> Tensor<2> {
    let indices = contiguous(int_primitive(indices.clone()).expect("indices lie where the model lies"));
    let count = indices.shape().num_elements();
    let out = empty([count, width], DType::BF16, &indices.device);
    let table = Arc::clone(table);
    gpu_of(&out).enqueue(handles([&indices, &out]), move |run, p| {
        let vectors = count * width / 8;
        let mut arguments = [table.address(), p[0], p[1]].map(Arg::Ptr).to_vec();
        arguments.extend([Arg::I64(vectors as i64), Arg::size(width)]);
        run.launch(run.kernel("cache", "gather_rows", &[])?, vectors.div_ceil(256), 256u32, 0, &arguments)
    });
    tensor(out)
}
