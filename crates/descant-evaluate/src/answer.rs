//! What is right, and whether a final is.

use num_rational::BigRational;
use num_traits::{Signed as _, Zero as _};
use regex::Regex;
use serde_json::{Map, Value as Json};

use crate::chars::{CYRILLIC, LATIN, LETTER, NUMBER, compatible, digit, fold};
use crate::claim;
use crate::number::decimal;

/// Tolerance of roots that state none.
const ROOTS: &str = "0.006";
/// Largest compiled pattern of a question, in bytes.
const PATTERN_BYTES: usize = 1 << 20;

/// What is right.
#[derive(Debug, Clone, Default)]
pub enum Answer {
    /// Nothing is judged.
    #[default]
    None,
    /// The number that the final claims.
    Number {
        /// The number.
        value: BigRational,
        /// How far off it may be.
        tolerance: BigRational,
    },
    /// All real roots of an equation, and no number claimed as a root that is none.
    Roots {
        /// The roots.
        values: Vec<BigRational>,
        /// How far off each may be.
        tolerance: BigRational,
    },
    /// One of several texts.
    Text {
        /// Any of these, in the form they are compared in.
        accept: Vec<String>,
        /// Whether it may occur anywhere, as whole words.
        contains: bool,
        /// None of these, where it may.
        reject: Vec<String>,
    },
    /// One letter from A to J.
    Choice(char),
    /// A pattern that matches somewhere, and one that matches nowhere.
    Pattern {
        /// Must match.
        value: Regex,
        /// Must not.
        not: Option<Regex>,
    },
}

impl Answer {
    /// Reads `{"kind": ..., ...}`.
    ///
    /// # Errors
    /// The key that does not fit, and why.
    pub fn from_json(json: &Json) -> Result<Self, String> {
        if json.is_null() {
            return Ok(Self::None);
        }
        let map = json.as_object().ok_or("answer: expected an object with `kind`")?;
        let fields = Fields(map);
        let kind = map.get("kind").and_then(Json::as_str).ok_or("answer.kind: expected a text")?;
        let known: &[&str] = match kind {
            "none" => &["kind"],
            "number" | "roots" => &["kind", "value", "tolerance"],
            "text" => &["kind", "value", "accept", "contains", "reject"],
            "choice" => &["kind", "value"],
            "regex" => &["kind", "value", "not"],
            _ => {
                return Err(format!(
                    "answer.kind: `{kind}` is not one of none, number, roots, text, choice, regex"
                ));
            }
        };
        if let Some(key) = map.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("answer.{key}: not a key of the kind `{kind}`"));
        }
        Ok(match kind {
            "number" => {
                let (value, places) = fields.number("value")?.ok_or("answer.value: missing")?;
                let half = if places == 0 { BigRational::zero() } else { half_of_last(places) };
                let tolerance = fields.tolerance()?.unwrap_or(half);
                Self::Number { value, tolerance }
            }
            "roots" => {
                let values = map.get("value").and_then(Json::as_array).filter(|values| !values.is_empty());
                let values = values.ok_or("answer.value: expected a list of roots")?;
                let root = |json: &Json| exact(json).map(|(value, _)| value);
                let values = values.iter().map(root).collect::<Option<Vec<_>>>();
                let tolerance =
                    fields.tolerance()?.or_else(|| decimal(ROOTS)).unwrap_or_else(BigRational::zero);
                Self::Roots {
                    values: values.ok_or("answer.value: a root is not a decimal number")?,
                    tolerance,
                }
            }
            "text" => {
                let value = fields.text("value")?.ok_or("answer.value: missing")?;
                let texts = |texts: Vec<String>| texts.iter().map(|text| plain(text)).collect::<Vec<_>>();
                let accept = texts([vec![value], fields.texts("accept")?].concat());
                if accept.iter().any(String::is_empty) {
                    return Err("answer.value, answer.accept: a text without letters or digits".into());
                }
                Self::Text {
                    accept,
                    contains: fields.flag("contains")?,
                    reject: texts(fields.texts("reject")?),
                }
            }
            "choice" => {
                let value = fields.text("value")?.unwrap_or_default();
                let letter = value.chars().next().filter(|c| value.len() == 1 && ('A'..='J').contains(c));
                Self::Choice(
                    letter.ok_or_else(|| format!("answer.value: `{value}` is not a letter from A to J"))?,
                )
            }
            "regex" => {
                let value = fields.pattern("value")?.ok_or("answer.value: missing")?;
                Self::Pattern { value, not: fields.pattern("not")? }
            }
            _ => Self::None,
        })
    }

    /// Whether a final is right; `None` where nothing is judged. A final that is not there is not right.
    pub fn is_right(&self, text: Option<&str>) -> Option<bool> {
        if matches!(self, Self::None) {
            return None;
        }
        let Some(text) = text else { return Some(false) };
        Some(match self {
            Self::None => return None,
            Self::Number { value, tolerance } => claim::number(text)
                .is_some_and(|readings| readings.iter().any(|r| (r - value).abs() <= *tolerance)),
            Self::Roots { values, tolerance } => {
                let roots = claim::roots(text, values, tolerance);
                roots.found == values.len() && roots.wrong == 0
            }
            Self::Text { accept, contains, reject } => {
                let have = plain(text);
                if *contains {
                    accept.iter().any(|want| stands_in(want, &have))
                        && !reject.iter().any(|bad| stands_in(bad, &have))
                } else {
                    accept.contains(&have)
                }
            }
            Self::Choice(letter) => claim::choice(text).is_some_and(|found| found == letter.to_string()),
            Self::Pattern { value, not } => {
                value.is_match(text) && !not.as_ref().is_some_and(|not| not.is_match(text))
            }
        })
    }

    /// How many of the roots are in a final; `None` when roots are not what is judged.
    pub fn roots_found(&self, text: Option<&str>) -> Option<usize> {
        match (self, text) {
            (Self::Roots { values, tolerance }, Some(text)) => {
                Some(claim::roots(text, values, tolerance).found)
            }
            _ => None,
        }
    }

    /// Whether something is judged.
    pub fn is_judged(&self) -> bool {
        !matches!(self, Self::None)
    }
}

