//! Text of ids that come one at a time, for a reader who looks on.
//!
//! A token may end in the middle of a character, and a character that a reader sees may be several code points: a
//! letter with its accents, a family of emoji. A piece is given out only up to the last of those that may still grow,
//! so text that was returned never changes, and no replacement character is returned for what follows later.

use crate::tokens::tokenizer::Tokenizer;
use unicode_segmentation::UnicodeSegmentation as _;

/// Longest character that is waited for, in bytes; the longest emoji sequences take 35. Text that never ends one, as of
/// accents alone, is given out by code points.
const LONGEST: usize = 256;

/// Decodes ids one at a time.
#[derive(Clone, Debug)]
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    /// The beginning of a code point.
    bytes: Vec<u8>,
    /// A character that may still grow.
    text: String,
}

impl<'t> TextStream<'t> {
    /// A stream that begins.
    pub fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, bytes: Vec::new(), text: String::new() }
    }

    /// Takes an id and gives out what can no longer change. All pieces and the [`finish`](Self::finish) together are
    /// what [`decode`](crate::TextEncoder::decode) gives for the same ids.
    pub fn push(&mut self, id: u32) -> String {
        self.bytes.extend(self.tokenizer.bytes_of(id));
        self.take_code_points();
        let last = self.text.grapheme_indices(true).next_back().map_or(0, |(at, _)| at);
        let end = if self.text.len() - last > LONGEST { self.text.len() } else { last };
        let rest = self.text.split_off(end);
        std::mem::replace(&mut self.text, rest)
    }

    /// Ends the stream and gives out the rest; a code point without its end is a replacement character.
    pub fn finish(&mut self) -> String {
        let mut text = std::mem::take(&mut self.text);
        text.push_str(&String::from_utf8_lossy(&std::mem::take(&mut self.bytes)));
        text
    }

    /// Moves whole code points from the bytes to the text.
    fn take_code_points(&mut self) {
        let mut from = 0;
        loop {
            match std::str::from_utf8(&self.bytes[from..]) {
                Ok(text) => {
                    self.text.push_str(text);
                    from = self.bytes.len();
                    break;
                }
                Err(error) => {
                    let valid = from + error.valid_up_to();
                    self.text.push_str(&String::from_utf8_lossy(&self.bytes[from..valid]));
                    from = valid;
                    // Without a length the bytes end too early, and more may come.
                    let Some(length) = error.error_len() else { break };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    from += length;
                }
            }
        }
        self.bytes.drain(..from);
    }
}
