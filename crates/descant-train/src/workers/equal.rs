//! Whether processes have the same tensors: a hash for each.

use descant_lora::LoraAdapters;

use crate::state::{SavedMoments, TrainerState};

/// A name for each digest.
pub(super) fn tensor_names(adapters: &LoraAdapters) -> Vec<String> {
    let sites = adapters.pairs().keys();
    let tensors = sites.flat_map(|site| ["A", "B"].map(|part| format!("{site} lora_{part}")));
    let of = |name: String| ["", " (first moment)", " (second moment)"].map(|what| format!("{name}{what}"));
    tensors.flat_map(of).collect()
}

/// A hash for each tensor and each of its moments, and one for what is counted.
pub(super) fn digests(state: &TrainerState) -> Vec<u64> {
    let mut digests = Vec::new();
    for (values, moments) in state.adapters.iter().zip(&state.moments) {
        digests.push(hashed(0, values));
        match moments {
            SavedMoments::Float(pair) => digests.extend(pair.each_ref().map(|values| hashed(0, values))),
            SavedMoments::Blocks { codes, scales } => {
                let of = |which: usize| {
                    let codes = codes[which].iter().fold(0, |hash, code| mixed(hash, u64::from(*code)));
                    hashed(codes, &scales[which])
                };
                digests.extend([of(0), of(1)]);
            }
        }
    }
    digests.push(mixed(state.steps, u64::from(state.updates)));
    digests
}

fn hashed(from: u64, values: &[f32]) -> u64 {
    values.iter().fold(from, |hash, value| mixed(hash, u64::from(value.to_bits())))
}

/// A step of the hash: FNV-1a over words, which no single difference survives unseen.
fn mixed(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_sees_one_bit_and_an_exchange_of_two() {
        let values: Vec<f32> = (0..1000).map(|i| i as f32 * 0.1).collect();
        let whole = hashed(0, &values);
        for at in [0, 500, 999] {
            let mut other = values.clone();
            other[at] = f32::from_bits(other[at].to_bits() ^ 1);
            assert_ne!(hashed(0, &other), whole, "{at}");
        }
        let mut swapped = values.clone();
        swapped.swap(3, 4);
        assert_ne!(hashed(0, &swapped), whole);
    }
}
