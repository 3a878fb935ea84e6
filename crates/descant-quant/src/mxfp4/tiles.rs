//! MXFP4 in the order in which the kernels of a GPU read it: the same bytes, in tiles of 16 rows and 16 columns.
//!
//! ```text
//! blocks  [rows / 16, columns / 16, 8, 8]  u16 (x, y) of a tile holds four nibbles, at these bits:
//!           row x,     column y        sign 15, magnitude 8..6
//!           row x + 8, column y        sign 12, magnitude 5..3
//!           row x,     column y + 8    sign 14, magnitude 2..0
//!           row x + 8, column y + 8    sign 13, magnitude 11..9
//! scales  [rows / 16, columns / 32, 4, 4]  byte (q, i) holds s + 126 of row 2q, 2q + 1, 2q + 8, 2q + 9 for i = 0..4
//! ```
//!
//! Why: one `ldmatrix` (or, transposed, `ldmatrix.trans`) of a tile gives a thread the numbers of its `mma` fragment, and
//! a mask and at most two shifts put a magnitude where bf16 has the same number times 2^-126 and the sign where bf16 has
//! it. A scale is the exponent field of the bf16 that such a number is multiplied with.
//!
//! Rows of several matrices follow each other, so a tile never spans two of them.

use super::{BLOCK, BLOCK_BYTES};

/// Rows of a tile.
pub const ROWS: usize = 16;
/// Columns of a tile.
pub const COLUMNS: usize = 16;
/// Bytes of a tile.
pub const BYTES: usize = ROWS * COLUMNS / 2;
/// Bytes of the scales of 16 rows and a block of columns.
pub const SCALE_BYTES: usize = ROWS;
/// The largest scale that a bf16 factor can express.
pub const LARGEST_SCALE: u8 = 128;

/// Added to a scale: the exponent field of its factor, 2^(s - 127) times 2^126.
const SCALE_BIAS: u8 = 126;
/// Half of a tile's rows, and of its columns.
const HALF: usize = ROWS / 2;
/// The rows whose scales a word has, less 2q.
const WORD: [usize; 4] = [0, 1, HALF, HALF + 1];
/// Where the nibbles of a u16 lie: left shifts of magnitude and sign, the sign counted from the nibble's bit 3.
const PLACES: [(u32, u32); 4] = [(6, 12), (3, 9), (0, 11), (9, 10)];

/// Whether there is an order of tiles for matrices of so many rows and columns.
pub fn divide(rows: usize, columns: usize) -> bool {
    rows.is_multiple_of(ROWS) && columns.is_multiple_of(BLOCK)
}

/// The first scale that is too large for the factors of tiles.
pub fn too_large(scales: &[u8]) -> Option<usize> {
    scales.iter().position(|&scale| scale > LARGEST_SCALE)
}

/// Writes bytes `first..` of the tiles of published `blocks`, as many as fill `out`. `first` is any place: callers
/// divide the work as they like.
///
/// # Panics
/// The blocks are not whole rows of `columns` numbers in bands of 16, or `out` reaches beyond their end.
pub fn write_blocks(blocks: &[u8], columns: usize, first: usize, out: &mut [u8]) {
    assert!(divide(blocks.len() * 2 / columns, columns), "whole tiles");
    let across = columns / COLUMNS;
    in_pieces(first, out, |tile, out: &mut [u8; BYTES]| {
        let (band, column) = (tile / across, tile % across * (COLUMNS / 2));
        for (x, line) in out.chunks_exact_mut(2 * HALF).enumerate() {
            let row = |row: usize| {
                let at = (band * ROWS + row) * (columns / 2) + column;
                u64::from_le_bytes(blocks[at..at + COLUMNS / 2].try_into().expect("eight bytes"))
            };
            let (upper, lower) = (row(x), row(x + HALF));
            let byte = |of: u64, i: usize| (of >> (8 * i) & 0xff) as usize;
            for (i, pair) in line.chunks_exact_mut(4).enumerate() {
                let right = i + HALF / 2;
                let word = PAIRS[0][byte(upper, i)]
                    | PAIRS[1][byte(lower, i)]
                    | PAIRS[2][byte(upper, right)]
                    | PAIRS[3][byte(lower, right)];
                pair.copy_from_slice(&word.to_le_bytes());
            }
        }
    });
}

/// The same for the scales; see [`too_large`].
///
/// # Panics
/// As [`write_blocks`]; a scale is too large.
pub fn write_scales(scales: &[u8], columns: usize, first: usize, out: &mut [u8]) {
    let across = columns / BLOCK;
    assert!(divide(scales.len() / across, columns), "whole tiles");
    in_pieces(first, out, |piece, out: &mut [u8; SCALE_BYTES]| {
        let (band, block) = (piece / across, piece % across);
        for (q, word) in out.chunks_exact_mut(WORD.len()).enumerate() {
            for (byte, row) in word.iter_mut().zip(WORD) {
                let scale = scales[(band * ROWS + 2 * q + row) * across + block];
                assert!(scale <= LARGEST_SCALE, "a scale that was to be looked at before");
                *byte = scale + SCALE_BIAS;
            }
        }
    });
}

