//! The work list of the backward of a window in one pass: strips of positions, each computed by one block.
//!
//! A block takes a strip of one key head. Beyond its strip it computes what a window's keys see and are seen by, so long
//! strips cost less in all, and short ones end sooner where there are few. No bit depends on how strips are cut: the
//! card decides it.

use super::segments::Segments;
use super::tiles::list;
use crate::cuda::geometry::{MAX_WINDOW, STRIP_KEYS};

/// What a strip's ends cost, in positions.
const ENDS: usize = 96;
/// Turns that are tried beyond the fewest.
const TURNS: usize = 4;
/// Whether strips serve such a window. Of a narrower one not all blocks of keys that a block holds are seen, and two
/// passes are faster.
pub(super) fn serve(window: usize) -> bool {
    (MAX_WINDOW - STRIP_KEYS + 1..=MAX_WINDOW).contains(&window)
}

/// Whether one pass over these tokens of each key head is faster than two, for so many blocks. With a smaller part than a
/// window has, more of what a block computes lies beyond its strip's ends than within them; and two passes, too, compute
/// nothing beyond sequences that are shorter than a window.
pub(super) const fn pay([tokens, key_heads]: [usize; 2], sequences: usize, blocks: usize) -> bool {
    tokens * key_heads >= blocks * MAX_WINDOW && tokens > sequences * MAX_WINDOW
}

/// Strips for so many blocks at once.
pub(super) fn of_blocks(segments: &Segments, blocks: usize) -> Vec<i32> {
    let positions = positions(segments, blocks);
    list(segments, |s| (positions, s.key_len, positions), |s, first| positions.min(s.key_len - first))
}

/// Positions of a strip: those with which the last block ends first, where each takes one a turn.
fn positions(segments: &Segments, blocks: usize) -> usize {
    let lengths = || segments.as_slice().iter().map(|s| s.key_len);
    let strips = |keys: usize| lengths().map(|n| n.div_ceil(keys * STRIP_KEYS)).sum::<usize>();
    let most = lengths().max().unwrap_or(0).div_ceil(STRIP_KEYS).max(1);
    let fewest = strips(most).div_ceil(blocks).max(1);
    let of_turns = |turns: usize| {
        // The shortest strips of which there are no more than that.
        let (mut low, mut high) = (1, most);
        while low < high {
            let middle = usize::midpoint(low, high);
            if strips(middle) <= turns * blocks { high = middle } else { low = middle + 1 }
        }
        (turns * (low * STRIP_KEYS + ENDS), low * STRIP_KEYS)
    };
    (fewest..fewest + TURNS).map(of_turns).min().map_or(STRIP_KEYS, |(_, positions)| positions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::attention::tiles::ENTRY;

    #[test]
    fn strips_are_as_long_as_there_are_blocks_for() {
        // A sixteenth of 132 blocks for each of eight key heads, and of 82.
        for (lengths, blocks, expected) in [
            (&[4096; 4][..], 16, 1024),
            (&[4096], 16, 256),
            (&[1024], 16, 64),
            (&[1024; 16], 16, 1024),
            (&[4096; 4], 10, 832),
            (&[1], 16, 32),
            (&[70; 200], 16, 96),
        ] {
            assert_eq!(
                positions(&Segments::from_lengths(lengths), blocks),
                expected,
                "{lengths:?}, {blocks}"
            );
        }
    }

    #[test]
    fn few_tokens_and_short_sequences_make_no_strips() {
        // 132 blocks and eight key heads, as on an H200 with the 20b.
        for (tokens, sequences, expected) in [
            (1, 1, false),
            (1024, 1, false),
            (2111, 1, false),
            (2112, 1, true),
            (2112, 16, true),
            (2112, 17, false),
            (16_384, 64, true),
            (16_384, 128, false),
        ] {
            assert_eq!(pay([tokens, 8], sequences, 132), expected, "{tokens}, {sequences}");
        }
        assert_eq!([96, 97, 128, 129].map(serve), [false, true, true, false]);
    }

    #[test]
    fn strips_cover_every_position_once() {
        let lengths = [50, 1, 700, 129, 33];
        for blocks in [1, 3, 16, 500] {
            let mut covered = vec![0; lengths.iter().sum()];
            let strips = of_blocks(&Segments::from_lengths(&lengths), blocks);
            for strip in strips.chunks_exact(ENTRY) {
                let [start, len, _, _, first, positions] = std::array::from_fn(|i| strip[i] as usize);
                assert_eq!((first % positions, positions % STRIP_KEYS), (0, 0));
                (start + first..start + len.min(first + positions)).for_each(|at| covered[at] += 1);
            }
            assert!(covered.iter().all(|n| *n == 1), "{blocks}");
        }
    }
}
