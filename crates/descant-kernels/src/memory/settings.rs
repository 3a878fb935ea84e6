//! What a model may use of its device's memory.

use super::keep::Keep;
use super::sizes::Chunks;
use crate::op::experts::ExpertForm;

/// What a model may use on its device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemorySettings {
    /// Most bytes in use on the card, the driver's own included; all of it when `None`.
    pub limit: Option<u64>,
    /// What layers keep from forward to backward.
    pub keep: Keep,
    /// What is claimed of it, by all together.
    pub claimed: Claim,
}

/// What someone will want of a device's memory beside what is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Claim {
    /// Bytes that are left free.
    pub bytes: u64,
    /// Tokens that memory is laid out for at least.
    pub tokens: usize,
    /// Batches that go through a layer before the next layer, with room for the inputs of all layers beside what layers
    /// work in; 0 where a graph keeps them. With more than one batch layers keep nothing else: each is run again in the
    /// backward.
    pub together: usize,
    /// Whether the inputs of layers that are not needed soon lie in pinned host memory until the backward asks for
    /// them.
    pub inputs_on_host: bool,
    /// How many tokens go through experts at once, where the pairs allow it.
    pub chunks: Chunks,
    /// In which numbers the steps of a training multiply with experts.
    pub experts: ExpertForm,
}

impl Claim {
    /// What both want: their bytes, and of everything else what asks for more.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            tokens: self.tokens.max(other.tokens),
            together: self.together.max(other.together),
            inputs_on_host: self.inputs_on_host || other.inputs_on_host,
            chunks: self.chunks.max(other.chunks),
            experts: self.experts.max(other.experts),
        }
    }
}
