//! What a run or a preview says of its data: form, template, tokens by channel and language, what was left out.

use std::path::PathBuf;

use crate::words::grouped;
use descant_harmony::prepare::{Account, Prepared};
use descant_harmony::preview::Lengths;
use descant_harmony::read::{DataSet, Format};
use descant_harmony::{IgnoredKey, MaskPolicy, Renderer, TokenClass};
use serde_json::{Value, json};

/// Version of `data.json`.
const VERSION: u32 = 1;
/// Most buckets of the lengths.
const BUCKETS: usize = 12;

/// A key that changes no token, in words.
pub(crate) fn in_words(key: &IgnoredKey) -> String {
    format!("`{}` in {} {}: not used", key.key, grouped(key.count), key.place.plural())
}

/// The account of a data set.
#[derive(Debug)]
pub(crate) struct DataAccount {
    path: PathBuf,
    format: Option<Format>,
    mask: MaskPolicy,
    template_source: String,
    template_sha256: String,
    tokenizer_sha256: String,
    /// What became of the rows.
    pub(crate) account: Account,
    /// How long the examples are; absent without any.
    pub(crate) lengths: Option<Lengths>,
}

impl DataAccount {
    /// Takes the account out of a prepared set.
    pub(crate) fn new(renderer: &Renderer, set: &DataSet, prepared: &mut Prepared, mask: MaskPolicy) -> Self {
        let template = renderer.template();
        Self {
            path: set.path.clone(),
            format: set.format,
            mask,
            template_source: template.source().to_string(),
            template_sha256: template.sha256().to_owned(),
            tokenizer_sha256: renderer.tokenizer().sha256().to_owned(),
            account: std::mem::take(&mut prepared.account),
            lengths: Lengths::of(prepared.examples.iter().map(|example| example.ids.len()), BUCKETS),
        }
    }

    /// Examples that are left to train on.
    pub(crate) fn examples(&self) -> u64 {
        self.account.languages.iter().map(|share| share.examples).sum()
    }

    /// The form of the rows, in words.
    pub(crate) fn form(&self) -> String {
        self.format.map_or_else(|| "no good row".to_owned(), |format| format.to_string())
    }

    /// The template, in words.
    pub(crate) fn template(&self) -> String {
        let sha256 = self.template_sha256.get(..12).unwrap_or_default();
        format!("{} (sha256 {sha256})", self.template_source)
    }

    /// Trained tokens by channel, in words.
    pub(crate) fn channels(&self) -> String {
        let trained = self.account.tokens.iter().filter(|(_, count)| count.trained > 0);
        let words = trained.map(|(class, count)| {
            let name = if class == TokenClass::Unchanneled { "no channel" } else { class.as_str() };
            format!("{name} {}", grouped(count.trained))
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// Examples by the language that their rows state, in words; `None` where no row states one.
    pub(crate) fn stated_languages(&self) -> Option<String> {
        let stated = self.account.languages.iter().any(|share| share.stated.is_some());
        let words = self.account.languages.iter().map(|share| {
            let name = share.stated.as_deref().unwrap_or("not stated");
            format!("{name} {}", grouped(share.examples))
        });
        stated.then(|| words.collect::<Vec<_>>().join(", "))
    }

    /// What is saved.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "schema_version": VERSION,
            "path": self.path,
            "format": self.format,
            "template": {"source": self.template_source, "sha256": self.template_sha256},
            "tokenizer_sha256": self.tokenizer_sha256,
            "mask": self.mask,
            "examples": self.examples(),
            "account": self.account,
            "lengths": self.lengths,
            "languages": self.account.languages,
        })
    }
}
