//! Held-out rows with their replies, and the loss on them, by channel and with the weights of training.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use descant_evaluate::{First, Loss, Nats, Question, Suite};
use descant_harmony::{Channel, Date, RenderOptions, Renderer, StreamParser};
use descant_model::{GptOss, Overlay};
use descant_train::{Sample as Row, score_ranked};

use crate::command::rows;
use crate::settings::Settings;

/// A held-out row with its reply, as the loss is measured on it.
pub(super) struct HeldOut {
    pub(super) id: String,
    pub(super) ids: Vec<u32>,
    /// Channel of each token from the reply on; `None` before it.
    channels: Vec<Option<&'static str>>,
    /// The first token of the reasoning.
    first: Option<usize>,
    /// The same row as training would see it, for the loss with its weights.
    trained: Vec<Row>,
}

/// How a held-out row is rendered with its reply.
pub(super) fn rendering(settings: &Settings, date: Date) -> RenderOptions {
    RenderOptions { date, effort: Some(settings.data.effort.clone()), ..RenderOptions::default() }
}

/// The rows of a suite that have a reply.
pub(super) fn held_out(
    settings: &Settings,
    path: &Path,
    suite: &Suite,
    renderer: &Renderer,
    date: Date,
) -> Result<Vec<HeldOut>> {
    let answered: Vec<&Question> = suite.questions.iter().filter(|q| q.reference.is_some()).collect();
    if answered.is_empty() {
        return Ok(Vec::new());
    }
    let (samples, _) = rows::samples(settings, path, renderer)?;
    let mut trained: BTreeMap<u64, Vec<Row>> = BTreeMap::new();
    for sample in samples {
        trained.entry(sample.row as u64).or_default().push(sample);
    }
    let options = rendering(settings, date);
    let row = |question: &&Question| {
        let trained = trained.remove(&question.line).unwrap_or_default();
        HeldOut::new(question, trained, renderer, &options)
            .with_context(|| format!("{}, line {}", path.display(), question.line))
    };
    answered.iter().map(row).collect()
}

impl HeldOut {
    fn new(
        question: &Question,
        trained: Vec<Row>,
        renderer: &Renderer,
        options: &RenderOptions,
    ) -> Result<Self> {
        let answered = question.answered().context("a row with a reply")?;
        let asked = answered.prefix(answered.messages.len() - 1);
        let prompt = RenderOptions { add_generation_prompt: true, ..options.clone() };
        let prompt = renderer.render(&asked, &prompt)?.ids;
        let ids = renderer.render(&answered, options)?.ids;
        let Some(tail) = ids.strip_prefix(prompt.as_slice()) else {
            return Err(anyhow!(
                "the template renders the row's prompt otherwise with its reply than without"
            ));
        };
        let mut channels: Vec<Option<&'static str>> = vec![None; prompt.len()];
        channels.resize(ids.len(), Some("format"));
        let mut parser = StreamParser::reply(renderer.tokenizer());
        for id in tail {
            parser.push(*id).context("the row's reply is not valid Harmony")?;
        }
        let mut first = None;
        for message in parser.messages() {
            let channel = message.header.channel.map(Channel::as_str);
            let body = message.content();
            if first.is_none() && channel == Some("analysis") && !body.is_empty() {
                first = Some(prompt.len() + body.start);
            }
            for at in body {
                channels[prompt.len() + at] = channel.or(Some("format"));
            }
        }
        Ok(Self { id: question.id.clone(), ids, channels, first, trained })
    }

    pub(super) fn loss(&self, model: &GptOss, overlay: &dyn Overlay) -> descant_train::Result<Loss> {
        let (logprobs, rank) = score_ranked(model, overlay, &self.ids, self.first)?;
        let mut channels: BTreeMap<String, Nats> = BTreeMap::new();
        // The first token is never predicted.
        for (logprob, channel) in logprobs.iter().zip(&self.channels[1..]) {
            let Some(channel) = channel else { continue };
            let nats = channels.entry((*channel).to_owned()).or_default();
            nats.nats -= f64::from(*logprob);
            nats.tokens += 1.0;
        }
        let mut all = Nats::default();
        for row in &self.trained {
            let own;
            let scored = if row.ids == self.ids {
                &logprobs
            } else {
                own = score_ranked(model, overlay, &row.ids, None)?.0;
                &own
            };
            for (logprob, weight) in scored.iter().zip(&row.weights[1..]) {
                all.nats -= f64::from(*logprob) * f64::from(*weight);
                all.tokens += f64::from(*weight);
            }
        }
        if !self.trained.is_empty() {
            channels.insert("all".into(), all);
        }
        let first = self.first.zip(rank);
        let first = first.map(|(at, rank)| First { nats: -f64::from(logprobs[at - 1]), rank });
        Ok(Loss { id: self.id.clone(), channels, first })
    }
}
