//! The characters that control tokens begin and end with: a text without them holds none.
//!
//! Every text is searched for them several times, and nearly none has one. For gpt-oss they are `<` and `>`.

/// Some characters, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guards {
    chars: Vec<char>,
    /// The same as bytes, where all are ASCII and at most three; the last one repeated where they are fewer.
    bytes: Option<[u8; 3]>,
}

impl Guards {
    pub(crate) fn new(mut chars: Vec<char>) -> Self {
        chars.sort_unstable();
        chars.dedup();
        let ascii: Option<Vec<u8>> =
            chars.iter().map(|char| u8::try_from(*char).ok().filter(u8::is_ascii)).collect();
        let bytes = match ascii.as_deref() {
            Some([a]) => Some([*a; 3]),
            Some([a, b]) => Some([*a, *b, *b]),
            Some([a, b, c]) => Some([*a, *b, *c]),
            _ => None,
        };
        Self { chars, bytes }
    }

    pub(crate) fn chars(&self) -> &[char] {
        &self.chars
    }

    /// Where the first of them is in a text.
    pub(crate) fn first_in(&self, text: &str) -> Option<usize> {
        match self.bytes {
            Some([a, b, c]) if b == c => memchr::memchr2(a, b, text.as_bytes()),
            Some([a, b, c]) => memchr::memchr3(a, b, c, text.as_bytes()),
            None => text.find(self.chars.as_slice()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_found_whatever_they_are() {
        let text = "a é < > | 日";
        for guards in [
            vec!['<'],
            vec!['>', '<', '<'],
            vec!['<', '>', '|'],
            vec!['日'],
            vec!['x', '>', '|', '日', '<'],
            vec![],
        ] {
            assert_eq!(
                Guards::new(guards.clone()).first_in(text),
                text.find(guards.as_slice()),
                "{guards:?}"
            );
        }
        assert_eq!(Guards::new(vec!['<', '>']).first_in("é"), None);
    }
}
