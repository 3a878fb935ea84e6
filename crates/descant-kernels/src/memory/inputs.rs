//! Where the inputs of a step's layers lie: all of them on the card, or, where not all have room, taking turns in a few
//! places there, with those that wait for the backward on the host. Sizes alone decide; copies are made elsewhere.

use super::layout::ALIGNMENT;

/// Layers whose inputs are on the card at once where the others wait on the host: the one in use, and those that are on
/// their way.
const DEPTH: usize = 3;

/// The inputs of layers in one piece of memory: those of a layer beside each other, batch after batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Inputs {
    /// Where they begin.
    pub(crate) start: u64,
    /// From one batch to the next.
    pub(crate) stride: u64,
    /// Batches that there is room for.
    pub(crate) batches: usize,
    /// Layers that there are.
    pub(crate) layers: usize,
    /// Layers whose inputs are on the card at once.
    pub(crate) depth: usize,
}

impl Inputs {
    /// Of so many batches, each of `bytes` at most.
    pub(super) fn new(start: u64, bytes: u64, batches: usize, layers: usize, on_host: bool) -> Self {
        let depth = if on_host { DEPTH.min(layers) } else { layers };
        Self { start, stride: bytes.next_multiple_of(ALIGNMENT), batches, layers, depth }
    }

    /// On the card: what comes out of the last layer has a place of its own, in which the gradients go back.
    pub(super) fn bytes(&self) -> u64 {
        ((self.depth + 1) * self.batches) as u64 * self.stride
    }

    /// On the host: those of the last layers are still on the card when the backward asks for them.
    pub(crate) fn host_bytes(&self) -> u64 {
        ((self.layers - self.depth) * self.batches) as u64 * self.stride
    }

    /// Where the input of a layer begins while it is on the card; that of the layer behind the last one is what comes out
    /// of that.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn at(&self, layer: usize, batch: usize) -> u64 {
        debug_assert!(batch < self.batches && layer <= self.layers, "a place for each batch");
        let place = if layer == self.layers { self.depth } else { layer % self.depth };
        self.start + (place * self.batches + batch) as u64 * self.stride
    }

    /// Where the input of a layer waits in the host's memory, if it does.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn on_host(&self, layer: usize, batch: usize) -> Option<u64> {
        (layer + self.depth < self.layers).then(|| (layer * self.batches + batch) as u64 * self.stride)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYERS: usize = 8;
    const BATCHES: usize = 2;

    fn all(layers: std::ops::Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        layers.flat_map(|layer| (0..BATCHES).map(move |batch| (layer, batch)))
    }

    fn different(mut places: Vec<u64>) -> usize {
        places.sort_unstable();
        places.dedup();
        places.len()
    }

    #[test]
    fn a_layer_the_next_one_and_the_end_share_no_place_on_the_card() {
        for on_host in [false, true] {
            let inputs = Inputs::new(512, 250, BATCHES, LAYERS, on_host);
            for (layer, batch) in all(0..LAYERS) {
                let own = inputs.at(layer, batch);
                let others =
                    [inputs.at(layer + 1, batch), inputs.at(LAYERS, batch), inputs.at(layer, 1 - batch)];
                assert!(!others.contains(&own), "layer {layer}, on host {on_host}");
                assert!(own >= 512 && own + 256 <= 512 + inputs.bytes());
            }
        }
    }

    #[test]
    fn what_has_no_place_at_the_turn_has_one_on_the_host() {
        for (on_host, hosted) in [(false, 0), (true, LAYERS - DEPTH)] {
            let inputs = Inputs::new(512, 250, BATCHES, LAYERS, on_host);
            let places: Vec<u64> =
                all(0..LAYERS).filter_map(|(layer, batch)| inputs.on_host(layer, batch)).collect();
            assert!(places.iter().all(|at| at + 256 <= inputs.host_bytes()));
            assert_eq!((places.len(), different(places)), (hosted * BATCHES, hosted * BATCHES));
            let stay = all(0..LAYERS).filter(|(layer, batch)| inputs.on_host(*layer, *batch).is_none());
            let stay: Vec<u64> = stay.map(|(layer, batch)| inputs.at(layer, batch)).collect();
            assert_eq!(
                (stay.len(), different(stay)),
                ((LAYERS - hosted) * BATCHES, (LAYERS - hosted) * BATCHES)
            );
        }
    }

    #[test]
    fn a_model_of_few_layers_has_all_of_them_on_the_card() {
        let inputs = Inputs::new(0, 256, 1, 2, true);
        assert_eq!((inputs.depth, inputs.host_bytes(), inputs.bytes()), (2, 0, 3 * 256));
    }
}
