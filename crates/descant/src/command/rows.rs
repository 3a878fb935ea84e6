//! Rows of a file as samples of the trainer, with an account of those that are not among them.

use std::path::Path;

use anyhow::{Result, anyhow};
use descant_harmony::prepare::{Example, PrepareOptions, prepare};
use descant_harmony::read::{ReadOptions, read};
use descant_harmony::{Error, RenderOptions, Renderer};
use descant_train::Sample;

use super::account::DataAccount;
use crate::failure::Hinted;
use crate::settings::Settings;

/// The rows that the settings train on.
pub(crate) fn training(settings: &Settings, renderer: &Renderer) -> Result<(Vec<Sample>, DataAccount)> {
    if settings.data.path.as_os_str().is_empty() {
        return Err(Hinted::new(anyhow!("data.path is not set"), "write --set data.path=FILE").into());
    }
    samples(settings, &settings.data.path, renderer)
}

/// Reads and prepares a data set as `[data]` says.
pub(crate) fn samples(
    settings: &Settings,
    path: &Path,
    renderer: &Renderer,
) -> Result<(Vec<Sample>, DataAccount)> {
    let data = &settings.data;
    // Leaving a row out makes no data set of a file that is none.
    let skip = |e: Error| match e {
        Error::Row { .. } => anyhow::Error::from(Hinted::new(
            e,
            "data.on_bad_row = \"skip\" leaves bad rows out and counts them",
        )),
        other => other.into(),
    };
    let set = read(path, &ReadOptions { on_bad_row: data.on_bad_row, format: data.format });
    let set = set.map_err(skip)?;
    let date = settings.date().map_err(|reason| anyhow!(reason))?;
    let options = PrepareOptions {
        render: RenderOptions { date, effort: Some(data.effort.clone()), ..RenderOptions::default() },
        views: data.views,
        mask: data.mask,
        weights: data.loss,
        max_tokens: Some(settings.train.max_sequence),
        on_too_long: data.too_long,
        on_bad_row: data.on_bad_row,
    };
    let mut prepared = prepare(renderer, &set, &options).map_err(skip)?;
    let account = DataAccount::new(renderer, &set, &mut prepared, data.mask);
    Ok((prepared.examples.into_iter().map(sample).collect(), account))
}

/// What the loop learns from, made of a prepared row.
fn sample(example: Example) -> Sample {
    Sample {
        row: example.row as usize,
        ids: example.ids,
        weights: example.mask.weights,
        first_analysis: example.first_reasoning,
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
