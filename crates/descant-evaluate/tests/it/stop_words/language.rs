//! Which of five languages a text is in, by a vote of stop words.
//!
//! Port of `detect` in `generate.py`. Made for reasoning of a few words, where statistics over letters fail; it
//! says nothing useful about other languages.

use serde::{Deserialize, Serialize};

/// A language the vote knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum Language {
    /// English
    #[serde(rename = "en")]
    English,
    /// French
    #[serde(rename = "fr")]
    French,
    /// Spanish
    #[serde(rename = "es")]
    Spanish,
    /// German
    #[serde(rename = "de")]
    German,
    /// Italian
    #[serde(rename = "it")]
    Italian,
}

impl Language {
    /// All five; an even vote goes to the first of them.
    pub(super) const ALL: [Self; 5] =
        [Self::English, Self::French, Self::Spanish, Self::German, Self::Italian];

    /// Two-letter code.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::French => "fr",
            Self::Spanish => "es",
            Self::German => "de",
            Self::Italian => "it",
        }
    }

    /// English name, as data sets write it in `reasoning_language`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::French => "French",
            Self::Spanish => "Spanish",
            Self::German => "German",
            Self::Italian => "Italian",
        }
    }

    /// The language with this [`name`](Self::name).
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.name() == name)
    }

    /// Words that count for this language. A word may count for several.
    fn stop_words(self) -> &'static str {
        match self {
            Self::English => {
                "we the to and is are so then first add subtract multiply divide just by from both sides answer let \
                 me check larger one each boxes task"
            }
            Self::French => {
                "il faut on la le les des et est donc ensuite puis d'abord je j'ajoute suffit de d'additionner par \
                 deux côtés réponse vérifions dans soustrais divise chacune boîtes s'agit plus grand soustraire \
                 multiplier obtient"
            }
            Self::Spanish => {
                "hay que el los las y es así primero después luego sumamos restamos resto sumo divido entre ambos \
                 lados respuesta basta con la por tanto mayor cada cajas se trata entonces sumar restar multiplicar \
                 obtenemos comprobemos"
            }
            Self::German => {
                "wir die der und ist also zuerst dann ich ziehe ab teile durch addiere einfach müssen aufgabe antwort \
                 beide seiten zahl größere größer jede kisten erhalten addieren subtrahieren multiplizieren probe"
            }
            Self::Italian => {
                "bisogna si tratta di e è il quindi prima poi sottraggo aggiungo divido per entrambi lati basta \
                 risposta la i più grande ognuna scatole otteniamo sommiamo sottraiamo sommare sottrarre moltiplicare \
                 verifichiamo"
            }
        }
    }

    fn knows(self, word: &str) -> bool {
        self.stop_words().split(' ').any(|known| known == word)
    }
}

/// The language with the most stop words in `text`; `None` when no word is known.
pub(super) fn detect(text: &str) -> Option<Language> {
    let mut votes = [0_usize; Language::ALL.len()];
    for word in text.split(is_python_space) {
        let word = word.trim_matches(['.', ',', ':', ';', '!', '?', '¿', '¡', '(', ')']).to_lowercase();
        for (vote, language) in votes.iter_mut().zip(Language::ALL) {
            *vote += usize::from(!word.is_empty() && language.knows(&word));
        }
    }
    let most = votes.into_iter().max().filter(|&most| most > 0)?;
    Language::ALL.into_iter().zip(votes).find(|&(_, vote)| vote == most).map(|(language, _)| language)
}

/// Python's `str.split()` also splits at the four ASCII separators, which Unicode does not call white space.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
