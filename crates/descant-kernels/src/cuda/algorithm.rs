//! The name under which the algorithm that was chosen for a product is kept.

use super::spec::{Element, MatmulSpec, Operand};

/// What was chosen for one size serves its neighbours, so that batches of many lengths do not each begin with a search:
/// those up to the next eight, or between two powers of two. A power of two, as packed sequences and most settings have,
/// is a size of its own: what shorter batches had chosen took 1.5 times as long at 1,024 rows. Sides of weights are known by
/// their strides.
pub const fn bucket(n: usize) -> usize {
    match n {
        ..=64 => n.next_multiple_of(8),
        _ if n.is_power_of_two() => n,
        _ => n.next_power_of_two() - 1,
    }
}

/// Largest power of two, at most 256, that divides all addresses: what an algorithm may assume of them.
pub fn alignment(addresses: &[u64]) -> u32 {
    addresses.iter().fold(256, |least, address| least.min(1u32 << address.trailing_zeros().min(8)))
}

/// For which sizes an algorithm is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// All of an octave; see [`bucket`].
    Octave,
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
    let (size, mark) = match sizes {
        Sizes::Octave => (bucket as fn(usize) -> usize, ""),
        Sizes::Exact => (std::convert::identity as fn(usize) -> usize, "-exact"),
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
        "lt{library}-{card}-{}x{}x{}x{}-{}-{}-{}-{}{bias}{}-{alignment}-{workspace}{mark}.algo",
        spec.count,
        size(spec.m),
        size(spec.n),
        size(spec.k),
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
    fn buckets_are_near_and_keep_the_sizes_of_the_model() {
        for n in 1..5000 {
            let bucket = bucket(n);
            assert!(bucket >= n && bucket < 2 * n.max(8), "{n} -> {bucket}");
        }
        assert_eq!([1000, 1024, 4096, 5120, 16384].map(bucket), [1023, 1024, 4096, 8191, 16384]);
    }

    #[test]
    fn keys_tell_products_apart_and_neighbours_share_one() {
        let of = |spec: &MatmulSpec, sizes| key(spec, sizes, 256, 32 << 20, 130_000, "NVIDIA H200");
        let key = |spec: &MatmulSpec| of(spec, Sizes::Octave);
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
        assert_ne!(key(&spec), key(&MatmulSpec { m: 4090, ..spec }), "a power of two is apart");
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
}
