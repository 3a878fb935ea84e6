//! How many bytes of a card the layers work in, and what they keep, before any of it is asked for.
//!
//! The arena lays out what is found here, and a plan of a run asks the same before there is a card. Sizes alone decide.

use std::sync::Arc;

use super::inputs::Inputs;
use super::keep::{Keep, Kept};
use super::layout::{Layout, kept_bytes};
use super::plan::plan;
use super::settings::Claim;
use super::sizes::{Chunks, LayerSizes, Plan};
use super::table::WORKSPACE;
use crate::op::experts::ExpertForm;
use crate::site::{Paths, PerSite};

/// Memory that is left free for what is not planned: the driver's own growth, kernels, small tensors, pages that burn's
/// pool takes within a step. With 192 MiB runs that kept all they may were 9 and 48 MB above their limits for a moment.
const MARGIN: u64 = 256 << 20;
/// Scratch that there is at least, so that lm_head between the layers has room for some rows of logits.
const LEAST_SCRATCH: u64 = 144 << 20;
/// Logits that exist at once, at most: 1,152 rows of the published vocabulary, with which products are as fast as with
/// 4,096 (51.5 and 52.3 ms for 16,384 rows, there and back, on an H200).
const MOST_LOGITS: usize = 480 << 20;
/// Copies of the residual stream that burn holds at most at once beside the layers' inputs: the embedding, the last
/// norm, the rows that are trained, their gradients. One sequence of 131,072 tokens took 2.28 GiB less than with 7,
/// which are 3.2 copies (H200).
const STREAM_COPIES: u64 = 4;
/// Where batches grow, memory is laid out again for one that is longer by this part, so that it is not done for every
/// few tokens more: it waits for the card.
#[cfg(any(feature = "cuda", test))]
const ROOM: usize = 8;

/// What a pass needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) sizes: LayerSizes,
    pub(crate) paths: Paths,
    pub(crate) tokens: usize,
    /// See [`Plan::in_order`].
    pub(crate) in_order: bool,
    /// Tokens of the longest sequence.
    pub(crate) longest: usize,
    /// Of all layers.
    pub(crate) windows: Arc<[Option<usize>]>,
    /// How many of the tokens go through experts at once, where the pairs allow it.
    pub(crate) chunks: Chunks,
    /// See [`Plan::experts`].
    pub(crate) experts: ExpertForm,
}

impl Need {
    pub(crate) fn plan(&self, kept: Kept) -> Plan {
        let plan = Plan::new(self.sizes, self.tokens, self.paths, kept, self.in_order);
        plan.within(self.chunks_of_pairs()).with(self.experts)
    }

    /// Those that are taken.
    pub(crate) fn chunks_of_pairs(&self) -> Chunks {
        self.chunks.allowed(&self.paths)
    }

    /// How many tokens to lay memory out for: those that are needed or were announced, and some more where fewer were
    /// enough `before`.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn tokens_with_room(&self, announced: usize, before: Option<&Self>) -> usize {
        let grows = before.is_some_and(|old| old.sizes == self.sizes && old.tokens < self.tokens);
        let tokens = if grows { self.tokens + self.tokens / ROOM } else { self.tokens };
        if announced >= self.tokens { announced } else { tokens }
    }

    /// Bytes that layers work in, whatever they keep, and for fewer tokens too: some of those go in longer chunks.
    fn scratch_bytes(&self) -> u64 {
        let logits = room_for_logits(&self.sizes, self.tokens, self.in_order);
        self.layers_scratch_bytes().max((WORKSPACE + logits) as u64)
    }

    /// The same without logits.
    fn layers_scratch_bytes(&self) -> u64 {
        let chunk = self.tokens.min(self.sizes.largest_chunk(self.chunks_of_pairs()));
        Kept::ALL
            .into_iter()
            .map(|kept| Layout::new(&Plan { chunk, ..self.plan(kept) }).scratch_bytes)
            .max()
            .expect("there are kinds of keeping")
            .max(LEAST_SCRATCH)
    }
}

/// Bytes that the logits of a batch of so many tokens may take at once: what its layers work in is free between them,
/// but for the workspace of products, up to a most. Sizes alone decide, never what an earlier batch left behind, nor in
/// which chunks or numbers layers take a batch: rows that are multiplied together decide in which order sums are made.
pub(crate) fn room_for_logits(sizes: &LayerSizes, tokens: usize, in_order: bool) -> usize {
    let (paths, windows, chunks) = (Paths::default(), Arc::from([]), Chunks::Long);
    let experts = ExpertForm::Bf16;
    let need = Need { sizes: *sizes, paths, tokens, in_order, longest: tokens, windows, chunks, experts };
    (need.layers_scratch_bytes() as usize - WORKSPACE).min(MOST_LOGITS)
}

