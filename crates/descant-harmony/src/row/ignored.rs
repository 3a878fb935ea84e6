//! Keys that a data set has and that change no token: those known to carry nothing, and the others, which are counted.

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// Where a key occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Beside the rows of a file.
    File,
    /// In a row.
    Row,
    /// In `template_kwargs`.
    TemplateKwargs,
    /// In a tool's description.
    Tool,
    /// In a message.
    Message,
    /// In a tool call.
    ToolCall,
}

impl Place {
    /// What keys of this place are in, when many are counted.
    pub fn plural(self) -> &'static str {
        match self {
            Self::File => "files",
            Self::Row => "rows",
            Self::TemplateKwargs => "template_kwargs",
            Self::Tool => "tools",
            Self::Message => "messages",
            Self::ToolCall => "tool calls",
        }
    }
}

/// Keys that say where something comes from or how it is called, and nothing about what is trained.
const CARRY_NOTHING: [&str; 42] = [
    "add_generation_prompt",
    "annotations",
    "category",
    "conversation_id",
    "created",
    "created_at",
    "dataset",
    "date",
    "difficulty",
    "domain",
    "hash",
    "id",
    "idx",
    "index",
    "lang",
    "language",
    "license",
    "message_id",
    "meta",
    "metadata",
    "model",
    "name",
    "num_tokens",
    "num_turns",
    "object",
    "parallel_tool_calls",
    "parent_id",
    "problem_id",
    "prompt_id",
    "question_id",
    "source",
    "split",
    "strict",
    "subset",
    "tags",
    "timestamp",
    "tool_call_id",
    "turn",
    "type",
    "url",
    "uuid",
    "version",
];
/// Columns of HuggingFaceH4/Multilingual-Thinking that repeat what its messages say.
const REPEAT_MESSAGES: [&str; 4] = ["analysis", "developer", "final", "user"];
/// Most different keys that are counted by name.
const NAMED: usize = 200;
/// Longest name that is kept.
const NAME_CHARS: usize = 60;

/// Whether a key is known to change no token.
pub(crate) fn carries_nothing(place: Place, key: &str) -> bool {
    CARRY_NOTHING.binary_search(&key).is_ok() || (place == Place::Row && REPEAT_MESSAGES.contains(&key))
}

/// Keys that were counted and not used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignored(BTreeMap<(Place, String), u64>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredKey {
    /// Where it occurs.
    pub place: Place,
    /// The key.
    pub key: String,
    /// How often it was there.
    pub count: u64,
}

impl IgnoredKey {
    /// Whether it is not a key but a tag in the text of messages, such as `<think>`, which was trained unchanged.
    pub fn is_tag(&self) -> bool {
        self.place == Place::Message && self.key.starts_with('<')
    }
}

impl Ignored {
    /// Counts a key, unless it is known to carry nothing.
    pub(crate) fn add(&mut self, place: Place, key: &str) {
        if !carries_nothing(place, key) {
            self.add_times(place, key, 1);
        }
    }

    /// Counts a key that was there so many times.
    pub(crate) fn add_times(&mut self, place: Place, key: &str, times: u64) {
        let key: String = key.chars().take(NAME_CHARS).collect();
        let known = self.0.contains_key(&(place, key.clone()));
        let key = if known || self.0.len() < NAMED { key } else { "(further keys)".to_owned() };
        *self.0.entry((place, key)).or_insert(0) += times;
    }

    /// Adds what another row ignored.
    pub(crate) fn merge(&mut self, other: &Self) {
        for ((place, key), count) in &other.0 {
            self.add_times(*place, key, *count);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every key, by place and name.
    pub fn iter(&self) -> impl Iterator<Item = IgnoredKey> + '_ {
        self.0.iter().map(|((place, key), count)| IgnoredKey {
            place: *place,
            key: key.clone(),
            count: *count,
        })
    }
}

impl Serialize for Ignored {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut ignored = Self::default();
        for IgnoredKey { place, key, count } in Vec::<IgnoredKey>::deserialize(deserializer)? {
            ignored.add_times(place, &key, count);
        }
        Ok(ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_carry_nothing_are_not_counted_and_the_list_can_be_searched() {
        assert!(CARRY_NOTHING.is_sorted());
        let mut ignored = Ignored::default();
        for key in ["id", "score", "score", "user"] {
            ignored.add(Place::Row, key);
        }
        ignored.add(Place::Message, "user");
        let seen: Vec<_> = ignored.iter().map(|key| (key.place, key.key, key.count)).collect();
        assert_eq!(seen, [(Place::Row, "score".into(), 2), (Place::Message, "user".into(), 1)]);
    }

    #[test]
    fn many_names_take_bounded_memory_and_none_is_lost() {
        let mut ignored = Ignored::default();
        (0..1000).for_each(|at| ignored.add(Place::Row, &format!("key {at}")));
        assert_eq!(ignored.0.len(), NAMED + 1);
        assert_eq!(ignored.iter().map(|key| key.count).sum::<u64>(), 1000);
    }
}
