//! Sizes of the backward of full attention in one pass, which Hopper has: when it runs, and its scratch memory, which
//! is planned on every device.
//!
//! Each tile of keys adds to the gradients of the queries that see it, in f32 and in memory that all share; tiles of
//! so many stacked rows are added to in the order of the keys, whoever is first. Where tokens are many, a few key
//! heads go after each other through the same memory, which is as much as the next product's result needs anyway.

/// Stacked query rows of a tile of sums, and of a step of the kernel.
pub(crate) const SUM_ROWS: usize = 64;
/// Features of a head, and bytes of a number of a sum.
const FEATURES: usize = 64;
const F32: usize = 4;
/// Tokens up to which all key heads go at once, and how many do beyond.
const ALL_HEADS_TOKENS: usize = 16_384;
const LONG_HEADS: usize = 2;
/// Tokens of a sequence, on average over a batch, from which one pass is faster than two.
pub(crate) const LEAST_TOKENS: usize = 4096;

/// Key heads that go at once.
pub(crate) const fn heads_at_once(tokens: usize, key_heads: usize) -> usize {
    if tokens <= ALL_HEADS_TOKENS || key_heads < LONG_HEADS { key_heads } else { LONG_HEADS }
}

/// Tiles of sums whose order is counted together, as a power of two: the more, the fewer waits for what was added, and
/// the further apart the blocks that go over the same queries. No bit depends on it.
#[cfg(feature = "cuda")]
pub(crate) const fn run(tokens: usize, sequences: usize) -> usize {
    if tokens < 2 * LEAST_TOKENS * sequences { 1 } else { 2 }
}

/// Tiles of sums of a key head. The last of a sequence may be a part of one, so there is one more for each.
pub(crate) const fn tiles(tokens: usize, group: usize) -> usize {
    tokens / (SUM_ROWS / group) + tokens / LEAST_TOKENS + 1
}

/// Bytes of the sums.
pub(crate) const fn sum_bytes(tokens: usize, group: usize, key_heads: usize) -> usize {
    heads_at_once(tokens, key_heads) * tiles(tokens, group) * SUM_ROWS * FEATURES * F32
}

/// Bytes of what counts: the next piece of work, and whose turn it is at each tile.
pub(crate) const fn turn_bytes(tokens: usize, group: usize, key_heads: usize) -> usize {
    (1 + heads_at_once(tokens, key_heads) * tiles(tokens, group)) * size_of::<u32>()
}

/// Bytes of scratch memory in all; none where heads have another width, which have other kernels.
pub(crate) const fn scratch_bytes(tokens: usize, group: usize, key_heads: usize, head_dim: usize) -> usize {
    if head_dim != FEATURES || group == 0 || group > SUM_ROWS {
        return 0;
    }
    sum_bytes(tokens, group, key_heads) + turn_bytes(tokens, group, key_heads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_of_every_sequence_has_a_place_of_its_own() {
        for group in [1, 3, 8, 64] {
            let positions = SUM_ROWS / group;
            for lengths in [vec![LEAST_TOKENS], vec![2 * LEAST_TOKENS - 1, 1], vec![5000, 4097, 9999, 1]] {
                let tokens: usize = lengths.iter().sum();
                assert!(lengths.len() * LEAST_TOKENS <= tokens);
                let (mut start, mut free) = (0, 0);
                for (index, length) in lengths.iter().enumerate() {
                    // As the kernel places them.
                    let first = start / positions + index;
                    assert!(first >= free, "group {group}, {lengths:?}");
                    free = first + length.div_ceil(positions);
                    start += length;
                }
                assert!(free <= tiles(tokens, group), "group {group}, {lengths:?}");
            }
        }
    }

    #[test]
    fn long_sequences_need_no_more_memory_than_the_product_that_follows() {
        for tokens in [16_385, 131_072] {
            assert!(scratch_bytes(tokens, 8, 8, 64) <= tokens * 2880 * 2, "{tokens}");
        }
        assert_eq!(scratch_bytes(131_072, 8, 8, 32), 0);
    }
}