/// The published blocks and scales of tiles.
///
/// # Panics
/// They are not whole tiles of rows of `columns` numbers.
pub fn read(tiles: &[u8], scales: &[u8], columns: usize) -> (Vec<u8>, Vec<u8>) {
    let across = columns / COLUMNS;
    assert!(
        divide(tiles.len() * 2 / columns, columns) && scales.len() * BLOCK_BYTES == tiles.len(),
        "whole tiles"
    );
    let mut blocks = vec![0; tiles.len()];
    for (tile, bytes) in tiles.chunks_exact(BYTES).enumerate() {
        let (band, column) = (tile / across, tile % across * COLUMNS);
        for (at, four) in bytes.chunks_exact(2).enumerate() {
            let (four, x, y) = (u32::from(u16::from_le_bytes([four[0], four[1]])), at / HALF, at % HALF);
            for (n, (magnitude, sign)) in PLACES.into_iter().enumerate() {
                let (row, column) = (band * ROWS + x + n % 2 * HALF, column + y + n / 2 * HALF);
                let nibble = (four >> magnitude & 7) | (four >> sign & 8);
                blocks[row * (columns / 2) + column / 2] |= (nibble << (column % 2 * 4)) as u8;
            }
        }
    }
    let across = columns / BLOCK;
    let mut published = vec![0; scales.len()];
    for (piece, bytes) in scales.chunks_exact(SCALE_BYTES).enumerate() {
        let (band, block) = (piece / across, piece % across);
        for (at, scale) in bytes.iter().enumerate() {
            let row = band * ROWS + 2 * (at / WORD.len()) + WORD[at % WORD.len()];
            published[row * across + block] = scale.wrapping_sub(SCALE_BIAS);
        }
    }
    (blocks, published)
}

/// What the two nibbles of a byte become at each place: two u16, the low nibble's first. A table is faster than shifts.
static PAIRS: [[u32; 256]; 4] = pairs();

const fn pairs() -> [[u32; 256]; 4] {
    let mut pairs = [[0; 256]; 4];
    let mut place = 0;
    while place < PLACES.len() {
        let (magnitude, sign) = PLACES[place];
        let mut byte = 0;
        while byte < 256 {
            let nibbles = (byte as u32 & 15) | (byte as u32 >> 4) << 16;
            pairs[place][byte] = (nibbles & 0x0007_0007) << magnitude | (nibbles & 0x0008_0008) << sign;
            byte += 1;
        }
        place += 1;
    }
    pairs
}

/// Fills `out` with bytes `first..` of pieces of `N` bytes, which `make` makes whole.
fn in_pieces<const N: usize>(first: usize, mut out: &mut [u8], make: impl Fn(usize, &mut [u8; N])) {
    let mut piece = first / N;
    let mut skipped = first % N;
    while !out.is_empty() {
        let length = (N - skipped).min(out.len());
        let (here, rest) = std::mem::take(&mut out).split_at_mut(length);
        if let Ok(whole) = <&mut [u8; N]>::try_from(&mut *here) {
            make(piece, whole);
        } else {
            let mut whole = [0; N];
            make(piece, &mut whole);
            here.copy_from_slice(&whole[skipped..][..length]);
        }
        (out, piece, skipped) = (rest, piece + 1, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Published blocks and scales of so many rows and columns.
    fn published(rows: usize, columns: usize, seed: u64) -> (Vec<u8>, Vec<u8>) {
        let mut state = seed;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        let blocks = (0..rows * columns / 2).map(|_| byte()).collect();
        let scales = (0..rows * columns / BLOCK).map(|_| byte() % (LARGEST_SCALE + 1)).collect();
        (blocks, scales)
    }

    fn tiled(blocks: &[u8], scales: &[u8], columns: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut tiles, mut of_tiles) = (vec![0; blocks.len()], vec![0; scales.len()]);
        write_blocks(blocks, columns, 0, &mut tiles);
        write_scales(scales, columns, 0, &mut of_tiles);
        (tiles, of_tiles)
    }

    proptest! {
        #[test]
        fn tiles_read_back_are_what_was_published(bands in 1usize..4, blocks in 1usize..5, seed: u64) {
            let (rows, columns) = (bands * ROWS, blocks * BLOCK);
            let (blocks, scales) = published(rows, columns, seed);
            let (tiles, of_tiles) = tiled(&blocks, &scales, columns);
            prop_assert_eq!(read(&tiles, &of_tiles, columns), (blocks, scales));
        }

        #[test]
        fn any_piece_of_tiles_is_that_of_the_whole(first in 0usize..700, length in 0usize..300, seed: u64) {
            let (blocks, scales) = published(32, 64, seed);
            let (tiles, of_tiles) = tiled(&blocks, &scales, 64);
            let mut piece = vec![0; length];
            write_blocks(&blocks, 64, first, &mut piece);
            prop_assert_eq!(&piece, &tiles[first..][..length]);
            let (first, length) = (first % of_tiles.len(), length % 8);
            let length = length.min(of_tiles.len() - first);
            let mut piece = vec![0; length];
            write_scales(&scales, 64, first, &mut piece);
            prop_assert_eq!(&piece, &of_tiles[first..][..length]);
        }
    }

    #[test]
    fn a_nibble_and_a_scale_lie_where_the_kernels_look() {
        // Row 9, column 3 of the second tile of a band; its nibble is -3.
        let columns = 32;
        let mut blocks = vec![0; ROWS * columns / 2];
        blocks[9 * columns / 2 + 9] = 0xd0;
        let mut scales = vec![100; ROWS];
        scales[9] = 128;
        let (tiles, of_tiles) = tiled(&blocks, &scales, columns);
        let at = BYTES + (8 + 3) * 2;
        let expected = 0b101 << 3 | 1 << 12;
        assert_eq!(u16::from_le_bytes([tiles[at], tiles[at + 1]]), expected);
        assert_eq!(tiles.iter().filter(|byte| **byte != 0).count(), 2);
        // Rows 0, 1, 8, 9 are in the first word.
        assert_eq!(of_tiles[3], 254);
        assert!(of_tiles.iter().enumerate().all(|(at, byte)| at == 3 || *byte == 226));
    }

    #[test]
    fn a_large_scale_is_found() {
        assert_eq!(too_large(&[0, 127, 128]), None);
        assert_eq!(too_large(&[0, 129, 200]), Some(1));
    }
}
