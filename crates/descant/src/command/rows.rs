//! Rows of a file as samples of the trainer, with an account of those that are not among them.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, anyhow};
use descant_harmony::prepare::{PrepareOptions, Survey, each_example};
use descant_harmony::read::{DataFiles, Format, ReadOptions, data_files};
use descant_harmony::store::Store;
use descant_harmony::{Error, RenderOptions, Renderer};
use descant_train::{Sample, Watched};

use super::account::{DataAccount, Validated};
use super::examples::{Examples, Source};
use super::overlap::{self, Known};
use super::prepared::{Cache, Recipe};
use super::sample::sample;
use super::validation;
use crate::failure::Hinted;
use crate::settings::{Settings, ValidationData};
use crate::talk::Talk;
use crate::words::is_hub_name;

/// What the settings train on.
pub(crate) struct Training {
    /// The examples.
    pub(crate) examples: Examples,
    /// Those whose loss is watched.
    pub(crate) watched: Vec<Watched>,
    /// What became of all rows.
    pub(crate) account: DataAccount,
}

/// Reads, or finds in the cache, what the settings train on.
pub(crate) fn training(settings: &Settings, renderer: &Renderer, talk: Talk) -> Result<Training> {
    let data = &settings.data;
    let sets = data.sets();
    if sets.is_empty() {
        return Err(Hinted::new(anyhow!("data.path is not set"), "write --set data.path=FILE").into());
    }
    let cache = Cache::of(settings)?;
    let (read, options) = options(settings)?;
    let prepared = |path: &Path, format: Option<Format>| -> Result<Store> {
        let recipe =
            Recipe { renderer, path, read: ReadOptions { format, ..read }, options: options.clone() };
        let store = recipe.examples(cache.as_ref(), talk).map_err(hinted)?;
        if store.is_empty() {
            return Err(Error::NothingLeft { path: path.to_path_buf() }.into());
        }
        Ok(store)
    };
    let stores: Vec<Store> = sets.iter().map(|set| prepared(&set.path, set.format)).collect::<Result<_>>()?;
    let files: Vec<DataFiles> = sets.iter().map(|set| data_files(&set.path)).collect::<Result<_, _>>()?;
    let surveys = stores.iter().zip(&sets).zip(files).map(|((store, set), files)| {
        let lengths = (0..store.len()).map(|at| store.tokens(at));
        let survey = store.survey().clone();
        (Survey { path: set.path.clone(), passed_over: files.passed_over, ..survey }, lengths)
    });
    let mut account = DataAccount::of_several(renderer, surveys, data.mask);
    let most = settings.validate.examples;
    let (watched, groups) = match &data.validation {
        None => (Vec::new(), BTreeSet::new()),
        Some(ValidationData::Share(share)) => {
            let groups = validation::chosen(&stores, *share)?;
            let all: Vec<&Store> = stores.iter().collect();
            let is_chosen = |store: &Store, at| groups.contains(&store.group(at));
            let (watched, examples) = validation::watched(&all, is_chosen, most)?;
            let watched_on = watched.len();
            account.validation = Some(Validated { examples, watched: watched_on, shared: 0, repeated: 0 });
            (watched, groups)
        }
        Some(ValidationData::File(path)) => {
            let store = prepared(path, None)?;
            let known = Known::of(&stores, |_| false);
            let is_new = |store: &Store, at| !known.has(store, at);
            let (watched, examples) = validation::watched(&[&store], is_new, most)?;
            if watched.is_empty() {
                let error = anyhow!("data.validation: every example of {} is trained on", path.display());
                return Err(Hinted::new(error, "name a file of other rows, or give a share").into());
            }
            let begins = |at: &usize| is_new(&store, *at) && known.has_prompt(store.group(*at));
            let shared = (0..store.len()).filter(begins).count();
            let repeated = store.len() - examples;
            account.validation = Some(Validated { examples, watched: watched.len(), shared, repeated });
            (watched, BTreeSet::new())
        }
    };
    account.repeated(&overlap::repeated(&stores));
    if let Some(path) = &data.held_out {
        let known = Known::of(&stores, |group| groups.contains(&group));
        account.asked = overlap::asked(&known, renderer, path, &options);
    }
    let sources = stores.into_iter().map(|store| Source::new(store, |group| groups.contains(&group)));
    let shares: Vec<f64> = sets.iter().filter_map(|set| set.share).collect();
    let examples = Examples::new(sources.collect(), &shares)?;
    account.settle(&examples);
    Ok(Training { examples, watched, account })
}

