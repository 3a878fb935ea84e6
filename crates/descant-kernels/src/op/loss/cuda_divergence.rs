//! The divergence of rows on a CUDA card: the f32 logits of some rows of both, their comparison, and on to the next.

use burn::tensor::{DType, Tensor};

use super::LogitsRoom;
use super::cuda::LogitsPlace;
use super::rows::pairs_at_once;
use crate::cuda::plain::LOGITS;
use crate::cuda::{self, Arg, Element, MatmulSpec, Matrices, Result};

/// Whether there is a kernel for these rows and this head.
pub(super) fn has_form(of: [&Tensor<2>; 3]) -> bool {
    of.iter().all(|tensor| tensor.dtype() == DType::BF16) && of[2].dims().iter().all(|n| n.is_multiple_of(8))
}

/// See [`divergences`](super::divergences).
pub(super) fn divergences(of: [&Tensor<2>; 3], room: &LogitsRoom) -> Result<Vec<f32>> {
    let [one, other, head] = of.map(|tensor| cuda::primitive(tensor.clone()).map(cuda::contiguous));
    let (one, other, head) = (one?, other?, head?);
    let ([rows, width], [vocabulary, _]) = (cuda::matrix(&one), cuda::matrix(&head));
    let values = cuda::empty([rows], DType::F32, &one.device);
    let most = pairs_at_once(rows, vocabulary, room.bytes);
    let bytes = most * vocabulary * size_of::<f32>();
    let mut turn = room.within.turn();
    let place = LogitsPlace::new(&mut turn, 2 * bytes, &one.device);
    let [logits, workspace] = place.own();
    let all = cuda::handles([&one, &other, &head, &values, logits, workspace]);
    cuda::gpu_of(&one).enqueue(all, move |run, p| {
        let (logits, workspace) = place.begin(run, [p[4], p[5]])?;
        let both = [logits, logits + bytes as u64];
        for start in (0..rows).step_by(most) {
            let n = most.min(rows - start);
            let mut product = MatmulSpec::forward(n, vocabulary, width);
            (product.c.element, product.d.element) = (Element::F32, Element::F32);
            for (hidden, logits) in [p[0], p[1]].into_iter().zip(both) {
                let a = hidden + (start * width * DType::BF16.size()) as u64;
                let matrices = Matrices { a, b: p[2], c: None, d: logits, bias: None, workspace };
                run.blas().matmul(&product, &matrices)?;
            }
            let to = p[3] + (start * size_of::<f32>()) as u64;
            let mut arguments = [both[0], both[1], to].map(Arg::Ptr).to_vec();
            arguments.push(Arg::size(vocabulary));
            run.launch(run.kernel("loss", "divergence", &[])?, n, LOGITS.threads, 0, &arguments)?;
        }
        Ok(())
    });
    drop(turn);
    cuda::read(values)
}
