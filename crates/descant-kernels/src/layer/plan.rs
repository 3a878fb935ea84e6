//! What a layer keeps of its forward pass for its backward pass, and which layers keep how much.
//!
//! Everything that is not kept is computed again from the layer's input. Each step up saves operations and costs
//! bytes; the plan climbs where a byte saves most, until the bytes are spent. It depends on sizes alone, so that
//! equal runs keep the same. It knows no device and allocates nothing.

use std::fmt;
use std::str::FromStr;

/// What a layer keeps, from nothing but its input to everything that a product made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// The input alone.
    Input,
    /// Also attention's result and the residual stream after it: attention and its output product are not run again.
    Attention,
    /// Also queries, keys and values.
    Projections,
    /// Also the experts' first product and the routing: no product is run again.
    Experts,
}

impl Kept {
    /// In order of what is kept.
    pub const ALL: [Self; 4] = [Self::Input, Self::Attention, Self::Projections, Self::Experts];

    fn next(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }
}

/// How much all layers together may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// As much as the device's free memory holds.
    #[default]
    Auto,
    /// Inputs alone.
    Minimal,
    /// Attention in every layer.
    Balanced,
    /// Everything.
    All,
    /// This many bytes beyond the inputs.
    Bytes(u64),
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "minimal" => Ok(Self::Minimal),
            "balanced" => Ok(Self::Balanced),
            "all" => Ok(Self::All),
            bytes => bytes.parse().map(Self::Bytes).map_err(|_| {
                format!("`{bytes}` is none of auto, minimal, balanced, all, or a number of bytes")
            }),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Minimal => f.write_str("minimal"),
            Self::Balanced => f.write_str("balanced"),
            Self::All => f.write_str("all"),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

/// The sizes of a layer that decide bytes and operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSizes {
    /// Features of the residual stream.
    pub hidden: usize,
    /// Query heads times head_dim.
    pub query: usize,
    /// Key heads times head_dim.
    pub key_value: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Experts.
    pub n_experts: usize,
    /// Experts a token goes to.
    pub top_k: usize,
    /// Features between an expert's products.
    pub inner: usize,
}

/// Bytes of a bf16.
const HALF: u64 = 2;
/// Bytes of an f32 or i32.
const FULL: u64 = 4;

impl LayerSizes {
    /// Bytes that a step up to `kept` adds for `tokens`.
    fn step_bytes(&self, kept: Kept, tokens: u64) -> u64 {
        let wide = |n: usize| n as u64;
        match kept {
            Kept::Input => 0,
            Kept::Attention => {
                tokens * (HALF * (wide(self.hidden) + wide(self.query)) + FULL * wide(self.n_heads))
            }
            Kept::Projections => tokens * HALF * (wide(self.query) + 2 * wide(self.key_value)),
            Kept::Experts => {
                let pairs = tokens * wide(self.top_k);
                pairs * (HALF * 2 * wide(self.inner) + 4 * FULL) + FULL * (wide(self.n_experts) + 1)
            }
        }
    }

    /// Bytes that a layer keeps beyond its input. Each buffer is rounded up where it is laid out; see
    /// [`Self::kept_bound`].
    pub fn kept_bytes(&self, kept: Kept, tokens: usize) -> u64 {
        Kept::ALL.iter().filter(|step| **step <= kept).map(|step| self.step_bytes(*step, tokens as u64)).sum()
    }

    /// Upper bound of the laid out bytes: at most ten buffers, each rounded up.
    pub fn kept_bound(&self, kept: Kept, tokens: usize) -> u64 {
        match kept {
            Kept::Input => 0,
            _ => self.kept_bytes(kept, tokens) + 10 * ALIGNMENT,
        }
    }

    /// Floating-point operations that a step up to `kept` saves, for sequences whose queries see `keys` keys on
    /// average.
    fn step_saves(&self, kept: Kept, tokens: u64, keys: f64) -> f64 {
        let (hidden, query) = (self.hidden as f64, self.query as f64);
        let a_token = match kept {
            Kept::Input => 0.0,
            Kept::Attention => 2.0 * hidden * query + 4.0 * query * keys,
            Kept::Projections => 2.0 * hidden * (query + 2.0 * self.key_value as f64),
            Kept::Experts => self.top_k as f64 * 4.0 * hidden * self.inner as f64,
        };
        a_token * tokens as f64
    }
}