/// Reads and prepares a short data set as `[data]` says.
pub(crate) fn samples(
    settings: &Settings,
    path: &Path,
    renderer: &Renderer,
) -> Result<(Vec<Sample>, DataAccount)> {
    let (read, options) = options(settings)?;
    let mut samples = Vec::new();
    let survey = each_example(renderer, path, &read, &options, &mut |_| {}, &mut |example| {
        samples.push(sample(example));
        Ok(())
    });
    let survey = survey.map_err(|error| hinted(error.into()))?;
    if samples.is_empty() {
        return Err(Error::NothingLeft { path: path.to_path_buf() }.into());
    }
    let lengths = samples.iter().map(|sample| sample.ids.len());
    let account = DataAccount::new(renderer, survey, lengths, settings.data.mask);
    Ok((samples, account))
}

/// How `[data]` says that rows are read and prepared.
fn options(settings: &Settings) -> Result<(ReadOptions, PrepareOptions)> {
    let data = &settings.data;
    let date = settings.data.date().map_err(|reason| anyhow!(reason))?;
    let read = ReadOptions { on_bad_row: data.on_bad_row, format: data.format };
    let options = PrepareOptions {
        render: RenderOptions { date, effort: Some(data.effort.clone()), ..RenderOptions::default() },
        views: data.views,
        mask: data.mask,
        weights: data.loss,
        max_tokens: Some(settings.train.max_sequence),
        on_too_long: data.too_long,
        on_bad_row: data.on_bad_row,
    };
    Ok((read, options))
}

/// Leaving a row out makes no data set of a file that is none.
fn hinted(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(Error::Row { path, row, source }) => {
            let hint = match *source {
                Error::TooLong { .. } => {
                    "raise train.max_sequence, or leave longer rows out with data.too_long = \"drop\""
                }
                _ => "data.on_bad_row = \"skip\" leaves bad rows out and counts them",
            };
            Hinted::new(Error::Row { path, row, source }, hint).into()
        }
        Ok(Error::Io { path, source }) => {
            let name = path.to_str().filter(|name| !path.exists() && is_hub_name(name)).map(str::to_owned);
            let error = Error::Io { path, source };
            match name {
                Some(name) => {
                    let hint = format!("a data set of a hub is written hf://datasets/{name}");
                    Hinted::new(error, hint).into()
                }
                None => error.into(),
            }
        }
        Ok(other) => other.into(),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use descant_harmony::{MaskPolicy, TextEncoder as _};

    use super::*;

    fn held_out(mask: MaskPolicy) -> (Renderer, Vec<Sample>) {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss"));
        let renderer = Renderer::load(root, None).unwrap();
        let mut settings = Settings::default();
        settings.data.mask = mask;
        let (samples, _) = samples(&settings, &root.join("data/held-out.jsonl"), &renderer).unwrap();
        (renderer, samples)
    }

    #[test]
    fn the_first_token_of_the_reasoning_is_found_in_every_row() {
        let (renderer, samples) = held_out(MaskPolicy::Assistant);
        assert_eq!(samples.len(), 100);
        for sample in &samples {
            let first = sample.first_analysis.unwrap();
            let before = renderer.tokenizer().decode(&sample.ids[..first]).unwrap();
            assert!(before.ends_with("<|start|>assistant<|channel|>analysis<|message|>"), "{before}");
            assert!(sample.weights[first] > 0.0);
        }
    }

    #[test]
    fn reasoning_that_is_not_trained_has_no_first_token() {
        let (_, samples) = held_out(MaskPolicy::FinalOnly);
        assert!(samples.iter().all(|sample| sample.first_analysis.is_none()));
        assert!(samples.iter().all(|sample| sample.weights.contains(&1.0)));
    }
}
