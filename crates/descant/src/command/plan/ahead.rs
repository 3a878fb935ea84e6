//! What is known of a model and of data before they are fetched.
//!
//! A model that is not here is planned by its published shape and with the built-in tokenizer. Of data that is not here
//! the lengths are unknown, so memory is planned for sequences as long as the settings allow.

use std::borrow::Cow;

use anyhow::{Context as _, Result};
use descant_harmony::{ChatTemplate, Renderer, Tokenizer};
use descant_hub::Reference;
use descant_model::Config;
use descant_train::memory::{Asking, Load};
use descant_train::{Error, Sample, Samples, TrainConfig};

use crate::command::examination::Examination;
use crate::command::{load, rows};
use crate::hub::missing;
use crate::published::{self, DataSet};
use crate::settings::{Recipe, Resolved, Settings};
use crate::talk::Talk;
use crate::words::{counted, grouped};

/// The model.
pub(super) struct Base {
    pub(super) config: Config,
    pub(super) renderer: Renderer,
    /// Bytes to fetch, where it is not here.
    pub(super) download: Option<u64>,
}

impl Base {
    /// Reads it, or takes what is built in.
    pub(super) fn find(settings: &Settings) -> Result<Self> {
        let model = &settings.model;
        let Some(reference) = missing(&model.path)? else {
            let renderer = load::renderer(settings)?;
            return Ok(Self { config: load::config(&model.path)?, renderer, download: None });
        };
        let config = published::config(&reference.repo).ok_or_else(|| published::unknown(&reference.repo))?;
        let template = model.chat_template.as_deref();
        let template = template.map_or_else(ChatTemplate::official, ChatTemplate::from_file)?;
        let download = Some(published::download(&config));
        Ok(Self { config, renderer: Renderer::new(Tokenizer::gpt_oss()?, template), download })
    }
}

/// What is trained on.
pub(super) enum Rows {
    /// Every row was read.
    Here(Box<rows::Training>),
    /// It is not here.
    Ahead(Ahead),
}

/// Data that is not here.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Repositories to fetch; none where the settings name no data.
    missing: Vec<Reference>,
    /// What is published of it, where it is one known data set.
    known: Option<&'static DataSet>,
    /// Tokens of the longest sequence that the settings allow.
    longest: usize,
    /// Sequences that are planned with.
    count: usize,
}

impl Rows {
    /// Reads the data, or finds out what is known of it. `may_be_unnamed` is whether settings without data are planned.
    pub(super) fn find(
        settings: &Settings,
        renderer: &Renderer,
        may_be_unnamed: bool,
        talk: Talk,
    ) -> Result<Self> {
        let data = &settings.data;
        let sets = data.sets();
        let mut away = Vec::new();
        for path in sets.iter().map(|set| &set.path).chain(data.validation_file()) {
            away.extend(missing(path)?);
        }
        if away.is_empty() && !(sets.is_empty() && may_be_unnamed) {
            return Ok(Self::Here(Box::new(rows::training(settings, renderer, talk)?)));
        }
        let known = match (sets.as_slice(), away.as_slice()) {
            ([_], [one]) if one.file.is_none() => DataSet::find(&one.repo),
            _ => None,
        };
        let (train, longest) = (&settings.train, settings.train.max_sequence);
        let count = known.map_or(train.units(), |known| known.rows as usize);
        Ok(Self::Ahead(Ahead { missing: away, known, longest, count: count.max(1) }))
    }

    /// The samples, or placeholders that are as long as a sample may be.
    pub(super) fn samples(&self) -> &dyn Samples {
        match self {
            Self::Here(training) => &training.examples,
            Self::Ahead(ahead) => ahead,
        }
    }

    /// Data that is not here.
    pub(super) fn ahead(&self) -> Option<&Ahead> {
        match self {
            Self::Here(_) => None,
            Self::Ahead(ahead) => Some(ahead),
        }
    }

    /// How many examples there are, as far as that is known.
    pub(super) fn examples(&self) -> Option<u64> {
        match self {
            Self::Here(training) => Some(training.account.examples()),
            Self::Ahead(ahead) => ahead.known.map(|known| known.rows),
        }
    }

