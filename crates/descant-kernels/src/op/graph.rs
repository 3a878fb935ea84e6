//! An operator with a backward of its own in burn's graph: what is the same for all of them.
//!
//! An operator has two traits. Its kernel is forward and backward of a backend, for the CPU and for a card; its operator
//! is what burn calls, which is the kernel's forward on those and a node of the graph on `Autodiff`.

use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

/// From what the forward saved and the gradient of the result to a gradient for each parent, or none for one.
struct Back<B: Backend, S, G>(fn(S, FloatTensor<B>) -> G);

impl<B: Backend, S, G> Debug for Back<B, S, G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Back")
    }
}

impl<B, S, G, const N: usize> Backward<B, N> for Back<B, S, G>
where
    B: Backend,
    S: Clone + Send + Debug + 'static,
    G: IntoIterator<Item: Into<Option<FloatTensor<B>>>> + 'static,
{
    type State = S;

    fn backward(self, ops: Ops<S, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        for (parent, gradient) in ops.parents.into_iter().zip(self.0(ops.state, grad)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient.into()) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// A node with these parents. `forward` gives the result and what `back` needs; it gets whether there will be a
/// backward.
pub(crate) fn node<B, C, S, G, const N: usize>(
    parents: [&FloatTensor<Autodiff<B, C>>; N],
    back: fn(S, FloatTensor<B>) -> G,
    forward: impl FnOnce(bool) -> (FloatTensor<B>, S),
) -> FloatTensor<Autodiff<B, C>>
where
    B: Backend,
    C: CheckpointStrategy,
    S: Clone + Send + Debug + 'static,
    G: IntoIterator<Item: Into<Option<FloatTensor<B>>>> + 'static,
{
    let guards = parents.map(<FloatTensor<Autodiff<B, C>>>::node);
    match Back(back).prepare::<C>(guards).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (out, saved) = forward(true);
            prep.finish(saved, out)
        }
        OpsKind::UnTracked(prep) => prep.finish(forward(false).0),
    }
}
