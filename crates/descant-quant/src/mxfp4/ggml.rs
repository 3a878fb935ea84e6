//! Blocks in GGML's order: the scale in front, and element j beside j + 16.
//!
//! ```text
//! 17 bytes a block    scale, then byte j holds element j in its low and element j + 16 in its high nibble
//! ```
//!
//! The same codes and scales, so nothing is lost either way.

use super::{BLOCK_BYTES, NAN_SCALE};
use crate::error::{Error, Result, check_length};

/// Bytes of a block with its scale.
pub const GGML_BYTES: usize = BLOCK_BYTES + 1;

/// From published blocks and scales.
///
/// # Shapes
/// - `blocks`: `[n * 16]`; `scales`: `[n]`; `out`: `[n * 17]`
///
/// # Errors
/// The lengths do not agree.
pub fn to_ggml(blocks: &[u8], scales: &[u8], out: &mut [u8]) -> Result<()> {
    check_length("blocks", BLOCK_BYTES * scales.len(), blocks.len())?;
    check_length("out", GGML_BYTES * scales.len(), out.len())?;
    let (blocks, _) = blocks.as_chunks::<BLOCK_BYTES>();
    let (out, _) = out.as_chunks_mut::<GGML_BYTES>();
    for ((block, &scale), out) in blocks.iter().zip(scales).zip(out) {
        out[0] = scale;
        for (j, byte) in out[1..].iter_mut().enumerate() {
            *byte = nibble(block, j) | nibble(block, j + BLOCK_BYTES) << 4;
        }
    }
    Ok(())
}

/// To published blocks and scales.
///
/// # Shapes
/// As [`to_ggml`].
///
/// # Errors
/// The lengths do not agree, or a scale is 255.
pub fn from_ggml(bytes: &[u8], blocks: &mut [u8], scales: &mut [u8]) -> Result<()> {
    check_length("blocks", BLOCK_BYTES * scales.len(), blocks.len())?;
    check_length("bytes", GGML_BYTES * scales.len(), bytes.len())?;
    let (bytes, _) = bytes.as_chunks::<GGML_BYTES>();
    if let Some(index) = bytes.iter().position(|bytes| bytes[0] == NAN_SCALE) {
        return Err(Error::NanScale { index });
    }
    let (blocks, _) = blocks.as_chunks_mut::<BLOCK_BYTES>();
    for ((bytes, block), scale) in bytes.iter().zip(blocks).zip(scales) {
        *scale = bytes[0];
        for (j, byte) in block.iter_mut().enumerate() {
            let element = |i: usize| (bytes[1 + i % BLOCK_BYTES] >> (i / BLOCK_BYTES * 4)) & 15;
            *byte = element(2 * j) | element(2 * j + 1) << 4;
        }
    }
    Ok(())
}

/// Element `i` of a published block.
fn nibble(block: &[u8; BLOCK_BYTES], i: usize) -> u8 {
    (block[i / 2] >> (i % 2 * 4)) & 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_is_the_same_and_the_order_is_ggmls() {
        let blocks: Vec<u8> = (0..32).map(|i| (i * 37 + 11) as u8).collect();
        let mut bytes = [0; 2 * GGML_BYTES];
        to_ggml(&blocks, &[7, 200], &mut bytes).unwrap();
        assert_eq!((bytes[0], bytes[GGML_BYTES]), (7, 200));
        // Element 0 is the low nibble of byte 0, element 16 the low nibble of byte 8.
        assert_eq!(bytes[1], blocks[0] & 15 | (blocks[8] & 15) << 4);
        let (mut back, mut scales) = ([0; 32], [0; 2]);
        from_ggml(&bytes, &mut back, &mut scales).unwrap();
        assert_eq!((&back[..], scales), (&blocks[..], [7, 200]));
        bytes[0] = 255;
        assert_eq!(from_ggml(&bytes, &mut back, &mut scales), Err(Error::NanScale { index: 0 }));
        assert!(to_ggml(&blocks, &[1], &mut bytes).is_err());
    }
}
