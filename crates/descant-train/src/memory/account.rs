//! The bytes that a run needs, by what for, and the place that it is planned for.

use descant_kernels::Keep;
use descant_model::{Config, weight_bytes};

use super::arrangement::Arrangement;

/// Bytes of a number on the CPU, and of adapters everywhere.
pub(super) const FULL: u64 = 4;
/// Bytes of an activation on a card.
pub(super) const HALF: u64 = 2;

/// Bytes that a run needs, by what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The frozen base.
    pub base: u64,
    /// The adapter's numbers.
    pub adapter: u64,
    /// Its gradients.
    pub gradients: u64,
    /// The optimizer's moments.
    pub optimizer: u64,
    /// Activations of a micro-batch, kept and in work.
    pub activations: u64,
    /// Activations that are kept because there is room, instead of computing them again.
    pub kept: u64,
    /// Keys, values and logits of the prompts that are answered together, before and after training.
    pub asking: u64,
    /// Programs, libraries and what allocators hold beside what was asked of them.
    pub runtime: u64,
    /// Of the host's memory, what stays in place (pinned) because a card reads and writes it. Not a part of the sums.
    pub on_host: u64,
}

impl Memory {
    /// Bytes at the worst moment.
    pub fn total(&self) -> u64 {
        self.least().max(self.base + self.adapter + self.runtime + self.training() + self.kept)
    }

    /// Bytes that it cannot do without.
    pub fn least(&self) -> u64 {
        self.base + self.adapter + self.runtime + self.training().max(self.asking)
    }

    fn training(&self) -> u64 {
        self.gradients + self.optimizer + self.activations
    }
}

/// Where a run is to take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the CPU.
    Cpu {
        /// Threads that work at once.
        threads: usize,
    },
    /// On a card.
    Card {
        /// Bytes that may be taken.
        free: u64,
        /// What layers keep from forward to backward.
        keep: Keep,
        /// See [`LayerLoad::in_order`](descant_kernels::LayerLoad::in_order).
        in_order: bool,
        /// Which weights lie on the host instead, and how they cross the bus.
        arrangement: Arrangement,
    },
}

impl Place {
    /// The same with another arrangement; the CPU has but one.
    #[must_use]
    pub fn with(self, arrangement: Arrangement) -> Self {
        match self {
            Self::Cpu { .. } => self,
            Self::Card { free, keep, in_order, .. } => Self::Card { free, keep, in_order, arrangement },
        }
    }

    /// Bytes of the base.
    pub(super) fn base(&self, config: &Config) -> u64 {
        match self {
            Self::Cpu { .. } => weight_bytes(config, false),
            Self::Card { arrangement, .. } => arrangement.placement.card_bytes(config),
        }
    }

    /// Bytes of a card's base that lie on the host.
    pub(super) fn on_host(&self, config: &Config) -> u64 {
        match self {
            Self::Cpu { .. } => 0,
            Self::Card { arrangement, .. } => arrangement.placement.host_bytes(config),
        }
    }
}

/// How prompts are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking {
    /// Prompts at once.
    pub batch: u64,
    /// Tokens of the longest prompt with its reply.
    pub tokens: u64,
    /// Tokens of the longest row whose loss is measured beside the prompts, one row at a time; 0 for none.
    pub scored: u64,
}
