//! An object whose keys are asked for by name, so that what nobody asked for is known.

use crate::error::{Error, Result};
use crate::row::json;
use serde_json::{Map, Value as Json};
use std::borrow::Cow;

/// The keys of an object. A key with null counts as absent: column formats fill every struct with all keys.
pub(crate) struct Fields<'r> {
    map: &'r Map<String, Json>,
    /// Path of the object, with a point at its end; empty for a row.
    prefix: String,
    taken: Vec<&'static str>,
}

impl<'r> Fields<'r> {
    /// The keys of a row.
    pub(crate) fn of_row(row: &'r Map<String, Json>) -> Self {
        Self { map: row, prefix: String::new(), taken: Vec::new() }
    }

    /// The keys of an object inside a row.
    ///
    /// # Errors
    /// It is not an object.
    pub(crate) fn of(json: &'r Json, path: &str) -> Result<Self> {
        let map = json.as_object().ok_or_else(|| Error::wrong(path, "an object", json))?;
        Ok(Self { map, prefix: format!("{path}."), taken: Vec::new() })
    }

    /// The path of a key.
    pub(crate) fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// A key's value.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<&'r Json> {
        self.taken.push(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Whether a key is there, without asking for it.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !value.is_null())
    }

    /// The first of several keys with one meaning that is there.
    ///
    /// # Errors
    /// Two are there and differ.
    pub(crate) fn one_of(&mut self, keys: &[&'static str]) -> Result<Option<(&'static str, &'r Json)>> {
        let mut found: Option<(&'static str, &'r Json)> = None;
        for key in keys {
            let Some(value) = self.get(key) else { continue };
            match found {
                None => found = Some((key, value)),
                Some((_, other)) if other == value => {}
                Some((first, _)) => return Err(self.differs(first, key)),
            }
        }
        Ok(found)
    }

    /// What is wrong with two keys that mean one thing and say two.
    pub(crate) fn differs(&self, first: &str, second: &str) -> Error {
        Error::field(
            self.path(second),
            format!("differs from another field with the same meaning, `{first}`"),
        )
    }

    /// A text.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn text(&mut self, key: &'static str) -> Result<Option<&'r str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| Error::wrong(self.path(key), "a text", value))
    }

    /// Keys that nobody asked for, with their values.
    pub(crate) fn left(&self) -> impl Iterator<Item = (&'r String, &'r Json)> {
        self.map.iter().filter(|(key, value)| !value.is_null() && !self.taken.contains(&key.as_str()))
    }
}

/// A list or an object that a column format had to store as text.
///
/// # Errors
/// The text is not JSON.
pub(crate) fn parsed_if_text<'r>(value: &'r Json, path: &str) -> Result<Cow<'r, Json>> {
    match value.as_str() {
        Some(text) => json::value(text.as_bytes())
            .map(Cow::Owned)
            .map_err(|reason| Error::field(path, format!("a text that is not JSON: {reason}"))),
        None => Ok(Cow::Borrowed(value)),
    }
}
