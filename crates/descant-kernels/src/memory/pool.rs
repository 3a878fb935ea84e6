//! The pages of burn's pool, which are as large as the largest tensor that was asked for.

/// What a page has beyond that tensor, and the unit of its size.
const SLACK: u64 = 1 << 20;

/// Bytes of a page of the pool whose largest tensor has so many.
pub const fn pool_page(largest: u64) -> u64 {
    (largest + SLACK).next_multiple_of(SLACK)
}
