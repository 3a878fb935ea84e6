//! What a run or a preview says of its data: form, template, tokens by channel and language, what was left out.

use std::path::PathBuf;

use descant_harmony::prepare::{Account, Survey};
use descant_harmony::preview::Lengths;
use descant_harmony::read::{Format, PassedOver};
use descant_harmony::{IgnoredKey, MaskPolicy, Renderer, TokenClass};
use serde::Serialize;
use serde_json::{Value, json};

use super::examples::Examples;
use crate::words::grouped;

/// Version of `data.json`.
const VERSION: u32 = 1;
/// Bad rows that are shown with their reasons.
const SHOWN_REJECTS: usize = 3;
/// Most buckets of the lengths.
const BUCKETS: usize = 24;

/// A key that changes no token, or a tag that is text, as text.
pub(crate) fn in_words(key: &IgnoredKey) -> String {
    let fate = if key.is_tag() {
        "trained as text; only an answer that begins with it and closes it once has reasoning between tags"
    } else {
        "not used"
    };
    format!("`{}` in {} {}: {fate}", key.key, grouped(key.count), key.place.plural())
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
    /// Each data set, where there are several.
    sources: Vec<SourceAccount>,
    /// Examples of an epoch, the repeated ones counted as often as they come; absent where nothing is trained.
    in_epoch: Option<usize>,
    /// What is validated on.
    pub(crate) validation: Option<Validated>,
    /// Questions that ask what is trained on.
    pub(crate) asked: usize,
    /// Files of folders that were not read.
    pub(crate) passed_over: PassedOver,
}

/// One of several data sets.
#[derive(Debug, Serialize)]
struct SourceAccount {
    path: PathBuf,
    format: Option<Format>,
    rows: u64,
    /// Examples that are trained on.
    examples: usize,
    /// How many of an epoch come from it.
    in_epoch: usize,
    /// Examples that an earlier data set has too.
    repeated: usize,
}

/// Examples that are not trained on.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Validated {
    /// How many there are.
    pub(crate) examples: usize,
    /// Of them looked at.
    pub(crate) watched: usize,
    /// Of them begin as one that is trained on.
    pub(crate) shared: usize,
    /// Examples that were left out of them because they are trained on.
    pub(crate) repeated: usize,
}

impl DataAccount {
    /// The account of a prepared set, with the lengths of its examples.
    pub(crate) fn new(
        renderer: &Renderer,
        survey: Survey,
        lengths: impl IntoIterator<Item = usize>,
        mask: MaskPolicy,
    ) -> Self {
        let template = renderer.template();
        Self {
            path: survey.path,
            format: survey.format,
            mask,
            template_source: template.source().to_string(),
            template_sha256: template.sha256().to_owned(),
            tokenizer_sha256: renderer.tokenizer().sha256().to_owned(),
            account: survey.account,
            lengths: Lengths::of(lengths, BUCKETS),
            sources: Vec::new(),
            in_epoch: None,
            validation: None,
            asked: 0,
            passed_over: survey.passed_over,
        }
    }

    /// The account of all data sets of a run, at least one, each with the lengths of its examples.
    pub(crate) fn of_several<L: Iterator<Item = usize>>(
        renderer: &Renderer,
        surveys: impl Iterator<Item = (Survey, L)>,
        mask: MaskPolicy,
    ) -> Self {
        let (mut lengths, mut sources, mut all) = (Vec::new(), Vec::new(), None::<Survey>);
        for (survey, of_source) in surveys {
            lengths.extend(of_source);
            let (path, format, rows) = (survey.path.clone(), survey.format, survey.account.rows);
            sources.push(SourceAccount { path, format, rows, examples: 0, in_epoch: 0, repeated: 0 });
            match &mut all {
                None => all = Some(survey),
                Some(all) => {
                    all.account.add(&survey.account);
                    all.passed_over.merge(&survey.passed_over);
                    all.format = all.format.filter(|format| survey.format == Some(*format));
                }
            }
        }
        let all = all.unwrap_or_else(|| Survey {
            path: PathBuf::new(),
            format: None,
            account: Account::default(),
            passed_over: PassedOver::default(),
        });
        Self { sources, ..Self::new(renderer, all, lengths, mask) }
    }

    /// Takes in which examples are trained on, and how often.
    pub(crate) fn settle(&mut self, examples: &Examples) {
        for (account, source) in self.sources.iter_mut().zip(examples.sources()) {
            (account.examples, account.in_epoch) = (source.examples(), source.places());
        }
        self.in_epoch = Some(self.sources.iter().map(|source| source.in_epoch).sum());
    }

