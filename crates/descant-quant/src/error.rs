//! What can be wrong with packed numbers.
//!
//! The codecs do not know which tensor they are looking at: the caller adds its name and file.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error in packed or source numbers; every variant names the part and where in it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A slice does not have the length that the others imply.
    #[error("{part}: expected {expected} elements, got {actual}")]
    Length {
        /// Which slice.
        part: &'static str,
        /// What the other slices imply.
        expected: usize,
        /// What it has.
        actual: usize,
    },
    /// A block size that the format does not have.
    #[error("{part}: block size {actual} is not supported, expected {expected}")]
    BlockSize {
        /// Which level of blocks.
        part: &'static str,
        /// The one this codec computes.
        expected: usize,
        /// The one asked for.
        actual: usize,
    },
    /// The byte 255, which E8M0 defines as not a number, is used as a scale.
    #[error("scale {index} is 255, not a number")]
    NanScale {
        /// Which scale, from 0.
        index: usize,
    },
    /// Matrices that are to be stacked, and there are none, or they have other code books than the first.
    #[error("matrices of one stack have several code books")]
    Books,
    /// A number that has to be finite is not.
    #[error("{part} {index} is {value}, not finite")]
    NonFinite {
        /// Which slice.
        part: &'static str,
        /// Which element, from 0.
        index: usize,
        /// The number.
        value: f32,
    },
}

/// The position and value of the first number that is not finite, as an error.
pub(crate) fn check_finite(part: &'static str, values: &[f32]) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(Error::NonFinite { part, index, value: values[index] }),
        None => Ok(()),
    }
}

/// An error unless `actual` is `expected`.
pub(crate) fn check_length(part: &'static str, expected: usize, actual: usize) -> Result<()> {
    if expected == actual { Ok(()) } else { Err(Error::Length { part, expected, actual }) }
}
