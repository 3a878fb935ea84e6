//! How many sequences go through the model at once: a number, or as many as there is room for.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The word for [`MicroBatch::Auto`].
const AUTO: &str = "auto";

/// Sequences that go through the model at once: a number, or `"auto"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MicroBatch {
    /// As many as memory holds, of the sequences of a step, which are then all that `accumulation` counts. One where
    /// nobody looks at the memory. Which number it is decides the order of sums: it is a part of what a run is.
    Auto,
    /// So many, never merged or split.
    Of(usize),
}

impl From<usize> for MicroBatch {
    fn from(sequences: usize) -> Self {
        Self::Of(sequences)
    }
}

impl fmt::Display for MicroBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str(AUTO),
            Self::Of(sequences) => write!(f, "{sequences}"),
        }
    }
}

impl Serialize for MicroBatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str(AUTO),
            Self::Of(sequences) => serializer.serialize_u64(*sequences as u64),
        }
    }
}

impl<'de> Deserialize<'de> for MicroBatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for MicroBatch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MicroBatch".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Sequences that go through the model at once: a number, or \"auto\".",
            "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "const": AUTO}],
        })
    }
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = MicroBatch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number of sequences or \"{AUTO}\"")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<MicroBatch, E> {
        let sequences = usize::try_from(value);
        sequences.map(MicroBatch::Of).map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<MicroBatch, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(value), &self)),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<MicroBatch, E> {
        if value == AUTO {
            Ok(MicroBatch::Auto)
        } else {
            Err(E::invalid_value(Unexpected::Str(value), &self))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_rest_is_refused_by_what_it_is() {
        for one in [MicroBatch::Auto, MicroBatch::Of(4)] {
            let text = serde_json::to_string(&one).unwrap();
            assert_eq!(serde_json::from_str::<MicroBatch>(&text).unwrap(), one, "{text}");
        }
        for (wrong, said) in
            [("-1", "integer `-1`"), ("\"most\"", "string \"most\""), ("true", "boolean `true`")]
        {
            let error = serde_json::from_str::<MicroBatch>(wrong).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("\"auto\""), "{error}");
        }
    }
}
