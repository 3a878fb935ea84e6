//! Which of the Latin languages a text is in, by the statistics of the crate `lingua`.
//!
//! One detector a run, models read when first used, one thread. Without the feature `languages` nothing is ever
//! decided.

use crate::languages::Language;

/// The best answer and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Guess {
    pub(crate) language: Language,
    /// From 0 to 1.
    pub(crate) confidence: f64,
    /// That of the next best.
    pub(crate) second: f64,
}

/// Tells some Latin languages apart.
pub(crate) struct Latin {
    pub(crate) languages: Vec<Language>,
    #[cfg(feature = "languages")]
    detector: Option<lingua::LanguageDetector>,
}

impl std::fmt::Debug for Latin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Latin").field("languages", &self.languages).finish_non_exhaustive()
    }
}

#[cfg(feature = "languages")]
mod by_lingua {
    use lingua::Language as Theirs;

    use super::{Guess, Language, Latin};

    const PAIRS: [(&str, Theirs); 8] = [
        ("en", Theirs::English),
        ("fr", Theirs::French),
        ("de", Theirs::German),
        ("es", Theirs::Spanish),
        ("it", Theirs::Italian),
        ("pt", Theirs::Portuguese),
        ("nl", Theirs::Dutch),
        ("sw", Theirs::Swahili),
    ];

    impl Latin {
        /// For the Latin ones of these languages.
        pub(crate) fn new(languages: &[Language]) -> Self {
            let languages: Vec<Language> = Language::latin().filter(|l| languages.contains(l)).collect();
            let theirs: Vec<Theirs> = PAIRS
                .iter()
                .filter(|(code, _)| languages.iter().any(|ours| ours.code() == *code))
                .map(|(_, theirs)| *theirs)
                .collect();
            let detector = (!theirs.is_empty())
                .then(|| lingua::LanguageDetectorBuilder::from_languages(&theirs).build());
            Self { languages, detector }
        }

        /// The best guess about a text that has Latin letters only.
        pub(super) fn ask(&self, text: String) -> Option<Guess> {
            let values = self.detector.as_ref()?.compute_language_confidence_values(text);
            let (first, confidence) = values.first()?;
            let code = PAIRS.iter().find(|(_, theirs)| theirs == first)?.0;
            let second = values.get(1).map_or(0.0, |(_, second)| *second);
            Some(Guess { language: Language::from_code(code)?, confidence: *confidence, second })
        }
    }
}

#[cfg(not(feature = "languages"))]
impl Latin {
    /// For the Latin ones of these languages, none of which it can identify.
    pub(crate) fn new(languages: &[Language]) -> Self {
        Self { languages: Language::latin().filter(|l| languages.contains(l)).collect() }
    }

    #[expect(clippy::unused_self, reason = "as with the feature")]
    fn ask(&self, _text: String) -> Option<Guess> {
        None
    }
}

impl Latin {
    /// The best guess about the Latin letters of a text.
    pub(crate) fn guess(&self, text: &str) -> Option<Guess> {
        use crate::chars::{LATIN, MARK};
        let kept = |c: char| {
            LATIN.has(c)
                || MARK.has(c)
                || c.is_whitespace()
                || matches!(c, '\'' | '’' | '-' | '.' | ',' | ';' | ':' | '!' | '?' | '¿' | '¡')
        };
        self.ask(text.chars().map(|c| if kept(c) { c } else { ' ' }).collect())
    }
}