/// Bytes of the residual stream of one batch.
fn stream_bytes(need: &Need) -> u64 {
    (need.tokens * need.sizes.hidden * 2) as u64
}

/// Where everything is in one piece of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Budget {
    /// What layers use in turn, at the beginning.
    pub(crate) scratch_bytes: u64,
    /// The inputs of all layers and what comes out of the last, behind it.
    pub(crate) inputs: Inputs,
    /// What each layer keeps.
    pub(crate) kept: Vec<Kept>,
    /// Where each layer's slot begins.
    pub(crate) slots: Vec<u64>,
    /// In all.
    pub(crate) bytes: u64,
    /// Copies of the residual stream, which lie elsewhere.
    pub(crate) stream_bytes: u64,
}

impl Budget {
    /// Lays out what `need` says; of `free` bytes, which others that come later do not want, as much is kept as
    /// `keep` lets, and nothing but inputs where several batches go through a layer `together`. Inputs that wait for
    /// the backward may lie on the host.
    pub(crate) fn new(need: &Need, keep: Keep, together: usize, inputs_on_host: bool, free: u64) -> Self {
        let scratch_bytes = need.scratch_bytes();
        let layers = need.windows.len();
        let inputs = Inputs::new(scratch_bytes, stream_bytes(need), together, layers, inputs_on_host);
        let input_bytes = inputs.bytes();
        let in_a_graph = if together == 0 { need.windows.len() as u64 } else { 0 };
        let stream_bytes = (in_a_graph + STREAM_COPIES) * stream_bytes(need);
        let keep = if together > 1 { Keep::Minimal } else { keep };
        let left = free.saturating_sub(scratch_bytes + input_bytes + stream_bytes + MARGIN);
        let of_layer = |kept| kept_bytes(&need.plan(kept));
        let kept = plan(keep, of_layer, &need.sizes, &need.windows, need.tokens, need.longest, left);
        let mut slots = Vec::with_capacity(kept.len());
        let mut bytes = scratch_bytes + input_bytes;
        for kept in &kept {
            slots.push(bytes);
            bytes += of_layer(*kept);
        }
        Self { scratch_bytes, inputs, kept, slots, bytes, stream_bytes }
    }
}

/// What the layers of a model take on a card, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerMemory {
    /// What they work in, one after the other.
    pub scratch: u64,
    /// What they keep from forward to backward.
    pub kept: u64,
    /// The residual stream between them, of every layer, and copies of it.
    pub streams: u64,
    /// Of the residual stream, what lies on the host.
    pub on_host: u64,
}

/// Layers, and what goes through them, as far as memory on a card depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerLoad {
    /// Sizes of a layer.
    pub sizes: LayerSizes,
    /// How many keys a query sees at most, for each layer.
    pub windows: Vec<Option<usize>>,
    /// Ranks of the adapters; 0 for none.
    pub ranks: PerSite<usize>,
    /// Batches of so many tokens, and how they go through.
    pub claim: Claim,
    /// Tokens of a typical sequence.
    pub longest: usize,
    /// Whether experts are packed and the card's kernels want their rows in order, as Hopper's do.
    pub in_order: bool,
}

