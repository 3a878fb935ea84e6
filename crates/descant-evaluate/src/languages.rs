//! The languages that can be asked for, and those that can be found.
//!
//! A code is what verdicts and counts carry, a name is what prompts and people carry. Latin languages are distinguished
//! by statistics over letters; every other one has a script of its own.

use serde::{Deserialize, Serialize};

/// A language that a question may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub struct Language(usize);

/// Code and English name. The Latin ones come first.
const KNOWN: [(&str, &str); 17] = [
    ("en", "English"),
    ("fr", "French"),
    ("de", "German"),
    ("es", "Spanish"),
    ("it", "Italian"),
    ("pt", "Portuguese"),
    ("nl", "Dutch"),
    ("sw", "Swahili"),
    ("zh", "Chinese"),
    ("ja", "Japanese"),
    ("ko", "Korean"),
    ("ru", "Russian"),
    ("ar", "Arabic"),
    ("hi", "Hindi"),
    ("bn", "Bengali"),
    ("te", "Telugu"),
    ("th", "Thai"),
];
const LATIN: usize = 8;

/// Languages that may be found and cannot be asked for, by their script.
const FOUND_ONLY: [(&str, &str); 15] = [
    ("el", "Greek"),
    ("he", "Hebrew"),
    ("ta", "Tamil"),
    ("gu", "Gujarati"),
    ("pa", "Punjabi"),
    ("kn", "Kannada"),
    ("ml", "Malayalam"),
    ("ka", "Georgian"),
    ("hy", "Armenian"),
    ("km", "Khmer"),
    ("lo", "Lao"),
    ("my", "Burmese"),
    ("si", "Sinhala"),
    ("am", "Amharic"),
    ("other", "another language"),
];

impl Language {
    /// Every one, the Latin ones first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..KNOWN.len()).map(Self)
    }

    /// Those written in Latin letters.
    pub fn latin() -> impl Iterator<Item = Self> {
        (0..LATIN).map(Self)
    }

    /// The language of an English name, such as `French`.
    pub fn from_name(name: &str) -> Option<Self> {
        KNOWN.iter().position(|(_, known)| *known == name).map(Self)
    }

    /// The language of a code, such as `fr`.
    pub fn from_code(code: &str) -> Option<Self> {
        KNOWN.iter().position(|(known, _)| *known == code).map(Self)
    }

    /// Its two-letter code.
    pub fn code(self) -> &'static str {
        KNOWN[self.0].0
    }

    /// Its English name.
    pub fn name(self) -> &'static str {
        KNOWN[self.0].1
    }

    /// Whether it is written in Latin letters.
    pub fn is_latin(self) -> bool {
        self.0 < LATIN
    }
}

impl From<Language> for &'static str {
    fn from(language: Language) -> Self {
        language.code()
    }
}

impl TryFrom<String> for Language {
    type Error = String;

    fn try_from(code: String) -> Result<Self, String> {
        Self::from_code(&code).ok_or_else(|| format!("`{code}` is not a known language code"))
    }
}

/// The English name of whatever a verdict says: a code, `mixed`, `unsure`, `other` or `none`.
pub fn name_of(verdict: &str) -> &str {
    let known = KNOWN.iter().chain(&FOUND_ONLY).find(|(code, _)| *code == verdict);
    known.map_or(verdict, |(_, name)| name)
}

/// The names that a question may use, for messages.
pub(crate) fn names() -> String {
    KNOWN.map(|(_, name)| name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_lead_to_each_other() {
        for language in Language::all() {
            assert_eq!(Language::from_name(language.name()), Some(language));
            assert_eq!(Language::from_code(language.code()), Some(language));
            assert_eq!(name_of(language.code()), language.name());
        }
        assert_eq!(
            Language::latin().map(Language::code).collect::<Vec<_>>().join(" "),
            "en fr de es it pt nl sw"
        );
        assert_eq!((Language::from_name("english"), Language::from_code("el")), (None, None));
        assert_eq!((name_of("mixed"), name_of("ta")), ("mixed", "Tamil"));
    }
}
