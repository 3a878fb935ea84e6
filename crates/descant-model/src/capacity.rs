//! How much memory generation takes, from sizes alone: the cache, and what prompts and steps work in. Plans ask here, and
//! so does who makes the cache.

use descant_kernels::{PAGE_TOKENS, STEP_KEYS, step_rows};

use crate::config::Config;

/// Prompt tokens that go through the model at once, and the borders at which longer prompts are cut: a chunk's result must
/// not depend on what else goes through.
pub(crate) const PREFILL_TOKENS: usize = 4096;
/// Bytes of a number on the CPU, and on a card.
const FULL: u64 = 4;
const HALF: u64 = 2;
/// What a card's decoder works in whatever it is asked: the workspace of products, and rows of a step.
const DECODER: u64 = 40 << 20;

/// Pages of a sequence of so many tokens.
pub fn pages_for(tokens: usize) -> usize {
    tokens.div_ceil(PAGE_TOKENS)
}

/// How large a cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSize {
    /// Sequences at once.
    pub slots: usize,
    /// Pages of all of them.
    pub pages: usize,
    /// Sequences that the buffers of a card's step have room for: not fewer than slots.
    pub rows: usize,
}

impl CacheSize {
    /// For so many sequences at once, each of so many tokens at most.
    pub fn of(slots: usize, tokens: usize) -> Self {
        Self { slots, pages: slots.saturating_mul(pages_for(tokens)), rows: step_rows(slots) }
    }

    /// Rows of keys, and of values, in a layer.
    pub(crate) fn rows(&self, config: &Config, layer: usize) -> usize {
        config.window(layer).map_or(self.pages * PAGE_TOKENS, |window| self.slots * window)
    }

    /// Bytes of all layers.
    pub fn bytes(&self, config: &Config, on_card: bool) -> u64 {
        let rows: u64 = (0..config.num_hidden_layers).map(|layer| self.rows(config, layer) as u64).sum();
        rows * 2 * config.key_value_width() as u64 * number(on_card)
    }

    /// Bytes of the cache, and of what prompts and steps work in beside it, adapters not counted.
    pub fn with_work(&self, config: &Config, on_card: bool) -> u64 {
        let tokens = (self.pages * PAGE_TOKENS).min(PREFILL_TOKENS) as u64;
        let rows = if on_card { self.rows } else { self.slots };
        let logits = 2 * rows as u64 * config.vocab_size as u64;
        let work = (tokens * in_work(config) + logits) * number(on_card);
        self.bytes(config, on_card) + work + if on_card { self.decoder(config) } else { 0 }
    }

    /// What a card's decoder works in beside logits and cache: most of it splits of attention, which are put together.
    fn decoder(&self, config: &Config) -> u64 {
        let splits = (self.pages.div_ceil(STEP_KEYS / PAGE_TOKENS) + self.slots) as u64;
        let seen = self.slots as u64 * config.vocab_size.div_ceil(8) as u64;
        DECODER + seen + splits * config.num_attention_heads as u64 * (config.head_dim as u64 + 2) * FULL
    }

    /// The same with as many of its pages as `bytes` hold with its work; `None` where not one page.
    pub(crate) fn within(self, bytes: u64, config: &Config, on_card: bool) -> Option<Self> {
        let fits = |pages: usize| Self { pages, ..self }.with_work(config, on_card) <= bytes;
        if fits(self.pages) {
            return Some(self);
        }
        // The largest that fits: bytes grow with pages.
        let (mut low, mut high) = (0, self.pages);
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if fits(middle) { low = middle } else { high = middle }
        }
        (low > 0).then_some(Self { pages: low, ..self })
    }
}

fn number(on_card: bool) -> u64 {
    if on_card { HALF } else { FULL }
}

/// Numbers a token that a layer holds at once: stream and its norm; of the chosen experts their inputs, both halves of the
/// first product, its activation and their results.
fn in_work(config: &Config) -> u64 {
    let (hidden, top) = (config.hidden_size as u64, config.num_experts_per_tok as u64);
    let inner = top * config.intermediate_size as u64;
    2 * hidden + 2 * top * hidden + 3 * inner
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let path = format!("{}/../../fixtures/configs/gpt-oss-20b.json", env!("CARGO_MANIFEST_DIR"));
        Config::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn a_token_of_the_20b_takes_12_layers_and_a_slot_12_rings() {
        let config = config();
        let bytes = |slots, pages| CacheSize { slots, pages, rows: slots }.bytes(&config, true);
        // 8 key heads of 64, keys and values, bf16.
        assert_eq!(bytes(1, 2) - bytes(1, 1), 12 * 64 * 2 * 512 * 2);
        assert_eq!(bytes(2, 1) - bytes(1, 1), 12 * 128 * 2 * 512 * 2);
        assert_eq!(CacheSize::of(3, 129), CacheSize { slots: 3, pages: 9, rows: 3 });
    }

    #[test]
    fn as_many_pages_as_bytes_hold() {
        let config = config();
        let whole = CacheSize { slots: 8, pages: 1000, rows: 8 };
        let bytes = whole.with_work(&config, true);
        let within = |bytes| whole.within(bytes, &config, true);
        assert_eq!((within(bytes), within(0)), (Some(whole), None));
        let less = within(bytes - 1).unwrap();
        assert!(less.pages < 1000 && less.with_work(&config, true) < bytes);
        let more = CacheSize { pages: less.pages + 1, ..less };
        assert!(more.with_work(&config, true) > bytes - 1, "one more does not fit");
    }
}
