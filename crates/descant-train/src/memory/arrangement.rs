//! How a model and the work on it are laid out: which weights lie on the host, and how they cross the bus.

use descant_kernels::{Chunks, Claim};
use descant_model::{Config, Placement};

/// How a model and the work on it are laid out where a card has no room for all of it. Changes no bit of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrangement {
    /// Which weights lie on the host.
    pub placement: Placement,
    /// Micro-batches that go through a layer before the next layer, so that what streams crosses the bus once for them.
    pub together: usize,
    /// Whether the inputs of layers wait for the backward on the host.
    pub inputs_on_host: bool,
    /// How many tokens go through experts at once, where there are many and the adapters allow it.
    pub chunks: Chunks,
}

impl Default for Arrangement {
    fn default() -> Self {
        Self { placement: Placement::default(), together: 1, inputs_on_host: false, chunks: Chunks::Long }
    }
}

impl Arrangement {
    /// What it wants of the memory that layers work in.
    pub(crate) fn claim(&self) -> Claim {
        let Self { together, inputs_on_host, chunks, placement: _ } = *self;
        Claim { together, inputs_on_host, chunks, ..Claim::default() }
    }

    /// For people: what is not the usual.
    pub fn words(&self) -> impl Iterator<Item = String> {
        let Self { placement, together, inputs_on_host, chunks } = *self;
        let order =
            (together > 1).then(|| format!("{together} micro-batches through a layer before the next"));
        let inputs = inputs_on_host.then(|| "inputs of layers on the host until the backward".to_owned());
        let chunks = (chunks == Chunks::Short).then(|| "experts in short chunks of tokens".to_owned());
        [placement.words(), order, inputs, chunks].into_iter().flatten()
    }

    /// Bytes of weights that cross the bus in a step of so many micro-batches.
    pub fn bus_bytes(&self, config: &Config, micro_batches: usize) -> u64 {
        micro_batches.div_ceil(self.together) as u64 * self.placement.bus_bytes(config)
    }

    /// The same with the inputs of layers, there and back, where so many bytes lie on the host in all.
    pub fn bus_bytes_of_step(&self, config: &Config, micro_batches: usize, on_host: u64) -> u64 {
        let inputs = on_host.saturating_sub(self.placement.host_bytes(config));
        let passes = micro_batches.div_ceil(self.together) as u64;
        self.bus_bytes(config, micro_batches) + 2 * passes * inputs
    }
}
