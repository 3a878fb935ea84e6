//! Everything that a call of a layer reads and writes, by name, at whatever stage: tensors, buffers, addresses.
//!
//! `map` takes one stage to the next and is the only place with an order; nobody else depends on it.

use cubecl::server::Handle;

use super::frozen::FrozenTensors;
use crate::site::PerSite;

/// A pair's tensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factors<T> {
    /// `[matrices, rank, in]`, f32
    pub(super) a: T,
    /// `[matrices, out, rank]`, f32
    pub(super) b: T,
}

impl<T> Factors<T> {
    pub(super) fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Factors<U> {
        Factors { a: f(&self.a), b: f(&self.b) }
    }
}

/// Where an operand is, until its address is known.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// In a buffer of CubeCL's, which may move until it is used.
    Buffer(Handle),
    /// At an address of our own memory.
    Address(u64),
}

/// Factors at the sites that have some.
pub(super) type SiteFactors<T> = PerSite<Option<Factors<T>>>;

pub(super) fn map_factors<T, U>(of: &SiteFactors<T>, f: &mut impl FnMut(&T) -> U) -> SiteFactors<U> {
    of.map(|pair| pair.as_ref().map(|pair| pair.map(f)))
}

/// What a call works on.
#[derive(Debug, Clone)]
pub(super) struct Operands<T> {
    pub(super) frozen: FrozenTensors<T>,
    pub(super) cos: T,
    pub(super) sin: T,
    /// The work lists of the batch's sequences.
    pub(super) sequences: T,
    pub(super) pairs: SiteFactors<T>,
    /// The layer's input.
    pub(super) x: T,
    /// Its output, or the gradient of its input.
    pub(super) out: T,
    /// Where a forward says which experts it chose, i32 `[tokens, top_k]`, if somebody wants to know.
    pub(super) chosen: Option<T>,
    /// What the backward has besides.
    pub(super) backward: Option<Gradients<T>>,
}

/// What a backward reads and writes.
#[derive(Debug, Clone)]
pub(super) struct Gradients<T> {
    /// Of the layer's output; may be `out`.
    pub(super) grad: T,
    /// Where those of the pairs go.
    pub(super) pairs: SiteFactors<T>,
}

impl<T> Operands<T> {
    pub(super) fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Operands<U> {
        Operands {
            frozen: self.frozen.map(f),
            cos: f(&self.cos),
            sin: f(&self.sin),
            sequences: f(&self.sequences),
            pairs: map_factors(&self.pairs, f),
            x: f(&self.x),
            out: f(&self.out),
            chosen: self.chosen.as_ref().map(&mut *f),
            backward: self
                .backward
                .as_ref()
                .map(|of| Gradients { grad: f(&of.grad), pairs: map_factors(&of.pairs, f) }),
        }
    }
}
