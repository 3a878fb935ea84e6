//! What a `tokenizer.json` may ask the engine to do.
//!
//! The engine reads far more than gpt-oss needs, and some of it is a program in disguise: thirty replacements of `a` by
//! `aa` make a gigabyte of one letter, a post-processor may repeat its input a million times, and running out of memory
//! cannot be caught. So a file is looked at before the engine sees it, and only byte-level BPE passes, which every
//! tokenizer of this family is. What the engine would pass over in silence is refused here too: ids that it would
//! renumber, and a dropout that gives other tokens each time.
//!
//! The engine is put together here, part by part: reading the whole file, it keeps every vocabulary entry and merge as
//! a JSON value first, which for the published file takes ten times the memory of what is built.

use crate::tokens::bpe::{Bpe, Engine};
use crate::tokens::merges::Merges;
use crate::tokens::words;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper};

/// Longest split pattern; the published one has 347 characters.
const PATTERN_BYTES: usize = 4096;
/// Most steps of a pre-tokenizer; the published one has two.
const STEPS: usize = 8;

/// The only version of the file's layout.
const VERSION: &str = "1.0";

/// The parts of a file that decide what the engine does.
#[derive(Deserialize)]
pub(super) struct TokenizerFile {
    #[serde(default)]
    version: Option<String>,
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
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: Option<bool>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    vocab: Vocab,
    merges: Merges,
}

impl TokenizerFile {
    /// Reads a file; says what in it is not byte-level BPE.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let other = |error: serde_json::Error| other_engine(bytes).unwrap_or_else(|| error.to_string());
        let file: Self = serde_json::from_slice(bytes).map_err(other)?;
        if let Some(version) = file.version.as_deref().filter(|version| *version != VERSION) {
            let version: String = version.chars().take(40).collect();
            return Err(format!("version {version}; only {VERSION} is read"));
        }
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

    /// The model; the file is left without its vocabulary.
    pub(super) fn bpe(&mut self) -> tokenizers::Result<Bpe> {
        let model = &mut self.model;
        let (vocab, merges) = (std::mem::take(&mut model.vocab), std::mem::take(&mut model.merges));
        let mut bpe = BPE::builder()
            .vocab_and_merges(vocab, merges.0)
            .fuse_unk(model.fuse_unk.unwrap_or_default())
            .byte_fallback(model.byte_fallback.unwrap_or_default())
            .ignore_merges(model.ignore_merges.unwrap_or_default());
        if let Some(unknown) = model.unk_token.take() {
            bpe = bpe.unk_token(unknown);
        }
        Ok(Bpe::File(Box::new(bpe.build()?)))
    }

    /// The engine around a model.
    pub(super) fn engine(&self, bpe: Bpe) -> tokenizers::Result<Engine> {
        let mut engine = Engine::new(bpe);
        engine.with_normalizer(part::<NormalizerWrapper>(&self.normalizer)?)?;
        engine.with_pre_tokenizer(part::<PreTokenizerWrapper>(&self.pre_tokenizer)?);
        engine.with_decoder(part::<DecoderWrapper>(&self.decoder)?);
        engine.add_tokens(self.added_tokens.iter().map(|added| added.token.clone()))?;
        engine.set_encode_special_tokens(true);
        Ok(engine)
    }

    /// Checks that every added token has the id in use that the file gives it: the engine numbers them in their order.
    pub(super) fn check_ids(&self, used: impl Fn(&str) -> Option<u32>) -> Result<(), String> {
        for Added { id, token } in &self.added_tokens {
            let used = used(&token.content);
            if used != Some(*id) {
                let used = used.map_or_else(|| "none".to_owned(), |used| used.to_string());
                let content: String = token.content.chars().take(60).collect();
                return Err(format!("added token `{content}` has id {id} in the file and {used} in use"));
            }
        }
        Ok(())
    }

    /// Whether words can be tokenized one by one.
    pub(super) fn splits_at_spaces(&self) -> bool {
        // An added token that is not special is found inside text, also across words.
        let all_special = self.added_tokens.iter().all(|added| added.token.special);
        all_special && words::splits_at_spaces(&self.normalizer, &self.pre_tokenizer)
    }

    fn steps(&self) -> Vec<&Json> {
        match (kind(&self.pre_tokenizer), self.pre_tokenizer["pretokenizers"].as_array()) {
            ("Sequence", Some(steps)) => steps.iter().collect(),
            _ => vec![&self.pre_tokenizer],
        }
    }
}

/// What to say of a file whose model is of another kind, whose vocabulary may have any form.
fn other_engine(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct File {
        model: Kind,
    }
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    let File { model } = serde_json::from_slice(bytes).ok()?;
    (model.kind != "BPE").then(|| only("model", &model.kind))
}

/// A part that the engine reads; none where the file has none.
fn part<T: DeserializeOwned>(json: &Json) -> serde_json::Result<Option<T>> {
    Option::<T>::deserialize(json)
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
