//! What a `tokenizer.json` may ask the engine to do.
//!
//! The engine reads far more than gpt-oss needs, and some of it is a program in disguise: thirty replacements of `a` by
//! `aa` make a gigabyte of one letter, a post-processor may repeat its input a million times, and running out of memory
//! cannot be caught. So a file is looked at before the engine sees it, and only byte-level BPE passes, which every
//! tokenizer of this family is. What the engine would pass over in silence is refused here too: ids that it would
//! renumber, and a dropout that gives other tokens each time.

use crate::tokens::words;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value as Json;

/// Longest split pattern; the published one has 347 characters.
const PATTERN_BYTES: usize = 4096;
/// Most steps of a pre-tokenizer; the published one has two.
const STEPS: usize = 8;

/// The parts of a file that decide what the engine does.
#[derive(Deserialize)]
pub(crate) struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Json,
    #[serde(default)]
    pre_tokenizer: Json,
    #[serde(default)]
    decoder: Json,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(rename = "vocab")]
    _vocab: IgnoredAny,
}

impl TokenizerFile {
    /// Reads a file; says what in it is not byte-level BPE.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let model = &file.model;
        if model.kind != "BPE" {
            return Err(only("model", &model.kind));
        }
        if let Some(dropout) = model.dropout {
            return Err(format!(
                "model.dropout is {dropout}; the same text would give other tokens each time"
            ));
        }
        for (key, value) in [
            ("continuing_subword_prefix", &model.continuing_subword_prefix),
            ("end_of_word_suffix", &model.end_of_word_suffix),
        ] {
            if value.as_deref().is_some_and(|value| !value.is_empty()) {
                return Err(format!("model.{key} is set; byte-level BPE has none"));
            }
        }
        if !file.normalizer.is_null() && !["NFC", "NFD", "NFKC", "NFKD"].contains(&kind(&file.normalizer)) {
            return Err(only("normalizer", kind(&file.normalizer)));
        }
        if kind(&file.decoder) != "ByteLevel" {
            return Err(only("decoder", kind(&file.decoder)));
        }
        let steps = file.steps();
        if steps.len() > STEPS {
            return Err(format!("pre_tokenizer has {} steps; at most {STEPS} are read", steps.len()));
        }
        for step in &steps {
            check_step(step)?;
        }
        if !steps.iter().any(|step| kind(step) == "ByteLevel") {
            return Err(only("pre_tokenizer", "without ByteLevel"));
        }
        Ok(file)
    }

    /// Checks that every added token has the id in use that the file gives it: the engine numbers them in their order.
    pub(crate) fn check_ids(&self, used: impl Fn(&str) -> Option<u32>) -> Result<(), String> {
        for Added { id, content, .. } in &self.added_tokens {
            let used = used(content);
            if used != Some(*id) {
                let used = used.map_or_else(|| "none".to_owned(), |used| used.to_string());
                let content: String = content.chars().take(60).collect();
                return Err(format!("added token `{content}` has id {id} in the file and {used} in use"));
            }
        }
        Ok(())
    }

    /// Whether words can be tokenized one by one.
    pub(crate) fn splits_at_spaces(&self) -> bool {
        // An added token that is not special is found inside text, also across words.
        let all_special = self.added_tokens.iter().all(|token| token.special);
        all_special && words::splits_at_spaces(&self.normalizer, &self.pre_tokenizer)
    }

    fn steps(&self) -> Vec<&Json> {
        match (kind(&self.pre_tokenizer), self.pre_tokenizer["pretokenizers"].as_array()) {
            ("Sequence", Some(steps)) => steps.iter().collect(),
            _ => vec![&self.pre_tokenizer],
        }
    }
}

fn check_step(step: &Json) -> Result<(), String> {
    match kind(step) {
        "ByteLevel" => Ok(()),
        "Split" => {
            let pattern = &step["pattern"];
            let text = pattern["Regex"].as_str().or_else(|| pattern["String"].as_str());
            match text {
                Some(text) if !text.is_empty() && text.len() <= PATTERN_BYTES => Ok(()),
                Some(text) => Err(format!("a split pattern of {} bytes", text.len())),
                None => Err("a split without a pattern".to_owned()),
            }
        }
        other => Err(only("pre_tokenizer", other)),
    }
}

fn kind(part: &Json) -> &str {
    part["type"].as_str().unwrap_or("none")
}

fn only(part: &str, found: &str) -> String {
    let found: String = found.chars().take(40).collect();
    format!("only byte-level BPE is read, as gpt-oss has it; {part}: {found}")
}
