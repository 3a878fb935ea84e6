//! NF4 with double quantization, as bitsandbytes writes it.
//!
//! ```text
//! weight            [ceil(n / 2)]     byte j holds element 2j in its high and element 2j + 1 in its low nibble
//! absmax            [ceil(n / 64)]    a code a block of 64 elements, into
//! nested_quant_map  [256]             the dynamic 8-bit map, times
//! nested_absmax     [ceil(.. / 256)]  one number a block of 256 codes, plus
//! nested_offset                       the mean of all
//! quant_map         [16]              the numbers of the nibbles
//!
//! scale[b] = nested_quant_map[absmax[b]] * nested_absmax[b / 256] + nested_offset
//! value[i] = quant_map[nibble[i]] * scale[i / 64]      rounded to the type the weight had
//! ```
//!
//! The nibble order is the opposite of MXFP4's. Each product and sum is rounded to f32 on its own, which is what
//! makes the result equal bit for bit. The JSON of the quantization state is read by whoever reads the file.

mod decode;
mod encode;
mod maps;
mod stack;

pub use decode::{Precision, Scales, decode};
pub use encode::{Encoded, encode};
pub use maps::{QUANT_MAP, dynamic_map, unsigned_dynamic_map};
pub use stack::{Packed, Stack, Stacked, View};

/// Elements that share a scale.
pub const BLOCK: usize = 64;
/// Scales that share a nested scale.
pub const NESTED_BLOCK: usize = 256;
