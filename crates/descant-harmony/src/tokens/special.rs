//! The control tokens of Harmony, looked up by their text.
//!
//! Ids are never written down in this crate: the published vocabulary starts its special tokens at 199998, the tiny
//! fixture's at 1515. Splitting a rendered text at control tokens lives here too, because it must find exactly what
//! the published tokenizer would find: the leftmost match, and of those the longest.

use crate::text::guards::Guards;

/// A control token, or the text between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'t> {
    /// A control token.
    Control(u32),
    /// Text without control tokens; never empty.
    Text(&'t str),
}

/// The control tokens that give Harmony its structure, and all other special tokens of the tokenizer.
#[derive(Clone, Debug)]
pub struct ControlTokens {
    /// `<|start|>` opens a message.
    pub start: u32,
    /// `<|message|>` ends its header.
    pub message: u32,
    /// `<|end|>` closes a message that another one follows.
    pub end: u32,
    /// `<|return|>` closes the last message of a reply.
    pub return_: u32,
    /// `<|call|>` closes a message that calls a tool.
    pub call: u32,
    /// `<|channel|>` opens the channel in a header.
    pub channel: u32,
    /// `<|constrain|>` opens the content type in a header.
    pub constrain: u32,
    /// `<|endoftext|>` ends a document; not a part of Harmony, but models stop at it.
    pub endoftext: u32,
    /// Text and id of every special token, longest text first, so that the first hit is the longest.
    longest_first: Vec<(String, u32)>,
    /// Every special id, ascending.
    ids: Vec<u32>,
    /// First and last characters of the texts: a text without these holds no special token.
    guards: Guards,
}

impl ControlTokens {
    /// Looks the tokens up in the list of all special tokens; says which one is missing.
    pub(crate) fn find(mut specials: Vec<(String, u32)>) -> Result<Self, &'static str> {
        let id = |text: &'static str| {
            specials.iter().find(|(special, _)| special == text).map(|(_, id)| *id).ok_or(text)
        };
        let (start, message, end) = (id("<|start|>")?, id("<|message|>")?, id("<|end|>")?);
        let (return_, call, channel) = (id("<|return|>")?, id("<|call|>")?, id("<|channel|>")?);
        let (constrain, endoftext) = (id("<|constrain|>")?, id("<|endoftext|>")?);
        specials.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        let mut ids: Vec<u32> = specials.iter().map(|(_, id)| *id).collect();
        ids.sort_unstable();
        let ends = specials.iter().flat_map(|(text, _)| [text.chars().next(), text.chars().next_back()]);
        let guards = Guards::new(ends.flatten().collect());
        Ok(Self {
            start,
            message,
            end,
            return_,
            call,
            channel,
            constrain,
            endoftext,
            longest_first: specials,
            ids,
            guards,
        })
    }

    /// Whether an id is a special token of any kind.
    pub fn is_special(&self, id: u32) -> bool {
        // Nearly every id lies before all of them.
        self.ids.first().is_some_and(|first| id >= *first) && self.ids.binary_search(&id).is_ok()
    }

    /// The text of a special token.
    pub fn text(&self, id: u32) -> Option<&str> {
        self.longest_first.iter().find(|(_, special)| *special == id).map(|(text, _)| text.as_str())
    }

    /// Whether a reply ends with this id.
    pub fn is_stop(&self, id: u32) -> bool {
        id == self.return_ || id == self.call || id == self.endoftext
    }

    /// The largest special id.
    pub(crate) fn max_id(&self) -> u32 {
        self.ids.last().copied().unwrap_or(0)
    }

    /// Characters that every special token begins or ends with.
    pub(crate) fn guards(&self) -> &Guards {
        &self.guards
    }

    /// Cuts a text at its special tokens, leftmost first and longest of those.
    pub fn split<'t>(&self, text: &'t str) -> Vec<Piece<'t>> {
        let mut pieces = Vec::new();
        let (mut from, mut at) = (0, 0);
        while let Some(offset) = self.guards.first_in(&text[at..]) {
            let here = at + offset;
            let found =
                self.longest_first.iter().find(|(special, _)| text[here..].starts_with(special.as_str()));
            if let Some((special, id)) = found {
                if from < here {
                    pieces.push(Piece::Text(&text[from..here]));
                }
                pieces.push(Piece::Control(*id));
                at = here + special.len();
                from = at;
            } else {
                at = here + text[here..].chars().next().map_or(1, char::len_utf8);
            }
        }
        if from < text.len() {
            pieces.push(Piece::Text(&text[from..]));
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> ControlTokens {
        let names = ["<|start|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|channel|>"];
        let names = names.into_iter().chain(["<|constrain|>", "<|endoftext|>", "<|end|>x"]);
        ControlTokens::find(names.zip(10..).map(|(name, id)| (name.to_owned(), id)).collect()).unwrap()
    }

    #[test]
    fn splitting_takes_the_leftmost_and_of_those_the_longest() {
        let tokens = tokens();
        assert_eq!(
            tokens.split("a<<|end|>x<|end|>é<|END|><|start|>"),
            [
                Piece::Text("a<"),
                Piece::Control(18),
                Piece::Control(tokens.end),
                Piece::Text("é<|END|>"),
                Piece::Control(tokens.start)
            ]
        );
        assert_eq!(tokens.split(""), []);
    }

    #[test]
    fn a_missing_token_is_named() {
        let specials = vec![("<|start|>".to_owned(), 1), ("<|message|>".to_owned(), 2)];
        assert_eq!(ControlTokens::find(specials).unwrap_err(), "<|end|>");
    }
}