impl LayerLoad {
    /// What the layers will take where `free` bytes are left for them beside all that is there and will come.
    pub fn memory(&self, keep: Keep, free: u64) -> LayerMemory {
        let Claim { tokens, together, inputs_on_host, chunks, experts, .. } = self.claim;
        let need = Need {
            sizes: self.sizes,
            paths: Paths::new(&self.ranks),
            tokens,
            in_order: self.in_order,
            longest: self.longest,
            windows: self.windows.as_slice().into(),
            chunks,
            experts,
        };
        let budget = Budget::new(&need, keep, together, inputs_on_host, free);
        let inputs = budget.inputs.bytes();
        LayerMemory {
            scratch: budget.scratch_bytes,
            kept: budget.bytes - budget.scratch_bytes - inputs,
            streams: budget.stream_bytes + inputs,
            on_host: budget.inputs.host_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The 20b with adapters of this rank at every site, and one batch of one sequence.
    fn of_20b(rank: usize, tokens: usize) -> LayerLoad {
        LayerLoad {
            sizes: LayerSizes::OF_20B,
            windows: vec![None; 24],
            ranks: PerSite::from_fn(|_| rank),
            claim: Claim { tokens, together: 1, ..Claim::default() },
            longest: tokens,
            in_order: true,
        }
    }

    #[test]
    fn the_room_for_logits_comes_from_sizes_and_lies_in_the_scratch_of_every_plan() {
        let sizes = LayerSizes::OF_20B;
        for tokens in [1, 100, 1024, 4096, 16_384] {
            for in_order in [false, true] {
                let room = room_for_logits(&sizes, tokens, in_order) as u64;
                let load = LayerLoad { in_order, ..of_20b(32, tokens) };
                for keep in [Keep::Minimal, Keep::All] {
                    assert!(
                        room + WORKSPACE as u64 <= load.memory(keep, 0).scratch,
                        "{tokens} {in_order} {keep}"
                    );
                }
            }
        }
        // 1152 rows of the 20b's vocabulary, as a process had it that asked no prompts first, and no more for more tokens.
        for tokens in [4096, 16_384, 131_072] {
            assert_eq!(room_for_logits(&sizes, tokens, true) / (2 * 201_088) / 128, 9, "{tokens}");
        }
    }

    #[test]
    fn what_is_kept_of_pairs_is_within_what_may_be_kept() {
        let of = |rank, free| {
            let load = LayerLoad { longest: 4096, ..of_20b(rank, 16_384) };
            load.memory(Keep::Auto, free)
        };
        let (none, all) = (of(0, u64::MAX), of(64, u64::MAX));
        // Factors and low-rank rows of pairs at every site, which are kept with everything else.
        assert!(all.kept > none.kept + MARGIN, "{all:?} {none:?}");
        for rank in [0, 8, 64] {
            for free in (10..60).map(|gib| gib << 30) {
                let LayerMemory { scratch, kept, streams, .. } = of(rank, free);
                assert!(kept == 0 || scratch + kept + streams + MARGIN <= free, "rank {rank}, {free}");
            }
        }
    }

    #[test]
    fn short_chunks_take_less_and_change_neither_the_room_for_logits_nor_what_pairs_at_experts_get() {
        let of = |tokens, rank, chunks| {
            let mut load = of_20b(rank, tokens);
            load.claim.chunks = chunks;
            load.memory(Keep::Minimal, 0).scratch
        };
        // Two layers' experts of the 20b are 0.85e9 bytes.
        let saved = of(16_384, 0, Chunks::Long) - of(16_384, 0, Chunks::Short);
        assert!((700_000_000..900_000_000).contains(&saved), "{saved}");
        assert_eq!(of(8192, 0, Chunks::Long), of(8192, 0, Chunks::Short));
        assert_eq!(of(16_384, 8, Chunks::Long), of(16_384, 8, Chunks::Short));
        for tokens in [9000, 16_384, 32_768] {
            let room = room_for_logits(&LayerSizes::OF_20B, tokens, true) + WORKSPACE;
            assert!(room as u64 <= of(tokens, 0, Chunks::Short), "{tokens}");
        }
    }

    #[test]
    fn a_batch_that_grows_gets_room_and_one_that_was_announced_gets_that() {
        let sizes = LayerSizes::OF_20B;
        let (paths, windows, chunks) = (Paths::default(), Arc::from([]), Chunks::Long);
        let experts = ExpertForm::Bf16;
        let need = Need { sizes, paths, tokens: 0, longest: 9, in_order: false, windows, chunks, experts };
        let of = |tokens| Need { tokens, ..need.clone() };
        assert_eq!(of(800).tokens_with_room(0, None), 800);
        assert_eq!(of(800).tokens_with_room(0, Some(&of(790))), 900);
        assert_eq!(of(800).tokens_with_room(0, Some(&of(801))), 800, "other paths, no growth");
        let other = Need { sizes: LayerSizes { hidden: 96, ..sizes }, ..of(10) };
        assert_eq!(of(800).tokens_with_room(0, Some(&other)), 800, "another model");
        assert_eq!(of(800).tokens_with_room(850, Some(&of(790))), 850, "the longest of a run is known");
        assert_eq!(of(860).tokens_with_room(850, Some(&of(850))), 967, "longer than what was announced");
    }
}