fn half_of_last(places: usize) -> BigRational {
    decimal(&format!("0.{}5", "0".repeat(places))).unwrap_or_else(BigRational::zero)
}

/// A decimal number, as text or as a number, with its places.
fn exact(json: &Json) -> Option<(BigRational, usize)> {
    let text = match json {
        Json::String(text) => text.clone(),
        Json::Number(number) => number.to_string(),
        _ => return None,
    };
    let places = text.split_once('.').map_or(0, |(_, part)| part.len());
    decimal(&text).map(|value| (value, places))
}

/// The keys of an answer.
struct Fields<'a>(&'a Map<String, Json>);

impl Fields<'_> {
    fn number(&self, key: &str) -> Result<Option<(BigRational, usize)>, String> {
        let json = self.0.get(key).filter(|json| !json.is_null());
        let number = |json| exact(json).ok_or_else(|| format!("answer.{key}: expected a decimal number"));
        json.map(number).transpose()
    }

    fn tolerance(&self) -> Result<Option<BigRational>, String> {
        match self.number("tolerance")? {
            Some((value, _)) if value.is_negative() => Err("answer.tolerance: expected 0 or more".into()),
            other => Ok(other.map(|(value, _)| value)),
        }
    }

    fn text(&self, key: &str) -> Result<Option<String>, String> {
        match self.0.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("answer.{key}: expected a text")),
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, String> {
        let wrong = || format!("answer.{key}: expected a list of texts");
        match self.0.get(key) {
            None | Some(Json::Null) => Ok(Vec::new()),
            Some(Json::Array(items)) => {
                items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    fn flag(&self, key: &str) -> Result<bool, String> {
        match self.0.get(key) {
            None | Some(Json::Null) => Ok(false),
            Some(Json::Bool(flag)) => Ok(*flag),
            Some(_) => Err(format!("answer.{key}: expected true or false")),
        }
    }

    fn pattern(&self, key: &str) -> Result<Option<Regex>, String> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let compiled = regex::RegexBuilder::new(&text).size_limit(PATTERN_BYTES).build();
        compiled.map(Some).map_err(|error| format!("answer.{key}: {error}"))
    }
}

/// The form in which texts are compared: compatibility form, folded, without markdown and outer punctuation.
fn plain(text: &str) -> String {
    let text = fold(&compatible(text));
    let text = match (text.find("\\boxed"), text.rfind('}')) {
        (Some(at), Some(end)) if end > at => unboxed(&text, at, end),
        _ => text,
    };
    let text: String = text.chars().filter(|c| !matches!(c, '*' | '_' | '`' | '#')).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let outer = |c: char| " \t\n.,;:!?。！？।\"'“”„«»‘’「」()".contains(c);
    text.trim_matches(outer).to_owned()
}

/// `\boxed {...}` without its frame; the text as it is where it is not a frame.
fn unboxed(text: &str, at: usize, end: usize) -> String {
    match text[at + "\\boxed".len()..end].trim_start().strip_prefix('{') {
        Some(inside) => format!("{}{inside}{}", &text[..at], &text[end + 1..]),
        None => text.to_owned(),
    }
}

/// Whether `want` is in `have`: as whole words where words have spaces.
fn stands_in(want: &str, have: &str) -> bool {
    if !want.chars().any(|c| LATIN.has(c) || CYRILLIC.has(c) || digit(c).is_some()) {
        return have.contains(want);
    }
    let in_word = |c: Option<char>| c.is_some_and(|c| LETTER.has(c) || NUMBER.has(c));
    have.char_indices().any(|(at, _)| {
        let Some(behind) = have[at..].strip_prefix(want) else { return false };
        !in_word(have[..at].chars().next_back()) && !in_word(behind.chars().next())
    })
}
