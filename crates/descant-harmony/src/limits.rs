//! The limits that outside bytes must stay within, in one place.
//!
//! Each is far above what honest data needs and low enough that a hostile file costs a refusal, not the machine.
//! They are constants and not settings: a limit that everyone can raise is a limit that nobody tested.

/// Largest `tokenizer.json`; the published one has 27.9 MB.
pub const TOKENIZER_BYTES: u64 = 64 << 20;
/// Most special tokens of a tokenizer; the published one has 21.
pub const SPECIAL_TOKENS: usize = 4096;
/// Largest chat template; the published one has 16.7 KB.
pub const TEMPLATE_BYTES: u64 = 1 << 20;
/// Largest `tokenizer_config.json`, read only for its chat template.
pub const TOKENIZER_CONFIG_BYTES: u64 = 16 << 20;
/// Instructions (and 64-byte units of data) that rendering one conversation may spend.
pub const TEMPLATE_FUEL: u64 = 5_000_000;
/// Most bytes that rendering one conversation may give.
pub const RENDERED_BYTES: usize = 64 << 20;
/// Most tokens between `<|start|>` and `<|message|>`.
pub const HEADER_TOKENS: usize = 512;
/// Longest line of a text data set.
pub const LINE_BYTES: usize = 16 << 20;
/// Largest parquet file that is read.
pub const PARQUET_BYTES: u64 = 4 << 30;
/// Most bytes that a compressed data set may unpack to.
pub const INFLATED_BYTES: u64 = 16 << 30;
/// Most bytes that one compressed byte may unpack to, counted after the first [`INFLATE_FREE_BYTES`].
pub const INFLATE_RATIO: u64 = 100;
/// Unpacked bytes that the ratio does not look at, so that a short repetitive file passes.
pub const INFLATE_FREE_BYTES: u64 = 16 << 20;
/// Most messages of one conversation.
pub const MESSAGES: usize = 16_384;
/// Rejected rows that a data set remembers by line; further ones are only counted.
pub const REMEMBERED_REJECTS: usize = 10_000;
