//! `[memory]`: how much of a card's memory a run may use, and what for. Changes times, never results.

use std::str::FromStr;

use descant_kernels::Keep;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// `[memory]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Memory {
    /// Memory limit such as `12GB` or `14.5GiB`, or `max`; all memory if absent.
    #[serde(deserialize_with = "amount")]
    pub(crate) limit: Option<String>,
    /// Activations to keep from forward to backward.
    pub(crate) keep: String,
}

/// An amount of memory, also where it is a number of TOML's own.
fn amount<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected an amount such as 14.5GiB, or a number of bytes")]
    enum Amount {
        Text(String),
        Bytes(u64),
    }
    Ok(Some(match Amount::deserialize(from)? {
        Amount::Text(text) => text,
        Amount::Bytes(bytes) => bytes.to_string(),
    }))
}

impl Default for Memory {
    fn default() -> Self {
        Self { limit: None, keep: Keep::Auto.to_string() }
    }
}

impl Memory {
    pub(super) fn validate(&self) -> Result<(), String> {
        self.limit()?;
        self.keep()?;
        Ok(())
    }

    /// Most bytes to use.
    pub(crate) fn limit(&self) -> Result<Option<u64>, String> {
        let parsed =
            |text: &String| text.parse::<Limit>().map_err(|e| format!("memory.limit is `{text}`; {e}"));
        Ok(self.limit.as_ref().map(parsed).transpose()?.and_then(Limit::bytes))
    }

    /// The limit, for people, where one is set.
    pub(crate) fn limit_in_words(&self) -> Option<String> {
        self.limit.as_ref().map(|text| match text.as_str() {
            MAX => "memory.limit is max: all of the device's memory".to_owned(),
            amount => format!("memory.limit is {amount}, with what was in use before"),
        })
    }

    /// Both, for a device.
    pub(crate) fn limit_and_keep(&self) -> anyhow::Result<(Option<u64>, Keep)> {
        self.limit().and_then(|limit| Ok((limit, self.keep()?))).map_err(|reason| anyhow::anyhow!(reason))
    }

    /// What is kept.
    pub(crate) fn keep(&self) -> Result<Keep, String> {
        match self.keep.parse() {
            Ok(keep) => Ok(keep),
            Err(why) => bytes(&self.keep).map(Keep::Bytes).map_err(|_| format!("memory.keep: {why}")),
        }
    }
}

/// All memory that there is, as a limit.
const MAX: &str = "max";

/// A limit of memory: an amount, or `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(Option<u64>);

impl Limit {
    /// Bytes; none for all that there is.
    pub(crate) fn bytes(self) -> Option<u64> {
        self.0
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == MAX {
            return Ok(Self(None));
        }
        bytes(text)
            .map(|bytes| Self(Some(bytes)))
            .map_err(|why| format!("{why}; `{MAX}` is all of the memory"))
    }
}

/// Units of an amount, longest name first.
const UNITS: [(&str, f64); 7] = [
    ("GiB", (1_u64 << 30) as f64),
    ("MiB", (1_u64 << 20) as f64),
    ("KiB", (1_u64 << 10) as f64),
    ("GB", 1e9),
    ("MB", 1e6),
    ("kB", 1e3),
    ("", 1.0),
];

/// Less than this without a unit is taken for a forgotten unit.
const LEAST_WITHOUT_UNIT: f64 = 1024.0;

/// An amount such as `14.5GiB`, in bytes.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *unit, factor)))
        .expect("the empty unit ends every text");
    match number.trim().parse::<f64>() {
        // Nobody means 24 bytes by 24.
        Ok(number) if unit.is_empty() && number > 0.0 && number < LEAST_WITHOUT_UNIT => {
            Err(format!("{text} is a number of bytes; write {text}GB"))
        }
        Ok(number) if number > 0.0 && number.is_finite() => Ok((number * factor) as u64),
        _ => Err("expected an amount such as 14.5GiB, 900MB or a number of bytes".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_with_their_units() {
        for (text, expected) in
            [("1024", 1024), ("2KiB", 2048), ("14.5GiB", 15_569_256_448), ("3 MB", 3_000_000)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for wrong in ["", "GiB", "-1", "0", "nan", "inf", "12 parsecs"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(bytes("24").unwrap_err(), "24 is a number of bytes; write 24GB");
    }

    #[test]
    fn policies_are_names_or_amounts_and_errors_name_the_key() {
        let of = |keep: &str| Memory { limit: None, keep: keep.into() }.keep();
        assert_eq!((of("auto"), of("all")), (Ok(Keep::Auto), Ok(Keep::All)));
        assert_eq!((of("2GiB"), of("7700")), (Ok(Keep::Bytes(2 << 30)), Ok(Keep::Bytes(7700))));
        assert!(of("most").unwrap_err().contains("memory.keep"));
        let limit = Memory { limit: Some("much".into()), ..Memory::default() }.limit();
        let why = limit.unwrap_err();
        assert!(
            why.contains("memory.limit is `much`") && why.contains("`max` is all of the memory"),
            "{why}"
        );
    }

    #[test]
    fn a_limit_is_an_amount_or_max() {
        let of = |text: &str| Memory { limit: Some(text.into()), ..Memory::default() };
        for (text, expected) in [("max", None), ("12GB", Some(12_000_000_000)), ("8GiB", Some(8 << 30))] {
            assert_eq!(of(text).limit(), Ok(expected), "{text}");
            assert_eq!(text.parse::<Limit>().unwrap().bytes(), expected, "{text}");
        }
        for wrong in ["Max", "maximum", "12", ""] {
            assert!(of(wrong).limit().is_err() && wrong.parse::<Limit>().is_err(), "{wrong}");
        }
        assert!(of("max").limit_in_words().unwrap().contains("all of the device's memory"));
        assert!(of("12GB").limit_in_words().unwrap().contains("12GB"));
        assert_eq!(Memory::default().limit_in_words(), None);
    }
}
