//! The update of the trainable tensors: gradient norm, clipping, AdamW with f32 or 8-bit moments, accumulation.
//!
//! All tensors of an adapter go through at once, and nothing is read back: the norm is a tensor on the device, and an
//! update whose norm is not a finite number changes nothing. An update is prepared, then applied, so that whoever looks at
//! the norm between the two has little left to do. On a CUDA card each of the functions is one or two launches. Sources:
//! Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization"; Dettmers et al. 2022, "8-bit Optimizers via
//! Block-wise Quantization". The order of operations is that of `torch.optim.AdamW`.
//!
//! Tensors here are f32 and in one order, that of the adapters. No schedule and no checks: the caller has them.

mod blocks;
#[cfg(feature = "cuda")]
mod cuda;
mod flat;
mod moments;
mod numbers;
pub(crate) mod reference;
#[cfg(any(feature = "cuda", all(test, feature = "nvrtc")))]
mod table;

use burn::tensor::Tensor;

#[cfg(feature = "nvrtc")]
pub(crate) use blocks::BLOCK as MOMENT_BLOCK;
pub use flat::{FlatSum, accumulate, flattened};
pub use moments::{MomentFormat, Moments};
use numbers::StepNumbers;
pub use numbers::{AdamWSpec, Clip};

/// The moments of every tensor, and how many steps they have seen.
#[derive(Debug)]
pub struct AdamW {
    format: MomentFormat,
    moments: Vec<Moments>,
    steps: i32,
}

impl AdamW {
    /// Zero moments for these tensors, beside them.
    pub fn new<'a>(format: MomentFormat, tensors: impl IntoIterator<Item = &'a Tensor<3>>) -> Self {
        Self { format, moments: tensors.into_iter().map(|t| Moments::zeros(format, t)).collect(), steps: 0 }
    }

    /// Moments that come from elsewhere, for example a checkpoint; all in one format.
    ///
    /// # Panics
    /// If they are not.
    pub fn from_parts(format: MomentFormat, moments: Vec<Moments>, steps: i32) -> Self {
        assert!(moments.iter().all(|m| m.format() == format), "moments of one optimizer have one format");
        Self { format, moments, steps }
    }

    /// How moments are kept.
    pub fn format(&self) -> MomentFormat {
        self.format
    }

    /// The moments, a pair a tensor.
    pub fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// Steps so far.
    pub fn steps(&self) -> i32 {
        self.steps
    }

    /// One update of all tensors, but its effect: for several hundred tensors that is some milliseconds of the host's
    /// time, in which a device can still be at work on the gradients. An update that is dropped has done nothing.
    ///
    /// # Panics
    /// If the lists do not have one length, that of the moments.
    pub fn prepare(
        &mut self,
        params: Vec<Tensor<3>>,
        grads: &[Tensor<3>],
        rate: f64,
        spec: &AdamWSpec,
        clip: Option<Clip<'_>>,
    ) -> Update {
        assert_eq!(params.len(), self.moments.len(), "a parameter for each pair of moments");
        assert_eq!(grads.len(), self.moments.len(), "a gradient for each pair of moments");
        let numbers = StepNumbers::new(spec, rate, self.steps + 1);
        let in_graph: Vec<bool> = params.iter().map(|p| p.device().is_autodiff()).collect();
        let plain = params.into_iter().zip(&in_graph).map(|(p, graph)| if *graph { p.inner() } else { p });
        let params: Vec<_> = plain.collect();
        #[cfg(feature = "cuda")]
        if on_card(&params) {
            let moments = std::mem::take(&mut self.moments);
            let (params, moments, launch) = cuda::prepare(params, grads, moments, numbers, clip);
            self.moments = moments;
            return Update(Prepared::Launch(leaves(params, &in_graph), launch));
        }
        let (grads, clip) = (grads.to_vec(), clip.map(|clip| (clip.norm.clone(), clip.max_norm)));
        Update(Prepared::Later(Box::new(Later { params, in_graph, grads, numbers, clip })))
    }

    /// Does what was prepared, since which there was no other step: the parameters after it, those that lay in a graph as
    /// its leaves.
    ///
    /// Where the norm of the clip is not a finite number, parameters come back as they were and moments stay; the count of
    /// steps is not taken back, because nobody waits to see: read the norm before the next step.
    #[must_use]
    pub fn apply(&mut self, update: Update) -> Vec<Tensor<3>> {
        self.steps += 1;
        match update.0 {
            #[cfg(feature = "cuda")]
            Prepared::Launch(params, launch) => {
                if let Some(launch) = launch {
                    launch.run();
                }
                params
            }
            Prepared::Later(later) => {
                let Later { params, in_graph, grads, numbers, clip } = *later;
                let clip = clip.as_ref().map(|(norm, max_norm)| Clip { norm, max_norm: *max_norm });
                let moments = std::mem::take(&mut self.moments);
                let (params, moments) = reference::update(params, &grads, moments, numbers, clip);
                self.moments = moments;
                leaves(params, &in_graph)
            }
        }
    }
}

/// A step of the optimizer that has no effect yet: see [`AdamW::prepare`].
#[derive(Debug)]
#[must_use = "it has no effect before it is applied"]
pub struct Update(Prepared);

#[derive(Debug)]
enum Prepared {
    /// On a card: the parameters after it, and the launch that makes them so, unless there are none or the card refused.
    #[cfg(feature = "cuda")]
    Launch(Vec<Tensor<3>>, Option<cuda::Launch>),
    /// Elsewhere: all of it.
    Later(Box<Later>),
}

#[derive(Debug)]
struct Later {
    params: Vec<Tensor<3>>,
    in_graph: Vec<bool>,
    grads: Vec<Tensor<3>>,
    numbers: StepNumbers,
    clip: Option<(Tensor<1>, f64)>,
}

/// Parameters that lay in a graph as its leaves.
fn leaves(params: Vec<Tensor<3>>, in_graph: &[bool]) -> Vec<Tensor<3>> {
    let leaf = |(p, graph): (_, &bool)| if *graph { Tensor::from_inner(p).require_grad() } else { p };
    params.into_iter().zip(in_graph).map(leaf).collect()
}

/// Norm of all gradients together, on their device: `[1]`.
///
/// # Panics
/// If there are none.
pub fn grad_norm(grads: &[Tensor<3>]) -> Tensor<1> {
    assert!(!grads.is_empty(), "a norm of something");
    #[cfg(feature = "cuda")]
    if on_card(grads) {
        return cuda::grad_norm(grads);
    }
    reference::grad_norm(grads)
}

/// For each matrix of each gradient, one behind the other, 1 where it has an element other than zero, else 0: one
/// tensor for all, so that looking at them waits for the device once.
///
/// # Panics
/// If there are none.
pub fn reached(grads: &[Tensor<3>]) -> Tensor<1> {
    assert!(!grads.is_empty(), "something is looked at");
    #[cfg(feature = "cuda")]
    if on_card(grads) {
        return cuda::reached(grads);
    }
    reference::reached(grads)
}

/// Whether tensors lie on a CUDA card, where there is a form for f32.
#[cfg(feature = "cuda")]
fn on_card(tensors: &[Tensor<3>]) -> bool {
    let f32 = burn::tensor::DType::F32;
    tensors.first().is_some_and(|t| crate::is_cuda(&t.device())) && tensors.iter().all(|t| t.dtype() == f32)
}
