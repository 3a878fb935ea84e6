//! MXFP4 as gpt-oss is published in: blocks of 32 four-bit floats that share a power of two.
//!
//! ```text
//! scales  [n]       one byte s a block, meaning 2^(s - 127); 255 is not a number
//! blocks  [n, 16]   byte j holds element 2j in its low and element 2j + 1 in its high nibble
//! nibble            sign, two exponent bits, one mantissa bit: 0 .5 1 1.5 2 3 4 6, then the negatives
//! value             nibble's number * 2^(s - 127)
//! ```
//!
//! This is the nibble order of the published safetensors; GGML's is in `ggml.rs`.

mod decode;
mod encode;
mod feedback;
mod ggml;
mod reference;
pub mod tiles;

pub use decode::{decode, validate_scales};
pub use encode::{best_scale, encode};
pub use feedback::{Basis, Rounding, round_rows};
pub use ggml::{GGML_BYTES, from_ggml, to_ggml};
pub use reference::{LEAST_REFERENCE, REACH, reference};

/// Elements that share a scale.
pub const BLOCK: usize = 32;
/// Packed bytes of a block.
pub const BLOCK_BYTES: usize = BLOCK / 2;

/// The numbers of the sixteen codes.
const VALUES: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
/// Added to the exponent of a scale.
const BIAS: i32 = 127;
/// The scale that means not a number.
const NAN_SCALE: u8 = u8::MAX;

/// What a scale byte means, exactly: 2^-127 is below the smallest normal f32 but has a subnormal of its own.
const fn scale(byte: u8) -> f32 {
    match byte {
        0 => f32::from_bits(1 << 22),
        NAN_SCALE => f32::NAN,
        _ => f32::from_bits((byte as u32) << 23),
    }
}
