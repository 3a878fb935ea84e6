//! The held-out prompts: read once, asked of the base and of the adapter in the same way.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use descant_harmony::read::{ReadOptions, read};
use descant_harmony::{Date, Renderer};
use descant_model::{GenerateOptions, GptOss, Overlay, Sampling, stop_ids};
use descant_train::measure::{Evaluation, HeldOut, Questions, Reply, ask};
use descant_train::memory::Asking;
use descant_train::{Event, Observer, Sample as Row, score};
use serde::{Deserialize, Serialize};

use super::rows;
use crate::failure::Hinted;
use crate::report::Sample;
use crate::settings::Settings;

/// Version of answers that are kept.
const VERSION: u32 = 1;

/// What a model got.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Marks {
    /// Mean loss in nats over the trained tokens of the held-out rows, as the rows answer them.
    pub(crate) loss: f64,
    /// Counts over its replies.
    #[serde(flatten)]
    pub(crate) evaluation: Evaluation,
}

/// What a model got, and what it said.
pub(crate) struct Answers {
    /// Loss and counts.
    pub(crate) marks: Marks,
    /// Every reply, in the order of the questions.
    pub(crate) replies: Vec<Reply>,
}

/// Answers as they are kept for a run that goes on. The loss is kept as its bits.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    v: u32,
    loss_bits: u64,
    evaluation: Evaluation,
    replies: Vec<Reply>,
}

impl Answers {
    /// What [`from_json`](Self::from_json) reads.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let kept = Kept {
            v: VERSION,
            loss_bits: self.marks.loss.to_bits(),
            evaluation: self.marks.evaluation.clone(),
            replies: self.replies.clone(),
        };
        serde_json::to_vec(&kept).expect("texts and numbers are JSON")
    }

    /// The answers that an earlier process of the run kept.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self> {
        let kept: Kept = serde_json::from_slice(bytes)?;
        if kept.v != VERSION {
            return Err(anyhow!("version {}; this program reads {VERSION}", kept.v));
        }
        let marks = Marks { loss: f64::from_bits(kept.loss_bits), evaluation: kept.evaluation };
        Ok(Self { marks, replies: kept.replies })
    }
}

/// Base and adapter on the same prompts.
pub(crate) struct Measured {
    /// Of the base.
    pub(crate) before: Marks,
    /// Of the adapter.
    pub(crate) after: Marks,
    /// Replies of both to the same prompt.
    pub(crate) samples: Vec<Sample>,
}

/// Everything that asking needs and that does not change between base and adapter.
pub(crate) struct Examination<'a> {
    prompts: Vec<HeldOut>,
    rows: Vec<Row>,
    efforts: &'a [String],
    date: Date,
    batch: usize,
    samples: usize,
    options: GenerateOptions,
    renderer: &'a Renderer,
}

impl<'a> Examination<'a> {
    /// Reads the held-out prompts of the settings.
    pub(crate) fn new(settings: &'a Settings, path: &Path, renderer: &'a Renderer) -> Result<Self> {
        let set = read(path, &ReadOptions::default())?;
        let rows = set.rows.iter().take(settings.evaluate.prompts.unwrap_or(usize::MAX));
        let held_out = rows.map(|row| {
            let conversation = row.conversation().ok_or("rendered text; expected messages");
            let prompt = conversation.map_err(str::to_owned);
            let prompt = prompt.and_then(|c| HeldOut::new(c, row.reasoning_language.as_deref()));
            prompt.map_err(|reason| anyhow!("{}, row {}: {reason}", path.display(), row.number))
        });
        let prompts: Vec<HeldOut> = held_out
            .collect::<Result<_>>()
            .map_err(|error| Hinted::new(error, "leave data.held_out out to train without measuring"))?;
        if prompts.is_empty() {
            return Err(anyhow!("{} has no rows", path.display()));
        }
        let (mut rows, _) = rows::samples(settings, path, renderer)?;
        rows.truncate(prompts.len());
        Ok(Self {
            prompts,
            rows,
            efforts: &settings.evaluate.efforts,
            date: settings.date().map_err(|reason| anyhow!(reason))?,
            batch: settings.evaluate.batch,
            samples: settings.evaluate.samples,
            options: GenerateOptions {
                max_new_tokens: settings.evaluate.max_new_tokens,
                stop_ids: stop_ids(&settings.model.path)?,
                sampling: Sampling::Greedy,
            },
            renderer,
        })
    }

    /// How much is asked at once. A prompt is no longer than the row that it was made of.
    pub(crate) fn asking(&self) -> Asking {
        let longest = self.rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        Asking {
            batch: self.batch.min(self.prompts.len()) as u64,
            tokens: (longest + self.options.max_new_tokens) as u64,
        }
    }

    /// The prompts.
    pub(crate) fn prompts(&self) -> &[HeldOut] {
        &self.prompts
    }

    /// The first prompts of each effort, languages asked, with both replies.
    pub(crate) fn samples(&self, before: &[Reply], after: &[Reply]) -> Vec<Sample> {
        let kept = |(before, _): &(&Reply, &Reply)| before.asked && before.prompt < self.samples;
        let sample = |(before, after): (&Reply, &Reply)| {
            let prompt = &self.prompts[before.prompt];
            Sample {
                effort: before.effort.clone(),
                asked: Some(prompt.language.name().to_owned()),
                user: prompt.user.clone(),
                before: before.text.clone(),
                after: after.text.clone(),
            }
        };
        before.iter().zip(after).filter(kept).map(sample).collect()
    }

    /// Asks everything. `name` is what the phase is called on the screen.
    pub(crate) fn ask(
        &self,
        name: &str,
        model: &GptOss,
        overlay: &dyn Overlay,
        observer: &mut dyn Observer,
    ) -> Result<Answers> {
        let questions =
            Questions { prompts: &self.prompts, efforts: self.efforts, date: self.date, batch: self.batch };
        observer.on(&Event::Phase { name, total: Some(questions.len() as u64) });
        let loss = self.loss(model, overlay)?;
        let mut decode = |prompts: &[Vec<u32>], progress: &mut dyn FnMut(usize)| {
            let generated = model.generate(prompts, overlay, &self.options, progress)?;
            anyhow::Ok(generated.into_iter().map(|reply| reply.ids).collect())
        };
        let (evaluation, replies) =
            ask(&questions, self.renderer, &mut decode, observer).with_context(|| name.to_owned())?;
        Ok(Answers { marks: Marks { loss, evaluation }, replies })
    }

    /// Mean loss over the trained tokens of all rows together.
    fn loss(&self, model: &GptOss, overlay: &dyn Overlay) -> Result<f64> {
        let (mut sum, mut weight) = (0.0, 0.0);
        for row in &self.rows {
            // The first token is never predicted.
            let scored = score(model, overlay, &row.ids, None)?;
            for (logprob, counts) in scored.logprobs.iter().zip(&row.weights[1..]) {
                sum -= f64::from(*logprob) * f64::from(*counts);
                weight += f64::from(*counts);
            }
        }
        Ok(sum / weight)
    }
}
