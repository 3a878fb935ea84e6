//! For which products a choice of an algorithm counts, the name under which it is kept, and what is timed for it.

use super::spec::{Element, MatmulSpec, Operand};

/// Rows between two choices at least, where rows are many: a height of tiles.
const TILE: usize = 64;
/// Choices between two powers of two, where that is more than a tile each.
const PARTS: usize = 8;
/// Bytes of a result that is written only to be timed, at most: nobody has planned them. A longer product is timed with
/// fewer of its rows.
const TIMED_BYTES: usize = 64 << 20;

/// What is chosen for a number of rows serves its neighbours, so that batches of many lengths do not each begin with a
/// search: those up to the next eight, the next tile, or the next eighth of what lies between two powers of two. One
/// choice for all between two powers of two made dense products 12 to 17 % slower than their best, this 1 to 3 %.
pub const fn bucket(rows: usize) -> usize {
    if rows <= TILE {
        return rows.next_multiple_of(8);
    }
    let part = rows.next_power_of_two() / 2 / PARTS;
    rows.next_multiple_of(if part < TILE { TILE } else { part })
}

/// The product of the most rows that share a choice with this one. A matrix that lies across has no room for more.
pub const fn largest(spec: &MatmulSpec) -> MatmulSpec {
    if spec.a.transposed { *spec } else { MatmulSpec { m: bucket(spec.m), ..*spec } }
}

/// The product with as many of its rows as are timed: all, unless its result would have to be written elsewhere and is
/// large.
pub fn fewer_rows(spec: &MatmulSpec) -> MatmulSpec {
    let of_row = spec.d.stride * spec.d.element.bytes();
    let is_whole = spec.beta == 0.0 || spec.count > 1;
    let m = if is_whole { spec.m } else { spec.m.min((TIMED_BYTES / of_row).max(1)) };
    MatmulSpec { m, ..*spec }
}

/// Largest power of two, at most 256, that divides all addresses: what an algorithm may assume of them.
pub fn alignment(addresses: &[u64]) -> u32 {
    addresses.iter().fold(256, |least, address| least.min(1u32 << address.trailing_zeros().min(8)))
}

/// For which sizes an algorithm is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// All of a [`bucket`].
    Bucket,
    /// These alone.
    Exact,
}

/// The name under which the algorithm for a product is kept.
pub fn key(
    spec: &MatmulSpec,
    sizes: Sizes,
    alignment: u32,
    workspace: usize,
    library: usize,
    card: &str,
) -> String {
    let (spec, mark) = match sizes {
        Sizes::Bucket => (&largest(spec), ""),
        Sizes::Exact => (spec, "-exact"),
    };
    let operand = |o: Operand| {
        let element = if o.element == Element::Bf16 { 'b' } else { 'f' };
        format!("{element}{}{}-{}", if o.transposed { 't' } else { 'n' }, o.stride, o.step)
    };
    let bias = match spec.bias {
        None => "",
        Some(Element::Bf16) => "-bias",
        Some(Element::F32) => "-fbias",
    };
    let card: String = card.chars().filter(char::is_ascii_alphanumeric).collect();
    format!(
        "dense{library}-{card}-{}x{}x{}x{}-{}-{}-{}-{}{bias}{}-{alignment}-{workspace}{mark}.algo",
        spec.count,
        spec.m,
        spec.n,
        spec.k,
        operand(spec.a),
        operand(spec.b),
        operand(spec.c),
        operand(spec.d),
        if spec.beta == 0.0 { "" } else { "-add" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_near_and_end_with_powers_of_two() {
        for rows in 1..5000_usize {
            let bucket = bucket(rows);
            assert!(bucket >= rows && bucket - rows < TILE.max(rows / PARTS), "{rows} -> {bucket}");
            assert_eq!(super::bucket(bucket), bucket);
        }
        assert_eq!([9, 65, 1000, 1024, 1025, 4231].map(bucket), [16, 128, 1024, 1024, 1152, 4608]);
    }

    #[test]
    fn the_largest_product_of_a_choice_is_a_product() {
        let spec = MatmulSpec { bias: Some(Element::F32), ..MatmulSpec::forward(4231, 5120, 2880) };
        assert_eq!(largest(&spec), MatmulSpec { m: 4608, ..spec });
        let across = MatmulSpec { a: Operand { transposed: true, stride: 4231, ..spec.a }, ..spec };
        assert_eq!(largest(&across), across);
        assert!([spec, across].iter().all(|spec| largest(spec).wrong().is_none()));
    }

    #[test]
    fn keys_tell_products_apart_and_neighbours_share_one() {
        let of = |spec: &MatmulSpec, sizes| key(spec, sizes, 256, 32 << 20, 130_000, "NVIDIA H200");
        let key = |spec: &MatmulSpec| of(spec, Sizes::Bucket);
        let spec = MatmulSpec::forward(4096, 5120, 2880);
        let with_bias = MatmulSpec { bias: Some(Element::Bf16), ..spec };
        let adding = MatmulSpec { beta: 1.0, ..spec };
        let wide = MatmulSpec { a: Operand { stride: 2944, ..spec.a }, ..spec };
        let all = [spec, with_bias, adding, wide, MatmulSpec::backward(4096, 5120, 2880)].map(|s| key(&s));
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{a} occurs twice");
            assert!(a.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.'), "{a}");
        }
        assert_eq!(key(&MatmulSpec { m: 4000, ..spec }), key(&MatmulSpec { m: 4090, ..spec }));
        assert_ne!(key(&spec), key(&MatmulSpec { m: 2000, ..spec }));
        let exact = |m| of(&MatmulSpec { m, ..spec }, Sizes::Exact);
        assert!(exact(4096) != exact(4090) && exact(4096) != key(&spec), "not fitting has a name of its own");
    }

    #[test]
    fn alignment_is_that_of_the_worst_address() {
        assert_eq!(alignment(&[0x1000, 0x200, 0]), 256);
        assert_eq!(alignment(&[0x1000, 0x1010]), 16);
        assert_eq!(alignment(&[0x1002]), 2);
    }

    #[test]
    fn what_is_timed_takes_little_memory_of_its_own() {
        let long = MatmulSpec { beta: 1.0, ..MatmulSpec::forward(131_072, 2880, 4096) };
        let timed = fewer_rows(&long);
        assert!(timed.d_bytes() <= TIMED_BYTES && timed.m > 8192, "{timed}");
        let short = MatmulSpec { m: 8192, ..long };
        assert_eq!(fewer_rows(&short), short);
        let elsewhere = MatmulSpec { beta: 0.0, ..long };
        assert_eq!(fewer_rows(&elsewhere), elsewhere, "its result is written where it belongs");
    }
}