/// Where buffers begin.
pub(crate) const ALIGNMENT: u64 = 256;

/// What each layer keeps.
///
/// `windows` says for each layer how many keys a query sees at most; `longest` is the length of a typical sequence;
/// `free` are the bytes that [`Keep::Auto`] may spend.
pub fn plan(
    keep: Keep,
    sizes: &LayerSizes,
    windows: &[Option<usize>],
    tokens: usize,
    longest: usize,
    free: u64,
) -> Vec<Kept> {
    let budget = match keep {
        Keep::Minimal => return vec![Kept::Input; windows.len()],
        Keep::Balanced => return vec![Kept::Attention; windows.len()],
        Keep::All => return vec![Kept::Experts; windows.len()],
        Keep::Auto => free,
        Keep::Bytes(bytes) => bytes,
    };
    let mut kept = vec![Kept::Input; windows.len()];
    let mut left = budget;
    loop {
        let mut best: Option<(f64, usize, Kept, u64)> = None;
        for (layer, window) in windows.iter().enumerate() {
            let Some(next) = kept[layer].next() else { continue };
            let cost = sizes.kept_bound(next, tokens) - sizes.kept_bound(kept[layer], tokens);
            if cost > left {
                continue;
            }
            let keys = window.map_or(longest as f64 / 2.0, |window| window.min(longest / 2) as f64);
            let worth = sizes.step_saves(next, tokens as u64, keys) / cost.max(1) as f64;
            if best.is_none_or(|(most, ..)| worth > most) {
                best = Some((worth, layer, next, cost));
            }
        }
        let Some((_, layer, next, cost)) = best else { return kept };
        kept[layer] = next;
        left -= cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES_20B: LayerSizes = LayerSizes {
        hidden: 2880,
        query: 4096,
        key_value: 512,
        n_heads: 64,
        n_experts: 32,
        top_k: 4,
        inner: 2880,
    };

    fn windows() -> Vec<Option<usize>> {
        (0..24).map(|layer| (layer % 2 == 0).then_some(128)).collect()
    }

    fn spent(kept: &[Kept], tokens: usize) -> u64 {
        kept.iter().map(|kept| SIZES_20B.kept_bound(*kept, tokens)).sum()
    }

    #[test]
    fn a_plan_never_spends_more_than_it_may() {
        for tokens in [1, 100, 1024, 16384] {
            for budget in [0, 1 << 20, 1 << 28, 1 << 30, 3 << 30, 40 << 30] {
                let kept = plan(Keep::Bytes(budget), &SIZES_20B, &windows(), tokens, tokens, u64::MAX);
                assert!(spent(&kept, tokens) <= budget, "{tokens} tokens, {budget} bytes: {kept:?}");
            }
        }
    }

    #[test]
    fn more_bytes_never_keep_fewer_bytes() {
        let mut last = 0;
        for budget in (0..60).map(|n| n << 29) {
            let kept = plan(Keep::Auto, &SIZES_20B, &windows(), 16384, 4096, budget);
            let now = spent(&kept, 16384);
            assert!(now >= last, "{budget}: {now} < {last}");
            last = now;
        }
        assert_eq!(plan(Keep::Auto, &SIZES_20B, &windows(), 16384, 4096, u64::MAX), [Kept::Experts; 24]);
    }

    #[test]
    fn attention_over_all_keys_is_kept_before_attention_over_a_window() {
        let one = SIZES_20B.kept_bound(Kept::Attention, 16384);
        let kept = plan(Keep::Bytes(12 * one), &SIZES_20B, &windows(), 16384, 4096, 0);
        for (layer, kept) in kept.into_iter().enumerate() {
            let expected = if layer % 2 == 1 { Kept::Attention } else { Kept::Input };
            assert_eq!(kept, expected, "layer {layer}");
        }
    }

    #[test]
    fn policies_are_read_as_they_are_written() {
        for text in ["auto", "minimal", "balanced", "all", "1073741824"] {
            assert_eq!(text.parse::<Keep>().unwrap().to_string(), text);
        }
        assert!("most".parse::<Keep>().unwrap_err().contains("`most`"));
    }
}
