//! An operator with a backward of its own in burn's graph: what is the same for all of them.
//!
//! An operator has two traits. Its kernel is forward and backward of a backend, for the CPU and for a card; its operator
//! is what burn calls, which is the kernel's forward on those and a node of the graph on `Autodiff`. `operator!` makes the
//! second from the first.

use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

/// The operator of a kernel, on these of burn's backends: its name and its arguments, tensors of the backend first and
/// behind a semicolon what is none; its value on a backend `B` with the kernel; and in a graph over one the parents, from
/// what the forward saved and the gradient of the result to a gradient for each of them, and the forward, as for [`node`].
macro_rules! operator {
    (
        ($($backends:tt)+) $visible:vis trait $operator:ident of $kernel:ident;
        fn $name:ident($($(#[$kind:ident])? $tensor:ident: $of:ident),+ $(; $($other:ident: $type:ty),+)?);
        $plain:expr;
        [$($parent:ident),+] => $back:expr, $forward:expr
    ) => {
        #[burn::backend::backend_extension($($backends)+)]
        $visible trait $operator: Backend {
            fn $name($($(#[$kind])? $tensor: $of<Self>,)+ $($($other: $type),+)?) -> FloatTensor<Self>;
        }

        impl<B: $kernel> $operator for B {
            fn $name($($tensor: $of<Self>,)+ $($($other: $type),+)?) -> FloatTensor<Self> {
                $plain
            }
        }

        impl<B, C> $operator for burn::backend::Autodiff<B, C>
        where
            B: $kernel,
            C: burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy,
        {
            fn $name($($tensor: $of<Self>,)+ $($($other: $type),+)?) -> FloatTensor<Self> {
                $crate::op::graph::node::<B, C, _, _, _>([$(&$parent),+], $back, $forward)
            }
        }
    };
}
pub(crate) use operator;

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
