//! Damage to bytes: eight ways, each of which real files have met or a parser has been caught by.

use crate::Dice;

/// Numbers that parsers trip over.
const EDGES: [&str; 12] = [
    "0",
    "-1",
    "1e309",
    "1e-400",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "4294967296",
    "2147483648",
    "65536",
    "NaN",
    "null",
];

/// Damages `bytes` once to four times; `other` is what splices are taken from.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        once(bytes, other, dice);
    }
}

fn once(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let n = bytes.len();
    let at = dice.below(n);
    match dice.below(8) {
        // Truncate.
        0 => bytes.truncate(at),
        // Extend: with what is there, or with noise.
        1 if dice.below(2) == 0 => bytes.extend_from_within(at..),
        1 => bytes.extend((0..=dice.below(64)).map(|_| dice.draw() as u8)),
        // Flip bits.
        2 if n > 0 => (0..=dice.below(8)).for_each(|_| bytes[dice.below(n)] ^= 1 << dice.below(8)),
        // Splice a piece of another file in.
        3 if !other.is_empty() => {
            let from = dice.below(other.len());
            let to = (from + 1 + dice.below(256)).min(other.len());
            let end = (at + dice.below(64)).min(n);
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        // An integer at its edge, in text or in binary.
        4 => integer(bytes, dice),
        // A key twice, or a piece twice.
        5 => {
            let end = (at + 1 + dice.below(80)).min(n);
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        // Swap two pieces, as offsets would be.
        6 if n >= 16 => {
            let (a, b) = (dice.below(n - 8), dice.below(n - 8));
            for k in 0..8 {
                bytes.swap(a + k, b + k);
            }
        }
        // Another head.
        7 if n >= 8 => {
            let heads = [u64::MAX, 0, 1, n as u64, 100_000_001, 1 << 63, 8, n as u64 - 8];
            bytes[..8].copy_from_slice(&dice.pick(&heads).to_le_bytes());
        }
        _ => bytes.push(dice.draw() as u8),
    }
}

/// Replaces a run of digits by an edge, or eight bytes where there is none.
fn integer(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let from = dice.below(bytes.len());
    let digits = |from: usize| bytes[from..].iter().position(u8::is_ascii_digit).map(|at| from + at);
    match digits(from).or_else(|| digits(0)) {
        Some(start) => {
            let end =
                bytes[start..].iter().position(|b| !b.is_ascii_digit()).map_or(bytes.len(), |n| start + n);
            bytes.splice(start..end, dice.pick(&EDGES).bytes());
        }
        None => bytes.extend(dice.draw().to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_damage_and_nearly_every_input_is_damaged() {
        let good = br#"{"a": 12, "b": [1, 2, 3], "c": "text that is long enough to be cut"}"#;
        let damaged = |seed| {
            let mut bytes = good.to_vec();
            mutate(&mut bytes, good, &mut Dice::new(seed));
            bytes
        };
        assert_eq!(damaged(5), damaged(5));
        let changed = (0..1000).filter(|seed| damaged(*seed) != good).count();
        assert!(changed > 950, "{changed}");
        (0..1000).for_each(|seed| mutate(&mut Vec::new(), &[], &mut Dice::new(seed)));
    }
}
