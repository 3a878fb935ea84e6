//! Where the weights lie where a card has no room for all of them: what goes to the host, least first.
//!
//! The embedding goes first: a batch reads a few of its rows. Then the packed experts of layer after layer, which stream
//! through a ring on the card. Both are the same bits wherever they lie. Sizes alone are asked here, no device.

use descant_kernels::SiteKind;

use crate::config::Config;
use crate::weights::weight_bytes;

/// What of a model lies on the host; by default nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placement {
    /// Whether the embedding does.
    pub embedding_on_host: bool,
    /// Layers whose experts do, spread evenly over the model; only where all are packed.
    pub streamed_layers: usize,
}

impl Placement {
    /// All that a model of this configuration has, least on the host first.
    pub fn all(config: &Config) -> impl Iterator<Item = Self> + use<> {
        let packed = (0..config.num_hidden_layers).all(|layer| config.keeps_experts_packed(layer));
        let most = if packed { config.num_hidden_layers } else { 0 };
        let streaming = (0..=most).map(|n| Self { embedding_on_host: true, streamed_layers: n });
        std::iter::once(Self::default()).chain(streaming)
    }

    /// Whether the experts of a layer stream. Those that do lie as far apart as they can, so that the layers between
    /// hide the bus.
    pub fn streams(&self, config: &Config, layer: usize) -> bool {
        let before = |layer: usize| layer * self.streamed_layers / config.num_hidden_layers;
        before(layer + 1) > before(layer)
    }

    /// Slots of the ring: one where no two neighbours stream, else two.
    pub fn slots(&self, config: &Config) -> usize {
        match self.streamed_layers {
            0 => 0,
            n if 2 * n <= config.num_hidden_layers => 1,
            _ => 2,
        }
    }

    /// Bytes of pinned memory on the host.
    pub fn host_bytes(&self, config: &Config) -> u64 {
        let embedding = (config.vocab_size * config.hidden_size) as u64 * BF16;
        let of_embedding = if self.embedding_on_host { embedding } else { 0 };
        of_embedding + self.streamed_layers as u64 * experts_bytes(config)
    }

    /// Bytes of weights on the card, the ring included.
    pub fn card_bytes(&self, config: &Config) -> u64 {
        let ring = self.slots(config) as u64 * experts_bytes(config);
        (weight_bytes(config, true) + ring).saturating_sub(self.host_bytes(config))
    }

    /// Bytes that cross the bus for one batch, forward and backward: each layer that streams twice, but for the one at
    /// each turn, which is still there. The embedding's rows are nothing beside them.
    pub fn bus_bytes(&self, config: &Config) -> u64 {
        (2 * self.streamed_layers as u64).saturating_sub(2) * experts_bytes(config)
    }

    /// For people; nothing where nothing lies on the host.
    pub fn words(&self) -> Option<String> {
        match (self.embedding_on_host, self.streamed_layers) {
            (false, 0) => None,
            (true, 0) => Some("embedding on the host".to_owned()),
            (true, n) => Some(format!("embedding and the experts of {n} layers on the host")),
            (false, n) => Some(format!("experts of {n} layers on the host")),
        }
    }
}

const BF16: u64 = 2;

/// Packed bytes of a layer's experts.
fn experts_bytes(config: &Config) -> u64 {
    let bytes = |kind| {
        let dims = config.site_dims(kind);
        config.packing.bytes((dims.n_matrices * dims.d_in * dims.d_out) as u64, BF16)
    };
    bytes(SiteKind::GateUp) + bytes(SiteKind::Down)
}

#[cfg(test)]
mod tests {
    use descant_quant::Packing;

    use super::*;

    fn config(name: &str) -> Config {
        let path = format!("{}/../../fixtures/configs/{name}.json", env!("CARGO_MANIFEST_DIR"));
        Config::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn every_placement_has_its_layers_and_neighbours_only_where_they_must_be() {
        let config = config("gpt-oss-20b");
        for placement in Placement::all(&config) {
            let streams: Vec<bool> = (0..24).map(|layer| placement.streams(&config, layer)).collect();
            assert_eq!(streams.iter().filter(|is| **is).count(), placement.streamed_layers);
            let neighbours = streams.windows(2).any(|pair| pair[0] && pair[1]);
            assert_eq!(neighbours, placement.slots(&config) == 2, "{placement:?}");
        }
    }

    #[test]
    fn bytes_of_the_20b_are_those_of_its_files() {
        let config = config("gpt-oss-20b");
        let all = weight_bytes(&config, true);
        let of = |embedding_on_host, streamed_layers| Placement { embedding_on_host, streamed_layers };
        assert_eq!(of(false, 0).card_bytes(&config), all);
        assert_eq!(of(true, 0).host_bytes(&config), 201_088 * 2880 * 2);
        // 32 experts, 3 x 2880 x 2880 numbers each, 17 bytes for 32 of them.
        let layer = 32 * 3 * 2880 * 2880 / 32 * 17;
        assert_eq!(of(true, 8).host_bytes(&config) - of(true, 0).host_bytes(&config), 8 * layer);
        assert_eq!((of(true, 8).bus_bytes(&config), of(true, 1).bus_bytes(&config)), (14 * layer, 0));
        assert_eq!(of(true, 8).card_bytes(&config), all + layer - of(true, 8).host_bytes(&config));
        let mut least = u64::MAX;
        // More on the host is less on the card, but where the ring begins or grows.
        for placement in Placement::all(&config).filter(|one| ![1, 13].contains(&one.streamed_layers)) {
            let bytes = placement.card_bytes(&config);
            assert!(bytes < least, "{placement:?}");
            least = bytes;
        }
    }

    #[test]
    fn what_is_not_packed_as_published_does_not_stream() {
        let config = Config { packing: Packing::Plain, ..config("gpt-oss-20b") };
        assert_eq!(Placement::all(&config).map(|one| one.streamed_layers).max(), Some(0));
    }
}
