//! How byte-level vocabularies spell bytes: each as a letter that can be seen.

use rustc_hash::FxHashMap;

/// The letter of every byte, and the way back.
pub(super) struct Letters {
    of_byte: [char; 256],
    to_byte: FxHashMap<char, u8>,
}

impl Letters {
    pub(super) fn new() -> Self {
        let mut stand_ins = '\u{100}'..;
        let of_byte: [char; 256] = std::array::from_fn(|at| match at as u8 {
            byte @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => char::from(byte),
            _ => stand_ins.next().expect("there are more characters than bytes"),
        });
        let to_byte = of_byte.iter().copied().zip(0..=u8::MAX).collect();
        Self { of_byte, to_byte }
    }

    /// How bytes are spelled.
    pub(super) fn text(&self, bytes: &[u8]) -> String {
        bytes.iter().map(|byte| self.of_byte[usize::from(*byte)]).collect()
    }

    /// The bytes that a text spells, if it does.
    pub(super) fn bytes(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|char| self.to_byte.get(&char).copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_letter_of_its_own_and_other_letters_are_none() {
        let (letters, bytes) = (Letters::new(), (0..=u8::MAX).collect::<Vec<u8>>());
        let text = letters.text(&bytes);
        assert_eq!(letters.bytes(&text), Some(bytes));
        assert!(text.chars().all(|char| !char.is_whitespace() && !char.is_control()));
        assert_eq!(letters.text(b" a\n\xff"), "ĠaĊÿ");
        assert_eq!(letters.bytes("a b"), None);
    }
}