    /// Tokens of all steps, as far as they are known. `load` is that of [`samples`](Self::samples).
    pub(super) fn tokens(&self, load: Load, train: &TrainConfig) -> Option<u64> {
        match self {
            Self::Here(_) => Some(load.in_all),
            // Packed sequences are full, whatever they are made of.
            Self::Ahead(_) if train.packing => Some(load.in_all),
            Self::Ahead(ahead) => {
                let units = train.max_steps.saturating_mul(train.units() as u64);
                ahead.known.map(|known| known.tokens_a_row().saturating_mul(units).min(load.in_all))
            }
        }
    }

    /// Tokens of a sequence, for what attention costs.
    pub(super) fn a_sample(&self) -> usize {
        let samples = self.samples();
        let all = || (0..samples.count()).map(|at| samples.tokens(at)).sum::<usize>();
        match self.ahead().and_then(|ahead| ahead.known) {
            Some(known) => known.tokens_a_row() as usize,
            None => all() / samples.count().max(1),
        }
    }

    /// How much is asked at once, before and after training.
    pub(super) fn asking(
        &self,
        resolved: &Resolved,
        recipe: Option<&Recipe>,
        base: &Base,
        tokens: u64,
    ) -> Result<Option<Asking>> {
        let settings = &resolved.settings;
        if base.download.is_none() && self.ahead().is_none() && recipe.is_none() {
            let examination = Examination::new(resolved, &base.renderer, None, Some(tokens))?;
            return Ok(examination.as_ref().map(Examination::asking));
        }
        let mut settings = settings.clone();
        let held_out = settings.data.held_out.clone();
        let away = held_out.as_deref().map(missing).transpose()?.flatten();
        if let Some(away) = away {
            let longest = settings.train.max_sequence + settings.evaluate.max_new_tokens;
            settings.data.held_out = None;
            let others = Examination::asking_ahead(&settings, &base.renderer, tokens, None);
            let others = others.with_context(|| format!("beside {away}"))?;
            let batch = settings.evaluate.batch.max(1) as u64;
            let tokens = others.map_or(0, |others| others.tokens).max(longest as u64);
            let scored = settings.train.max_sequence as u64;
            return Ok(Some(Asking { batch, tokens, scored }));
        }
        let shipped = held_out.filter(|path| !path.exists());
        let shipped = shipped.and_then(|path| recipe.and_then(|recipe| recipe.text(&path)));
        Examination::asking_ahead(&settings, &base.renderer, tokens, shipped)
    }
}

impl Ahead {
    /// Bytes to fetch, where they are known.
    pub(super) fn download(&self) -> Option<u64> {
        self.known.map(|known| known.download)
    }

    /// What is known of the data, for people.
    pub(super) fn words(&self) -> String {
        let names: Vec<String> = self.missing.iter().map(ToString::to_string).collect();
        let longest = grouped(self.longest as u64);
        let memory = format!("memory is planned for sequences of {longest} tokens, train.max_sequence");
        match (self.known, names.as_slice()) {
            (Some(known), _) => format!(
                "{}: {} of about {} tokens each, estimated from {}; {memory}",
                names.join(", "),
                counted(known.rows, "row"),
                grouped(known.tokens_a_row()),
                known.source
            ),
            (None, []) => format!("none is named, so its tokens are unknown; {memory}"),
            (None, _) => format!("{}: unknown until the data is here; {memory}", names.join(", ")),
        }
    }
}

impl Samples for Ahead {
    fn count(&self) -> usize {
        self.count
    }

    fn tokens(&self, _: usize) -> usize {
        self.longest
    }

    fn trained(&self, _: usize) -> usize {
        self.longest.saturating_sub(1)
    }

    fn row(&self, at: usize) -> usize {
        at + 1
    }

    fn get(&self, at: usize) -> descant_train::Result<Cow<'_, Sample>> {
        Err(Error::Unreadable { at, reason: "the data is not here".into() })
    }
}
