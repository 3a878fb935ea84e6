//! Every operator's form for a CUDA card against its definition in f32 on the CPU, forward and backward, on inputs
//! that bf16 holds exactly.

#![expect(clippy::print_stdout, reason = "the differences are what the reader of a run on a card wants")]

mod fp8;
mod memory;
mod mixing;
mod optimizer;
mod products;
mod rows;

use burn::tensor::{DType, Device, Tensor};
use descant_kernels as k;
use descant_kernels::cuda::Gpu;

use crate::card::{error, floats, on};

/// Norm of the difference by norm of the definition's result: results are rounded to 8 bits once or twice.
const TOLERANCE: f64 = 1e-2;

/// Result of `f` on a device, and the gradient of `sum(f * seed)` at each input.
fn run<const D: usize, const N: usize, const O: usize>(
    device: &Device,
    dtypes: [DType; N],
    inputs: [&Tensor<D>; N],
    seed: &Tensor<O>,
    f: &dyn Fn([Tensor<D>; N], &Device) -> Tensor<O>,
) -> Vec<Vec<f32>> {
    let graph = device.clone().autodiff();
    let mut leaves = Vec::new();
    for (input, dtype) in inputs.into_iter().zip(dtypes) {
        leaves.push(on(input, &graph, dtype).detach().require_grad());
    }
    let leaves: [Tensor<D>; N] = leaves.try_into().expect("as many");
    let y = f(leaves.clone(), device);
    let seed = on(seed, &graph, y.dtype());
    let gradients = (y.clone() * seed).sum().backward();
    let mut all = vec![floats(y.inner())];
    all.extend(leaves.iter().map(|leaf| floats(leaf.grad(&gradients).expect("a gradient"))));
    all
}

/// Asserts that the card's form and the portable one, each run twice, give the same bits, and nearly those of the
/// definition.
pub(crate) fn same<const D: usize, const N: usize, const O: usize>(
    card: &Device,
    what: &str,
    dtypes: [DType; N],
    inputs: [&Tensor<D>; N],
    seed: &Tensor<O>,
    own: impl Fn([Tensor<D>; N], &Device) -> Tensor<O>,
    definition: impl Fn([Tensor<D>; N], &Device) -> Tensor<O>,
) {
    let slow = run(&Device::flex(), [DType::F32; N], inputs, seed, &definition);
    same_as(&slow, card, what, dtypes, inputs, seed, own);
}

/// The same where the definition's result and gradients are known.
fn same_as<const D: usize, const N: usize, const O: usize>(
    slow: &[Vec<f32>],
    card: &Device,
    what: &str,
    dtypes: [DType; N],
    inputs: [&Tensor<D>; N],
    seed: &Tensor<O>,
    own: impl Fn([Tensor<D>; N], &Device) -> Tensor<O>,
) {
    let first = run(card, dtypes, inputs, seed, &own);
    assert_eq!(Gpu::of(0).expect("the card").take_error(), None, "{what}");
    let again = run(card, dtypes, inputs, seed, &own);
    k::cuda::portable_kernels(true);
    let [portable, portable_again] = std::array::from_fn(|_| run(card, dtypes, inputs, seed, &own));
    k::cuda::portable_kernels(false);
    for (form, once, twice) in [("", &first, &again), (", portable", &portable, &portable_again)] {
        for (i, ((a, again), b)) in once.iter().zip(twice).zip(slow).enumerate() {
            let e = error(a, b);
            println!("{what}{form}: tensor {i}: {e:.2e}");
            assert!(
                a.iter().zip(again).all(|(a, b)| a.to_bits() == b.to_bits()),
                "{what}{form}: other bits in tensor {i}"
            );
            assert!(e <= TOLERANCE, "{what}{form}: tensor {i} (0 is the output) differs by {e:e}");
        }
    }
}

pub(crate) const BF16: DType = DType::BF16;
