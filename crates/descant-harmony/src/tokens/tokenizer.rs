//! Text to ids and back, behind a small trait.
//!
//! The engine is the `tokenizers` crate, which panics on some crafted files; only byte-level BPE reaches it, and every
//! call into it is guarded, so a bad file is an error and not the end of the process. A truncation, padding or
//! post-processing section of the file is not read: it would change rows in silence. The engine never sees a special
//! token as special: this crate cuts rendered text itself, which keeps one engine in memory for both ways of encoding.

use crate::digest::hex;
use crate::error::{Error, Result};
use crate::file::read_bounded;
use crate::limits;
use crate::tokens::bpe::{Bpe, Engine};
use crate::tokens::letters::Letters;
use crate::tokens::special::{ControlTokens, Piece};
use crate::tokens::tokenizer_file::TokenizerFile;
use crate::tokens::vocabulary::{TOKENIZER_SHA256, published_file, published_ranks};
use crate::tokens::words::Words;
use sha2::{Digest, Sha256};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Turns text into ids and back; the one thing the rest of the crate asks of a tokenizer.
pub trait TextEncoder: Send + Sync {
    /// Encodes text in which special tokens are ordinary characters.
    ///
    /// # Errors
    /// When the engine fails.
    fn encode_text(&self, text: &str) -> Result<Vec<u32>>;

    /// Encodes text in which special tokens are special.
    ///
    /// # Errors
    /// When the engine fails.
    fn encode_rendered(&self, text: &str) -> Result<Vec<u32>>;

    /// Decodes ids, special tokens as their text. Ids outside the vocabulary give nothing.
    ///
    /// # Errors
    /// When the engine fails.
    fn decode(&self, ids: &[u32]) -> Result<String>;
}

/// A `tokenizer.json` with the control tokens of Harmony.
pub struct Tokenizer {
    engine: Engine,
    control: ControlTokens,
    vocab_size: usize,
    sha256: String,
    /// Present where words can be tokenized one by one.
    words: Option<Words>,
    letters: Letters,
}

impl Tokenizer {
    /// Loads `tokenizer.json` of a model directory. The published one is built in and only recognized.
    ///
    /// # Errors
    /// When the file is missing, too large, no tokenizer, or lacks a control token of Harmony.
    pub fn load(model_dir: &Path) -> Result<Self> {
        let path = model_dir.join("tokenizer.json");
        let bytes = read_bounded(&path, limits::TOKENIZER_BYTES)?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    /// Loads a `tokenizer.json` from its bytes; `file` is its name in errors.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn from_bytes(bytes: &[u8], file: &str) -> Result<Self> {
        if bytes.len() as u64 > limits::TOKENIZER_BYTES {
            return Err(Error::FileTooLarge { path: file.into(), limit: limits::TOKENIZER_BYTES });
        }
        let sha256 = hex(&Sha256::digest(bytes));
        if sha256 == TOKENIZER_SHA256 {
            return Self::gpt_oss();
        }
        let bad = |reason: String| Error::TokenizerFile { file: file.to_owned(), reason };
        let mut shape = TokenizerFile::parse(bytes).map_err(bad)?;
        let bpe = guarded(|| shape.bpe()).map_err(bad)?;
        Self::of(&shape, bpe, file, sha256)
    }

    /// The published tokenizer of gpt-oss, which is built in: the one that its `tokenizer.json` gives, without the file.
    ///
    /// # Errors
    /// Never in a tested build; the type is that of every other tokenizer.
    pub fn gpt_oss() -> Result<Self> {
        let bpe = Bpe::Ranks(Box::new(published_ranks()?));
        Self::of(&published_file()?, bpe, "the built-in tokenizer", TOKENIZER_SHA256.to_owned())
    }

    fn of(shape: &TokenizerFile, bpe: Bpe, file: &str, sha256: String) -> Result<Self> {
        let bad = |reason: String| Error::TokenizerFile { file: file.to_owned(), reason };
        let words = shape.splits_at_spaces().then(Words::default);
        let engine = guarded(|| shape.engine(bpe)).map_err(bad)?;
        let control = control_tokens(&engine, file)?;
        shape.check_ids(|content| engine.token_to_id(content)).map_err(bad)?;
        let vocab_size = engine.get_vocab_size(false).max(control.max_id() as usize + 1);
        let tokenizer = Self { engine, control, vocab_size, sha256, words, letters: Letters::new() };
        // Some crafted files load and panic only when used.
        tokenizer.encode_text("A first text: 123, naïve café\n").map_err(|error| bad(error.to_string()))?;
        Ok(tokenizer)
    }

    /// The control tokens.
    pub fn control(&self) -> &ControlTokens {
        &self.control
    }

    /// One past the largest id that the tokenizer knows; the model may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Encodes a text in one piece.
    fn encode_whole(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.engine.encode_fast(text, false))
            .map_err(|reason| Error::Encode { bytes: text.len(), reason })?;
        let ids = encoding.get_ids().to_vec();
        match ids.iter().find(|id| self.control.is_special(**id)) {
            Some(id) => Err(Error::ContentBecameControl { id: *id }),
            None => Ok(ids),
        }
    }

    /// The bytes of a token; of an id outside the vocabulary there are none.
    pub(crate) fn bytes_of(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.engine.id_to_token(id) else { return Vec::new() };
        // As the engine's decoder does with a token that is not written in letters of bytes.
        self.letters.bytes(&token).unwrap_or_else(|| token.into_bytes())
    }

    /// SHA-256 of `tokenizer.json`, for the run's record.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

impl TextEncoder for Tokenizer {
    fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        match &self.words {
            Some(words) => words.encode(text, |piece| self.encode_whole(piece)),
            None => self.encode_whole(text),
        }
    }

    fn encode_rendered(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        for piece in self.control.split(text) {
            match piece {
                Piece::Control(id) => ids.push(id),
                Piece::Text(text) => ids.extend(self.encode_text(text)?),
            }
        }
        Ok(ids)
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded(|| self.engine.decode(ids, false))
            .map_err(|reason| Error::Decode { count: ids.len(), reason })
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

/// All special tokens of the engine, refused where they would match other than their own text.
fn control_tokens(engine: &Engine, file: &str) -> Result<ControlTokens> {
    let mut specials = Vec::new();
    for (id, token) in engine.get_added_tokens_decoder() {
        if !token.special {
            continue;
        }
        let flags = [("single_word", token.single_word), ("lstrip", token.lstrip), ("rstrip", token.rstrip)];
        if let Some((flag, _)) = flags.into_iter().find(|(_, set)| *set) {
            return Err(Error::SpecialFlag { file: file.to_owned(), token: token.content, flag });
        }
        if token.content.is_empty() || specials.len() >= limits::SPECIAL_TOKENS {
            let reason = format!("an empty special token, or more than {}", limits::SPECIAL_TOKENS);
            return Err(Error::TokenizerFile { file: file.to_owned(), reason });
        }
        specials.push((token.content, id));
    }
    // The engine keeps them in a hash map; nothing may depend on its order.
    specials.sort_by_key(|(_, id)| *id);
    ControlTokens::find(specials).map_err(|token| Error::SpecialMissing { file: file.to_owned(), token })
}

/// Runs the engine; its panics and errors both come back as text.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(format!("the engine panicked: {}", text.as_deref().unwrap_or("no reason given")))
        }
    }
}