    /// Takes in how many examples of each data set an earlier one has too.
    pub(crate) fn repeated(&mut self, counts: &[usize]) {
        for (account, count) in self.sources.iter_mut().zip(counts) {
            account.repeated = *count;
        }
    }

    /// What a person should know of before this is trained on: what was left out, keys and files that were not used,
    /// examples that are in two places, the first bad rows.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let (account, number) = (&self.account, |count: usize| grouped(count as u64));
        let left_out = [
            (account.rejects.count, "bad rows were left out"),
            (account.duplicates, "duplicates were left out"),
            (account.dropped, "too long ones were left out"),
            (account.cut, "were cut at a message"),
            (account.empty, "in which nothing is trained were left out"),
        ];
        let left_out = left_out.into_iter().filter(|(count, _)| *count > 0);
        let mut warnings: Vec<String> =
            left_out.map(|(count, what)| format!("{} {what}", grouped(count))).collect();
        warnings.extend(self.passed_over.groups().map(|group| group.to_string()));
        warnings.extend(self.account.ignored.iter().map(|key| in_words(&key)));
        for source in self.sources.iter().filter(|source| source.repeated > 0) {
            let (count, path) = (number(source.repeated), source.path.display());
            warnings.push(format!("{count} examples of {path} are also in an earlier data set"));
        }
        if let Some(Validated { shared, repeated, .. }) = self.validation {
            if repeated > 0 {
                let count = number(repeated);
                warnings.push(format!(
                    "{count} validation examples are trained on, and left out of the validation"
                ));
            }
            if shared > 0 {
                warnings.push(format!(
                    "{} validation examples begin with a prompt that is trained on",
                    number(shared)
                ));
            }
        }
        if self.asked > 0 {
            warnings.push(format!("{} held-out prompts are also trained on", number(self.asked)));
        }
        let bad = account.rejects.first.iter().take(SHOWN_REJECTS);
        warnings.extend(bad.map(|reject| format!("row {}: {}", reject.number, reject.reason)));
        warnings
    }

    /// What is trained on of each of several data sets, as text; none where there is one.
    pub(crate) fn sources(&self) -> impl Iterator<Item = String> {
        let all = self.in_epoch.unwrap_or(0).max(1) as f64;
        let several = self.sources.iter().filter(|_| self.sources.len() > 1);
        several.map(move |source| {
            let share = 100.0 * source.in_epoch as f64 / all;
            let (examples, in_epoch) = (grouped(source.examples as u64), grouped(source.in_epoch as u64));
            format!("{}: {examples} examples, {in_epoch} in an epoch, {share:.1} %", source.path.display())
        })
    }

    /// Examples that were made of the rows, those that are validated on among them.
    fn made(&self) -> u64 {
        self.account.languages.iter().map(|share| share.examples).sum()
    }

    /// Examples that are left to train on.
    pub(crate) fn examples(&self) -> u64 {
        match self.in_epoch {
            Some(_) => self.sources.iter().map(|source| source.examples as u64).sum(),
            None => self.made(),
        }
    }

    /// The form of the rows, as text.
    pub(crate) fn form(&self) -> String {
        self.format.map_or_else(|| "no good row".to_owned(), |format| format.to_string())
    }

    /// The template, as text.
    pub(crate) fn template(&self) -> String {
        let sha256 = self.template_sha256.get(..12).unwrap_or_default();
        format!("{} (sha256 {sha256})", self.template_source)
    }

    /// Trained tokens by channel, as text.
    pub(crate) fn channels(&self) -> String {
        let trained = self.account.tokens.iter().filter(|(_, count)| count.trained > 0);
        let words = trained.map(|(class, count)| {
            let name = if class == TokenClass::Unchanneled { "no channel" } else { class.as_str() };
            format!("{name} {}", grouped(count.trained))
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// Examples by the language that their rows state, as text; `None` where no row states one.
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
        let mut json = json!({
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
        });
        if self.sources.len() > 1 {
            json["sources"] = json!(self.sources);
            json["path"] = Value::Null;
            json["in_epoch"] = json!(self.in_epoch);
        }
        if self.asked > 0 {
            json["held_out_trained"] = json!(self.asked);
        }
        if !self.passed_over.is_empty() {
            json["passed_over"] = json!(self.passed_over);
        }
        if let Some(validation) = &self.validation {
            json["validation"] = json!(validation);
        }
        json
    }
}
