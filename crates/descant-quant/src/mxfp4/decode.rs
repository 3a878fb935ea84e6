//! MXFP4 to f32, bit for bit.
//!
//! A byte is looked up as a pair of numbers, so that the inner loop is a load, a multiplication and a store; the
//! products are exact, so the order of operations cannot show. Threads are the caller's.

use super::{BLOCK, BLOCK_BYTES, NAN_SCALE, VALUES, scale};
use crate::error::{Error, Result};

/// Both numbers of every byte, before the scale. 2 KiB, so it stays in the first-level cache.
const PAIRS: [[f32; 2]; 256] = {
    let mut pairs = [[0.0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [VALUES[byte & 15], VALUES[byte >> 4]];
        byte += 1;
    }
    pairs
};

/// Decodes any number of blocks.
///
/// A scale of 255 gives NaN; files are checked with [`validate_scales`] first. Scales above 252 may give
/// infinities, as the format says.
///
/// # Shapes
/// - `scales`: `[n]`; `blocks`: `[n * 16]`; `out`: `[n * 32]`
///
/// # Panics
/// The lengths do not agree.
pub fn decode(blocks: &[u8], scales: &[u8], out: &mut [f32]) {
    assert_eq!(blocks.len(), BLOCK_BYTES * scales.len(), "packed bytes of {} blocks", scales.len());
    assert_eq!(out.len(), BLOCK * scales.len(), "elements of {} blocks", scales.len());
    let (blocks, _) = blocks.as_chunks::<BLOCK_BYTES>();
    let (out, _) = out.as_chunks_mut::<BLOCK>();
    for ((block, &byte), out) in blocks.iter().zip(scales).zip(out) {
        let scale = scale(byte);
        let (pairs, _) = out.as_chunks_mut::<2>();
        for (pair, &byte) in pairs.iter_mut().zip(block) {
            let [even, odd] = PAIRS[usize::from(byte)];
            *pair = [even * scale, odd * scale];
        }
    }
}

/// Refuses the scale that means not a number, by its position.
///
/// # Errors
/// A scale is 255.
pub fn validate_scales(scales: &[u8]) -> Result<()> {
    match scales.iter().position(|&byte| byte == NAN_SCALE) {
        Some(index) => Err(Error::NanScale { index }),
        None => Ok(()),
    }
}
