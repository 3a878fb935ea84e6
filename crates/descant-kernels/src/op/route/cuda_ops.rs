//! The routing operators for burn on a CUDA card.

use burn::backend::TensorMetadata as _;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::autodiff::RouteKernel;
use super::cuda as launch;
use super::sort_bytes;
use crate::cuda::{self, contiguous, floats, handles, matrix};

impl RouteKernel for CubeBackend {
    fn choose(logits: CubeTensor, k: usize) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
        let logits = floats(logits);
        let [n_tokens, n_experts] = matrix(&logits);
        let n_pairs = n_tokens * k;
        let ints = |n: usize| cuda::empty([n], DType::I32, &logits.device);
        let experts = cuda::empty([n_tokens, k], DType::I32, &logits.device);
        let (pairs, places, offsets) = (ints(n_pairs), ints(n_pairs), ints(n_experts + 1));
        let scratch = ints(sort_bytes(n_pairs, n_experts).div_ceil(4).max(1));
        let all = handles([&logits, &experts, &pairs, &places, &offsets, &scratch]);
        cuda::gpu_of(&logits).enqueue(all, move |run, p| {
            launch::choose(run, p[0], p[1], 0, [n_tokens, n_experts, k])?;
            launch::sort(run, p[1], p[2], p[3], p[4], p[5], [n_pairs, n_experts])
        });
        (experts, pairs, places, offsets)
    }

    fn weights_forward(logits: CubeTensor, experts: CubeTensor) -> CubeTensor {
        let (logits, experts) = (floats(logits), contiguous(experts));
        let ([n_tokens, n_experts], [_, k]) = (matrix(&logits), matrix(&experts));
        let weights = cuda::empty([n_tokens, k], DType::F32, &logits.device);
        cuda::gpu_of(&logits).enqueue(handles([&logits, &experts, &weights]), move |run, p| {
            launch::expert_weights(run, p[0], p[1], p[2], [n_tokens, n_experts, k])
        });
        weights
    }

    fn weights_backward(
        weights: CubeTensor,
        experts: CubeTensor,
        n_experts: usize,
        grad: CubeTensor,
    ) -> CubeTensor {
        let (weights, experts, grad) = (floats(weights), contiguous(experts), floats(grad));
        let [n_tokens, k] = matrix(&weights);
        let d_logits = cuda::empty([n_tokens, n_experts], DType::F32, &weights.device);
        cuda::gpu_of(&weights).enqueue(handles([&weights, &experts, &grad, &d_logits]), move |run, p| {
            launch::expert_weights_backward(run, p[0], p[1], p[2], p[3], [n_tokens, n_experts, k])
        });
        d_logits
    }

    fn take_forward(x: CubeTensor, _pairs: CubeTensor, places: CubeTensor) -> CubeTensor {
        let (x, places) = (contiguous(x), contiguous(places));
        let ([n_tokens, hidden], n_pairs) = (matrix(&x), places.shape().num_elements());
        let out = cuda::empty([n_pairs, hidden], DType::BF16, &x.device);
        let k = n_pairs / n_tokens.max(1);
        cuda::gpu_of(&x).enqueue(handles([&x, &places, &out]), move |run, p| {
            launch::take(run, p[0], p[1], p[2], [n_tokens, hidden, k])
        });
        out
    }

    fn take_backward(grad: CubeTensor, places: CubeTensor, n_tokens: usize) -> CubeTensor {
        let (grad, places) = (contiguous(grad), contiguous(places));
        let [n_pairs, hidden] = matrix(&grad);
        let out = cuda::empty([n_tokens, hidden], DType::BF16, &grad.device);
        let k = n_pairs / n_tokens.max(1);
        cuda::gpu_of(&grad).enqueue(handles([&grad, &places, &out]), move |run, p| {
            launch::combine(run, p[0], 0, p[1], 0, p[2], [n_tokens, hidden, k])
        });
        out
    }

    fn combine_forward(y: CubeTensor, weights: CubeTensor, places: CubeTensor) -> CubeTensor {
        let (y, weights, places) = (contiguous(y), floats(weights), contiguous(places));
        let ([_, hidden], [n_tokens, k]) = (matrix(&y), matrix(&weights));
        let out = cuda::empty([n_tokens, hidden], DType::BF16, &y.device);
        cuda::gpu_of(&y).enqueue(handles([&y, &weights, &places, &out]), move |run, p| {
            launch::combine(run, p[0], p[1], p[2], 0, p[3], [n_tokens, hidden, k])
        });
        out
    }

    fn combine_backward(
        y: CubeTensor,
        weights: CubeTensor,
        pairs: CubeTensor,
        grad: CubeTensor,
    ) -> [CubeTensor; 2] {
        let (y, weights, pairs, grad) = (contiguous(y), floats(weights), contiguous(pairs), contiguous(grad));
        let ([n_pairs, hidden], [_, k]) = (matrix(&y), matrix(&weights));
        let dy = cuda::empty(y.shape(), DType::BF16, &y.device);
        let d_weights = cuda::empty(weights.shape(), DType::F32, &y.device);
        let all = handles([&y, &weights, &pairs, &grad, &dy, &d_weights]);
        cuda::gpu_of(&y).enqueue(all, move |run, p| {
            launch::combine_gradients(run, [p[0], p[1], p[2], p[3]], [p[4], p[5]], [n_pairs, hidden, k])
        });
        [dy, d_weights]
    }
}
