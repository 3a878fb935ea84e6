//! How much is measured, and what that takes of a card.

use descant_model::Config;

/// Tokens up to which conversations are taken; the first is taken whatever its length.
pub const MEASURED_TOKENS: usize = 16_384;
/// Trained tokens at most whose distributions of the next token are compared, evenly spread. Their mean is known to a few
/// percent from so many.
pub const COMPARED_TOKENS: usize = 2048;

/// Bytes of a card that are taken beside what a step takes: the hidden states that are compared.
pub(crate) fn bytes(config: &Config) -> u64 {
    (2 * COMPARED_TOKENS * config.hidden_size * size_of::<u16>()) as u64
}
