//! Which of the formats a checkpoint packs its matrices in, and how many bytes that makes of so many numbers.

use crate::{mxfp4, nf4};

/// How a checkpoint stores the matrices that it may pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Packing {
    /// A float a number.
    #[default]
    Plain,
    /// Experts in [`mxfp4`], as OpenAI publishes them.
    Mxfp4,
    /// Linear layers in [`nf4`], as bitsandbytes packs them.
    Nf4,
}

impl Packing {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "unpacked",
            Self::Mxfp4 => "MXFP4",
            Self::Nf4 => "NF4",
        }
    }

    /// Whether a number takes less than a float.
    pub fn is_packed(self) -> bool {
        self != Self::Plain
    }

    /// Bytes of a matrix of so many numbers, of which a plain one takes `plain` bytes. Those of [`nf4`] are counted with
    /// absmax values that are quantized again ("double quantization").
    pub fn bytes(self, numbers: u64, plain: u64) -> u64 {
        match self {
            Self::Plain => numbers * plain,
            Self::Mxfp4 => numbers / 2 + numbers.div_ceil(mxfp4::BLOCK as u64),
            Self::Nf4 => {
                let blocks = numbers.div_ceil(nf4::BLOCK as u64);
                let nested = blocks.div_ceil(nf4::NESTED_BLOCK as u64);
                numbers / 2 + blocks + nested * size_of::<f32>() as u64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_codecs() {
        let numbers = 2880 * 2880;
        assert_eq!(Packing::Plain.bytes(numbers, 2), 2 * numbers);
        let (blocks, scales) = (numbers / mxfp4::BLOCK as u64 * mxfp4::BLOCK_BYTES as u64, numbers / 32);
        assert_eq!(Packing::Mxfp4.bytes(numbers, 2), blocks + scales);
        // 4.127 bits a number, as the QLoRA paper counts it.
        let bits = 8.0 * Packing::Nf4.bytes(numbers, 2) as f64 / numbers as f64;
        assert!((bits - 4.127).abs() < 1e-3, "{bits}");
    }
}
