//! One reply, judged: everything that later figures count.
//!
//! The language that was asked for is compared with what was found at the very end, and shown to nothing before.

use descant_harmony::Tokenizer;
use serde::Serialize;
use serde::ser::SerializeMap as _;

use crate::answer::Answer;
use crate::chars::has_words;
use crate::language::Detector;
use crate::languages::Language;
use crate::reading::{Analysis, End, Reading};

/// What a reply is judged against.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Text of all messages of the prompt.
    pub prompt: &'a str,
    /// The reasoning language asked for.
    pub language: Option<Language>,
    /// The language that the answer should have.
    pub answer_language: Option<Language>,
    /// What is right.
    pub answer: &'a Answer,
    /// Recipients of the tools that were offered.
    pub tools: &'a [String],
}

/// What was found in one reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// `valid`, or the first defect by name.
    pub harmony: &'static str,
    /// How it ended.
    pub end: End,
    /// What became of the reasoning.
    pub analysis: Analysis,
    /// Whom it calls, where it is valid and ends in a call.
    pub called: Option<String>,
    /// Language of the reasoning; `None` where there is nothing to judge.
    pub reasoning_language: Option<&'static str>,
    /// Language of the answer; `None` where there is nothing to judge.
    pub answer_language: Option<&'static str>,
    /// Whether the answer is right; `None` where nothing is judged.
    pub right: Option<bool>,
    /// Whether the reasoning is in the language asked for.
    pub hit: bool,
    /// Whether the answer is in the language it should have; `None` where none is stated.
    pub answer_hit: Option<bool>,
    /// Tokens of the reasoning.
    pub analysis_tokens: usize,
    /// Share of each language in the reasoning.
    pub shares: Vec<(&'static str, f64)>,
    /// Roots that are in the answer, where roots are judged.
    pub roots_found: Option<usize>,
    /// The language that was asked for.
    pub asked: Option<Language>,
}

impl Verdict {
    /// Whether its length may be compared: it ended, and it reasoned. A loop is long without being effort.
    pub fn reasoned(&self) -> bool {
        self.end == End::Ended && self.analysis == Analysis::Present
    }
}

/// Judges one reply, given as the ids behind the prompt's `<|start|>assistant`.
pub fn judge(ids: &[u32], asked: Asked<'_>, tokenizer: &Tokenizer, detector: &Detector) -> Verdict {
    let reading = Reading::new(ids, asked.tools, tokenizer);
    let is_judged = matches!(reading.analysis, Analysis::Present | Analysis::Truncated);
    let found = is_judged.then(|| detector.language(&reading.reasoning, asked.prompt));
    let answer = reading.answer.as_deref();
    let spoken =
        answer.filter(|text| has_words(text)).map(|text| detector.language(text, asked.prompt).verdict);
    let reasoning_language = found.as_ref().map(|found| found.verdict);
    Verdict {
        harmony: reading.harmony,
        end: reading.end,
        analysis: reading.analysis,
        reasoning_language,
        answer_language: spoken,
        right: asked.answer.is_right(answer),
        hit: asked.language.is_some_and(|language| reasoning_language == Some(language.code())),
        answer_hit: asked.answer_language.map(|language| spoken == Some(language.code())),
        analysis_tokens: reading.analysis_tokens,
        shares: found.map(|found| found.shares).unwrap_or_default(),
        roots_found: asked.answer.roots_found(answer),
        called: reading.called,
        asked: asked.language,
    }
}

impl Serialize for Verdict {
    /// The fields of one line of `descant evaluate --judge`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// Shares as an object.
        struct Shares<'a>(&'a [(&'static str, f64)]);
        impl Serialize for Shares<'_> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().copied())
            }
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("harmony", self.harmony)?;
        map.serialize_entry("end", &self.end)?;
        map.serialize_entry("analysis", &self.analysis)?;
        map.serialize_entry("called", &self.called)?;
        map.serialize_entry("reasoning_language", &self.reasoning_language)?;
        map.serialize_entry("answer_language", &self.answer_language)?;
        map.serialize_entry("right", &self.right)?;
        map.serialize_entry("hit", &self.hit)?;
        map.serialize_entry("analysis_tokens", &self.analysis_tokens)?;
        map.serialize_entry("shares", &Shares(&self.shares))?;
        if let Some(found) = self.roots_found {
            map.serialize_entry("roots_found", &found)?;
        }
        map.end()
    }
}
