//! What crosses the bus between host and card in a step, and how long that takes at least.

use descant_kernels::gauge;
use descant_model::Config;
use descant_train::memory::{Arrangement, Memory};

use super::found::Found;
use crate::words::size;

/// Bytes a second that cross the bus of a card that is not here: what PCIe 4.0 x16 gives.
const BUS: f64 = 25e9;

/// What crosses the bus between host and card in a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bus {
    /// Of weights, and of inputs of layers there and back.
    pub(crate) bytes: u64,
    /// Bytes a second.
    pub(crate) rate: f64,
    /// Whether that was measured here.
    pub(crate) is_measured: bool,
}

impl Bus {
    pub(super) fn of(
        arrangement: Arrangement,
        needs: &Memory,
        micro_batches: usize,
        config: &Config,
        found: &Found,
    ) -> Option<Self> {
        let bytes = arrangement.bus_bytes_of_step(config, micro_batches, needs.on_host);
        let measured = (bytes > 0).then(|| found.card.as_ref().and_then(gauge::bus_rate))?;
        Some(Self { bytes, rate: measured.or(found.bus).unwrap_or(BUS), is_measured: measured.is_some() })
    }

    /// Seconds of a step, at least, where nothing hides them.
    pub(crate) fn seconds(&self) -> f64 {
        self.bytes as f64 / self.rate
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        let how = if self.is_measured { "measured here" } else { "assumed" };
        format!(
            "{} a step over the bus: at least {:.2} s at {:.0} GB/s ({how}), beside what the card computes",
            size(self.bytes),
            self.seconds(),
            self.rate / 1e9
        )
    }
}
