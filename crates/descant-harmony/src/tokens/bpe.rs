//! The engine, and the two models that it may have: the library's BPE, of a file, and the published ranks, built in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::tokens::ranks::Ranks;
use tokenizers::models::bpe::BPE;
use tokenizers::{
    AddedToken, DecoderWrapper, Model, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Token,
    TokenizerImpl, Trainer,
};

/// The engine with either model.
pub(super) type Engine =
    TokenizerImpl<Bpe, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// A byte-level BPE.
pub(super) enum Bpe {
    /// What a file says.
    File(Box<BPE>),
    /// The published one.
    Ranks(Box<Ranks>),
}

impl Model for Bpe {
    type Trainer = Never;

    fn tokenize(&self, piece: &str) -> tokenizers::Result<Vec<Token>> {
        match self {
            Self::File(bpe) => bpe.tokenize(piece),
            Self::Ranks(ranks) => {
                ranks.tokenize(piece).ok_or_else(|| "a piece that is not spelled in bytes".into())
            }
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            Self::File(bpe) => bpe.token_to_id(token),
            Self::Ranks(ranks) => ranks.id(token),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            Self::File(bpe) => bpe.id_to_token(id),
            Self::Ranks(ranks) => ranks.token(id),
        }
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        match self {
            Self::File(bpe) => bpe.get_vocab(),
            Self::Ranks(ranks) => {
                (0..ranks.len() as u32).filter_map(|id| Some((ranks.token(id)?, id))).collect()
            }
        }
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            Self::File(bpe) => bpe.get_vocab_size(),
            Self::Ranks(ranks) => ranks.len(),
        }
    }

    fn save(&self, _: &Path, _: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        Err("a model is read, never written".into())
    }

    fn get_trainer(&self) -> Never {
        Never
    }
}

/// The engine asks for something that could train a vocabulary; nothing here does.
pub(super) struct Never;

impl Trainer for Never {
    type Model = Bpe;

    fn should_show_progress(&self) -> bool {
        false
    }

    fn train(&self, _: &mut Bpe) -> tokenizers::Result<Vec<AddedToken>> {
        Err("vocabularies are not trained".into())
    }

    fn feed<I, S, F>(&mut self, _: I, _: F) -> tokenizers::Result<()>
    where
        I: Iterator<Item = S> + Send,
        S: AsRef<str> + Send,
        F: Fn(&str) -> tokenizers::Result<Vec<String>> + Sync,
    {
        Err("vocabularies are not trained".into())
    }
}
