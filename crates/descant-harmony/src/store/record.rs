//! One example as bytes.
//!
//! Ids of gpt-oss fit into three bytes. Weights and classes change at the borders of messages alone, so they are
//! written as runs. Lengths are numbers of variable width, seven bits a byte, the lowest first.

use crate::examples::example::Example;
use crate::examples::mask::{LossMask, TokenClass};
use crate::examples::ready::hash;

/// Bytes of an id.
const ID_BYTES: usize = 3;

/// Appends everything but what the index has; `false` where an id is too large.
pub(super) fn write(example: &Example, out: &mut Vec<u8>) -> bool {
    number(example.message.map_or(0, |message| message as u64 + 1), out);
    number(example.first_reasoning.map_or(0, |first| first as u64 + 1), out);
    let language = example.reasoning_language.as_deref();
    number(language.map_or(0, |language| language.len() as u64 + 1), out);
    out.extend(language.unwrap_or_default().as_bytes());
    number(example.ids.len() as u64, out);
    for id in &example.ids {
        let [bytes @ .., high] = id.to_le_bytes();
        if high != 0 {
            return false;
        }
        out.extend(bytes);
    }
    let kinds: Vec<(u32, TokenClass)> = example
        .mask
        .weights
        .iter()
        .map(|weight| weight.to_bits())
        .zip(example.mask.classes.iter().copied())
        .collect();
    for run in kinds.chunk_by(|a, b| a == b) {
        let (weight, class) = run[0];
        number(run.len() as u64, out);
        out.extend(weight.to_le_bytes());
        out.push(class as u8);
    }
    true
}

/// The example of these bytes; `None` where they are none.
pub(super) fn read(mut bytes: &[u8]) -> Option<Example> {
    let bytes = &mut bytes;
    let one_more = |number: u64| (number > 0).then(|| (number - 1) as usize);
    let message = one_more(take_number(bytes)?);
    let first_reasoning = one_more(take_number(bytes)?);
    let reasoning_language = match one_more(take_number(bytes)?) {
        None => None,
        Some(length) => Some(String::from_utf8(bytes.split_off(..length)?.to_vec()).ok()?),
    };
    let tokens = usize::try_from(take_number(bytes)?).ok()?;
    let ids = bytes.split_off(..tokens.checked_mul(ID_BYTES)?)?;
    let ids: Vec<u32> =
        ids.chunks_exact(ID_BYTES).map(|id| u32::from_le_bytes([id[0], id[1], id[2], 0])).collect();
    let (mut weights, mut classes) = (Vec::with_capacity(tokens), Vec::with_capacity(tokens));
    while weights.len() < tokens {
        let length = usize::try_from(take_number(bytes)?).ok()?;
        let end = weights.len().checked_add(length).filter(|end| length > 0 && *end <= tokens)?;
        let weight = f32::from_le_bytes(*bytes.split_off(..4)?.first_chunk()?);
        let class = *TokenClass::ALL.get(usize::from(*bytes.split_off_first()?))?;
        weights.resize(end, weight);
        classes.resize(end, class);
    }
    let inside = first_reasoning.is_none_or(|first| first < tokens);
    let hash = hash(&ids, &weights, first_reasoning);
    let mask = LossMask { weights, classes };
    let example = Example { row: 0, message, ids, mask, first_reasoning, reasoning_language, hash, group: 0 };
    (bytes.is_empty() && inside).then_some(example)
}

fn number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        let part = u64::from(byte & 0x7f);
        number |= part.checked_shl(shift).filter(|shifted| shifted >> shift == part)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size_come_back_and_endless_ones_do_not() {
        for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            number(n, &mut bytes);
            assert_eq!(take_number(&mut bytes.as_slice()), Some(n));
            assert_eq!(take_number(&mut &bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(take_number(&mut &[0xff_u8; 11][..]), None);
        assert_eq!(take_number(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02][..]), None);
    }
}
