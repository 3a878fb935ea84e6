//! What each layer keeps of its forward pass: the choice, from sizes alone, so that equal runs keep the same.
//!
//! Each level up saves operations and costs bytes; the plan climbs where a byte saves most, until the bytes are
//! spent. It knows no device and allocates nothing.

use super::keep::{Keep, Kept};
use super::sizes::LayerSizes;

/// Floating-point operations that a step up to `kept` saves, for sequences whose queries see `keys` keys on average.
fn saves(sizes: &LayerSizes, kept: Kept, tokens: usize, keys: f64) -> f64 {
    let (hidden, query) = (sizes.hidden as f64, sizes.query as f64);
    let a_token = match kept {
        Kept::Input => 0.0,
        Kept::Attention => 2.0 * hidden * query + 4.0 * query * keys,
        Kept::Projections => 2.0 * hidden * (query + 2.0 * sizes.key_value as f64),
        Kept::Experts => sizes.top_k as f64 * 4.0 * hidden * sizes.inner as f64,
    };
    a_token * tokens as f64
}

/// What each layer keeps.
///
/// `bytes` says what a layer keeps beyond its input at each level; `windows` says for each layer how many keys a query
/// sees at most; `longest` is the length of a typical sequence; `free` are the bytes that [`Keep::Auto`] may spend.
pub(crate) fn plan(
    keep: Keep,
    bytes: impl Fn(Kept) -> u64,
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
            let cost = bytes(next) - bytes(kept[layer]);
            if cost > left {
                continue;
            }
            let keys = window.map_or(longest as f64 / 2.0, |window| window.min(longest / 2) as f64);
            let worth = saves(sizes, next, tokens, keys) / cost.max(1) as f64;
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
    use super::super::layout::kept_bytes;
    use super::super::sizes::Plan;
    use super::*;
    use crate::site::Paths;

    /// What a layer of the 20b keeps.
    fn bytes(kept: Kept, tokens: usize) -> u64 {
        kept_bytes(&Plan::new(LayerSizes::OF_20B, tokens, Paths::default(), kept, false))
    }

    fn of_20b(keep: Keep, tokens: usize, longest: usize, free: u64) -> Vec<Kept> {
        plan(keep, |kept| bytes(kept, tokens), &LayerSizes::OF_20B, &windows(), tokens, longest, free)
    }

    fn windows() -> Vec<Option<usize>> {
        (0..24).map(|layer| (layer % 2 == 0).then_some(128)).collect()
    }

    fn spent(kept: &[Kept], tokens: usize) -> u64 {
        kept.iter().map(|kept| bytes(*kept, tokens)).sum()
    }

    #[test]
    fn a_plan_never_spends_more_than_it_may() {
        for tokens in [1, 100, 1024, 16384] {
            for budget in [0, 1 << 20, 1 << 28, 1 << 30, 3 << 30, 40 << 30] {
                let kept = of_20b(Keep::Bytes(budget), tokens, tokens, u64::MAX);
                assert!(spent(&kept, tokens) <= budget, "{tokens} tokens, {budget} bytes: {kept:?}");
            }
        }
    }

    #[test]
    fn more_bytes_never_keep_fewer_bytes() {
        let mut last = 0;
        for budget in (0..60).map(|n| n << 29) {
            let kept = of_20b(Keep::Auto, 16384, 4096, budget);
            let now = spent(&kept, 16384);
            assert!(now >= last, "{budget}: {now} < {last}");
            last = now;
        }
        assert_eq!(of_20b(Keep::Auto, 16384, 4096, u64::MAX), [Kept::Experts; 24]);
    }

    #[test]
    fn attention_over_all_keys_is_kept_before_attention_over_a_window() {
        let one = bytes(Kept::Attention, 16384);
        let kept = of_20b(Keep::Bytes(12 * one), 16384, 4096, 0);
        for (layer, kept) in kept.into_iter().enumerate() {
            let expected = if layer % 2 == 1 { Kept::Attention } else { Kept::Input };
            assert_eq!(kept, expected, "layer {layer}");
        }
    }
}
