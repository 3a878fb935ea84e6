//! What is asked before and after: suites and held-out rows, read once, asked of base and adapter in the same way.
//!
//! Replies go to a file of samples while the others are made; whatever is shown is made from such files by
//! [`Figures`](super::figures::Figures).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use descant_evaluate::{
    AskedHow, First, Header, Key, Language, Loss, Nats, Prompt, Question, Samples, Suite, Writer, check_ids,
    missing, prompts, reply,
};
use descant_harmony::{Channel, Date, RenderOptions, Renderer, StreamParser, Tokenizer};
use descant_model::{Ended, GenerateOptions, GptOss, InOrder, Overlay, Request, Sampling, stop_ids};
use descant_train::memory::Asking;
use descant_train::{Event, Observer, Sample as Row, score_ranked};
use descant_workers::{Group, Wait, deal};

use super::rows;
use crate::failure::Hinted;
use crate::settings::{Evaluate, Resolved, Settings};

/// A held-out row with its reply, as the loss is measured on it.
struct HeldOut {
    id: String,
    ids: Vec<u32>,
    /// Channel of each token from the reply on; `None` before it.
    channels: Vec<Option<&'static str>>,
    /// The first token of the reasoning.
    first: Option<usize>,
    /// The same row as training would see it, for the loss with its weights.
    trained: Vec<Row>,
}

/// Who answers, for the header of the samples.
pub(crate) struct Answering<'a> {
    pub(crate) model: &'a GptOss,
    pub(crate) overlay: &'a dyn Overlay,
    /// Folder of the adapter, if there is one.
    pub(crate) adapter: Option<&'a Path>,
}

/// Everything that asking needs and that does not change between base and adapter.
pub(crate) struct Examination<'a> {
    pub(crate) suites: Vec<Suite>,
    /// Questions of the files, asked or not.
    pub(crate) there: usize,
    pub(crate) header: Header,
    prompts: Vec<Prompt>,
    held_out: Vec<HeldOut>,
    batch: usize,
    stop_ids: Vec<u32>,
    renderer: &'a Renderer,
}

impl<'a> Examination<'a> {
    /// Reads everything that is asked; `None` where nothing is. `tag` chooses questions; `training` is how many tokens
    /// go through the model in the steps, where measuring must not take longer than they do.
    pub(crate) fn new(
        resolved: &Resolved,
        renderer: &'a Renderer,
        tag: Option<&str>,
        training: Option<u64>,
    ) -> Result<Option<Self>> {
        let settings = &resolved.settings;
        let evaluate = &settings.evaluate;
        let Some((suites, there)) = suites(settings, tag, training, None)? else { return Ok(None) };
        let date = settings.data.date().map_err(|reason| anyhow!(reason))?;
        let how = how(settings)?;
        let prompts = prompts(&suites, &how, evaluate.plain, renderer, date)?;
        let held_out = match &settings.data.held_out {
            Some(path) => held_out(settings, path, &suites[0], renderer, date)?,
            None => Vec::new(),
        };
        let header = Header {
            model: resolved.model.clone(),
            template_sha256: renderer.template().sha256().to_owned(),
            tokenizer_sha256: renderer.tokenizer().sha256().to_owned(),
            date: settings.data.date.clone(),
            suites: suites.iter().map(Suite::described).collect(),
            ..Header::new(how)
        };
        Ok(Some(Self {
            suites,
            there,
            header,
            prompts,
            held_out,
            batch: evaluate.batch.max(1),
            stop_ids: stop_ids(&settings.model.path)?,
            renderer,
        }))
    }

    /// How much will be asked at once, for a model that is not here. `shipped` is the text of the held-out file, where
    /// that is not here either.
    pub(crate) fn asking_ahead(
        settings: &Settings,
        renderer: &Renderer,
        training: u64,
        shipped: Option<&str>,
    ) -> Result<Option<Asking>> {
        let evaluate = &settings.evaluate;
        let Some((suites, _)) = suites(settings, None, Some(training), shipped)? else { return Ok(None) };
        let date = settings.data.date().map_err(|reason| anyhow!(reason))?;
        let prompts = prompts(&suites, &how(settings)?, evaluate.plain, renderer, date)?;
        let asked = prompts.iter().map(|prompt| prompt.ids.len() + evaluate.max_new_tokens);
        let options = rendering(settings, date);
        let answered = suites[0].questions.iter().filter_map(Question::answered);
        let scored = answered.map(|row| Ok(renderer.render(&row, &options)?.ids.len()));
        let scored: Vec<usize> = scored.collect::<Result<_>>()?;
        Ok(Some(Asking {
            batch: evaluate.batch.clamp(1, prompts.len()) as u64,
            tokens: asked.max().unwrap_or(0) as u64,
            scored: scored.into_iter().max().unwrap_or(0) as u64,
        }))
    }

    /// How much is asked at once.
    pub(crate) fn asking(&self) -> Asking {
        let asked = self.prompts.iter().map(|prompt| prompt.ids.len() + self.header.settings.max_new_tokens);
        let scored = self.held_out.iter().map(|row| row.ids.len());
        Asking {
            batch: self.batch.min(self.prompts.len()) as u64,
            tokens: asked.max().unwrap_or(0) as u64,
            scored: scored.max().unwrap_or(0) as u64,
        }
    }

    /// Asks no more prompts at once than this.
    pub(crate) fn ask_at_once(&mut self, most: usize) {
        self.batch = self.batch.min(most.max(1));
    }

    /// Replies that each side will give.
    pub(crate) fn replies(&self) -> usize {
        self.prompts.len()
    }

    /// The tokenizer of prompts and replies.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        self.renderer.tokenizer()
    }

    /// Keys that mean nothing in questions, counted over all suites.
    pub(crate) fn unknown(&self) -> BTreeMap<&str, u64> {
        let mut all = BTreeMap::new();
        for (key, count) in self.suites.iter().flat_map(|suite| &suite.unknown) {
            *all.entry(key.as_str()).or_insert(0) += count;
        }
        all
    }

    /// Asks everything that a file of samples does not hold yet; without a path nothing is kept. `name` is what the
    /// phase is called on the screen. Where several processes answer, all call this, and rank 0 has what all replied.
    pub(crate) fn ask(
        &self,
        name: &str,
        path: Option<&Path>,
        answering: &Answering<'_>,
        group: Option<&Group>,
        observer: &mut dyn Observer,
    ) -> Result<Samples> {
        let mut header = self.header.clone();
        header.adapter = answering.adapter.map(|folder| folder.display().to_string());
        header.adapter_sha256 = answering.adapter.map(adapter_sha256).transpose()?;
        let mut writer = match path {
            Some(path) => Writer::open(path, &header)?,
            None => Writer::in_memory(&header),
        };
        observer.on(&Event::Phase { name, total: Some(self.prompts.len() as u64) });
        self.losses(&mut writer, answering, group).with_context(|| name.to_owned())?;
        let waiting: Vec<Prompt> = missing(&self.prompts, writer.samples()).into_iter().cloned().collect();
        let asked = match group {
            Some(group) => self.answer_together(&waiting, &mut writer, answering, group, observer),
            None => self.answer(&waiting, &mut writer, answering, observer),
        };
        asked.with_context(|| name.to_owned())?;
        Ok(writer.finish()?)
    }

    /// What to ask for a prompt. Each reply has a seed of its own, so that it does not depend on the others.
    fn request(&self, prompt: &Prompt) -> Request {
        let how = &self.header.settings;
        Request {
            prompt: prompt.ids.clone(),
            max_new_tokens: how.max_new_tokens,
            adapter: true,
            sampling: Sampling {
                temperature: how.temperature as f32,
                top_p: how.top_p as f32,
                seed: prompt.seed,
                ..Sampling::default()
            },
            stream: 0,
        }
    }

    /// How they are asked.
    fn options(&self) -> GenerateOptions {
        GenerateOptions {
            stop_ids: self.stop_ids.clone(),
            at_once: Some(self.batch),
            ..GenerateOptions::default()
        }
    }

    /// Replies to these prompts, kept as they come, so many at a time.
    fn answer(
        &self,
        waiting: &[Prompt],
        writer: &mut Writer,
        answering: &Answering<'_>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let requests: Vec<Request> = waiting.iter().map(|prompt| self.request(prompt)).collect();
        let before = (self.prompts.len() - waiting.len()) as u64;
        let (mut since, mut ready, mut new_tokens) = (Instant::now(), Vec::new(), 0);
        let mut failed = None;
        let mut watch = InOrder::new(requests.len(), |ended| {
            let (at, made) = match ended {
                Ended::Count(count) => {
                    observer.on(&Event::Progress { done: before + count as u64 });
                    return true;
                }
                Ended::Next(at, made) => (at, made),
            };
            new_tokens += made.ids.len();
            let mut keep = || -> Result<()> {
                ready.push(reply(&waiting[at].key, made.ids.clone(), self.renderer)?);
                if ready.len() < self.batch && at + 1 < waiting.len() {
                    return Ok(());
                }
                let seconds = since.elapsed().as_secs_f64();
                writer.add(std::mem::take(&mut ready), std::mem::take(&mut new_tokens), seconds)?;
                since = Instant::now();
                Ok(())
            };
            failed = keep().err();
            failed.is_none()
        });
        answering.model.generate(&requests, answering.overlay, &self.options(), &mut watch)?;
        failed.map_or(Ok(()), Err)
    }

    /// The same by several processes: rank 0 says which prompts wait, they are dealt in rounds, and rank 0 keeps the
    /// replies of a round in the order of the prompts.
    fn answer_together(
        &self,
        waiting: &[Prompt],
        writer: &mut Writer,
        answering: &Answering<'_>,
        group: &Group,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let keys: Vec<&Key> = waiting.iter().map(|prompt| &prompt.key).collect();
        let waiting: Vec<Key> = told(group, "prompts", &keys)?;
        let known: BTreeMap<&Key, &Prompt> =
            self.prompts.iter().map(|prompt| (&prompt.key, prompt)).collect();
        let prompt =
            |key: &Key| known.get(key).copied().context("rank 0 asks a prompt that is not known here");
        let waiting: Vec<&Prompt> = waiting.iter().map(prompt).collect::<Result<_>>()?;
        let mut done = self.prompts.len() - waiting.len();
        let batch: usize = told(group, "batch", &self.batch)?;
        for round in waiting.chunks(ROUND * batch * group.world()) {
            let costs: Vec<u64> = round.iter().map(|prompt| prompt.ids.len() as u64 + REPLY).collect();
            let dealt = deal(&costs, group.world());
            let mine: Vec<Request> = dealt.of(group.rank()).map(|at| self.request(round[at])).collect();
            let since = Instant::now();
            let mut replies: Vec<Vec<u32>> = vec![Vec::new(); mine.len()];
            let mut watch = InOrder::new(mine.len(), |ended| {
                match ended {
                    // As if the others were as quick.
                    Ended::Count(count) => {
                        let all = (done + count * group.world()).min(done + round.len());
                        observer.on(&Event::Progress { done: all as u64 });
                    }
                    Ended::Next(at, made) => replies[at].clone_from(&made.ids),
                }
                true
            });
            answering.model.generate(&mine, answering.overlay, &self.options(), &mut watch)?;
            let Some(all) = group.gather("replies", &serde_json::to_vec(&replies)?, Wait::Long)? else {
                continue;
            };
            let mut ordered: Vec<Vec<u32>> = vec![Vec::new(); round.len()];
            for (rank, bytes) in all.iter().enumerate() {
                let replies: Vec<Vec<u32>> =
                    serde_json::from_slice(bytes).context("replies of another rank")?;
                for (at, ids) in dealt.of(rank).zip(replies) {
                    ordered[at] = ids;
                }
            }
            let new_tokens = ordered.iter().map(Vec::len).sum();
            let replies =
                round.iter().zip(ordered).map(|(prompt, ids)| reply(&prompt.key, ids, self.renderer));
            writer.add(replies.collect::<Result<_, _>>()?, new_tokens, since.elapsed().as_secs_f64())?;
            done += round.len();
            observer.on(&Event::Progress { done: done as u64 });
        }
        Ok(())
    }

    /// Losses on the held-out rows that are not there yet.
    fn losses(&self, writer: &mut Writer, answering: &Answering<'_>, group: Option<&Group>) -> Result<()> {
        let waits = |row: &&HeldOut| !writer.samples().losses.contains_key(&row.id);
        let waiting: Vec<&HeldOut> = self.held_out.iter().filter(waits).collect();
        let Some(group) = group else {
            for row in waiting {
                let loss = row.loss(answering.model, answering.overlay)?;
                writer.add_loss(loss)?;
            }
            return Ok(());
        };
        let ids: Vec<&str> = waiting.iter().map(|row| row.id.as_str()).collect();
        let ids: Vec<String> = told(group, "rows", &ids)?;
        let rows: Vec<&HeldOut> = self.held_out.iter().filter(|row| ids.contains(&row.id)).collect();
        let costs: Vec<u64> = rows.iter().map(|row| row.ids.len() as u64).collect();
        let dealt = deal(&costs, group.world());
        let mine = dealt.of(group.rank()).map(|at| rows[at].loss(answering.model, answering.overlay));
        let mine: Vec<SentLoss> = mine.map(|loss| loss.map(SentLoss::new)).collect::<Result<_, _>>()?;
        let Some(all) = group.gather("row losses", &serde_json::to_vec(&mine)?, Wait::Long)? else {
            return Ok(());
        };
        let mut ordered: BTreeMap<usize, Loss> = BTreeMap::new();
        for (rank, bytes) in all.iter().enumerate() {
            let losses: Vec<SentLoss> = serde_json::from_slice(bytes).context("losses of another rank")?;
            let losses = dealt.of(rank).zip(losses);
            ordered.extend(losses.map(|(at, loss)| (at, loss.read(rows[at].id.clone()))));
        }
        for loss in ordered.into_values() {
            writer.add_loss(loss)?;
        }
        Ok(())
    }
}

/// A loss on its way to rank 0, to the bit: JSON's decimals may be read with another last digit.
#[derive(serde::Serialize, serde::Deserialize)]
struct SentLoss {
    /// Bits of nats and tokens.
    channels: Vec<(String, u64, u64)>,
    /// Bits of nats, and the rank of the token.
    first: Option<(u64, u64)>,
}

impl SentLoss {
    fn new(loss: Loss) -> Self {
        let bits = |(name, nats): (String, Nats)| (name, nats.nats.to_bits(), nats.tokens.to_bits());
        Self {
            channels: loss.channels.into_iter().map(bits).collect(),
            first: loss.first.map(|first| (first.nats.to_bits(), first.rank)),
        }
    }

    fn read(self, id: String) -> Loss {
        let of = |(name, nats, tokens): (String, u64, u64)| {
            (name, Nats { nats: f64::from_bits(nats), tokens: f64::from_bits(tokens) })
        };
        let first = self.first.map(|(nats, rank)| First { nats: f64::from_bits(nats), rank });
        Loss { id, channels: self.channels.into_iter().map(of).collect(), first }
    }
}

/// What rank 0 says, everywhere.
fn told<T: serde::Serialize + ?Sized, R: serde::de::DeserializeOwned>(
    group: &Group,
    name: &str,
    mine: &T,
) -> Result<R> {
    let bytes = group.broadcast(name, 0, serde_json::to_vec(mine)?, Wait::Long)?;
    serde_json::from_slice(&bytes).with_context(|| format!("read `{name}` of rank 0"))
}

/// Where several processes answer, a round gives each so many times the prompts that it answers at once: the replies of
/// a round are lost with the process, and between rounds who is quicker waits.
const ROUND: usize = 8;
/// What a reply costs beside its prompt, for dealing: all are of unknown length.
const REPLY: u64 = 1024;

/// What a token of a reply costs, in tokens of a training step: measured 20 on an H100 with a 20b (1,150 replied tokens
/// a second in batches of 32, 20,000 trained), and less on the CPU.
const REPLIED_TOKEN: u64 = 20;
/// Share of the longest reply that replies have on the average: some stop early, and some at the limit.
const LENGTH: f64 = 0.5;
/// Fewest questions of a file.
const FEWEST: usize = 4;

/// How many questions of each file can be asked twice, before and after, in less time than so many tokens are trained.
fn quick(evaluate: &Evaluate, training: u64, files: usize) -> usize {
    let kinds = if evaluate.plain { 2 } else { 1 };
    let of_question = evaluate.efforts.len() * evaluate.replies as usize * kinds;
    let tokens = 2.0 * of_question as f64 * LENGTH * evaluate.max_new_tokens as f64;
    let questions = training as f64 / REPLIED_TOKEN as f64 / tokens.max(1.0);
    (questions as usize / files.max(1)).max(FEWEST)
}

/// The questions of the settings, and how many there are, asked or not; `None` where there are none. `shipped` is in
/// place of the held-out file.
fn suites(
    settings: &Settings,
    tag: Option<&str>,
    training: Option<u64>,
    shipped: Option<&str>,
) -> Result<Option<(Vec<Suite>, usize)>> {
    let evaluate = &settings.evaluate;
    let mut suites = Vec::new();
    if let Some(path) = &settings.data.held_out {
        let suite = match shipped {
            Some(text) => Suite::from_text("held-out", text),
            None => Suite::from_file(path),
        };
        suites.push(
            suite
                .map_err(|error| Hinted::new(error, "leave data.held_out out to train without measuring"))?,
        );
    }
    for name in &evaluate.suites {
        suites.push(Suite::load(name).with_context(|| format!("evaluate.suites names {name}"))?);
    }
    if let Some(tag) = tag {
        suites = suites.into_iter().map(|suite| suite.tagged(tag)).collect::<Result<_, _>>()?;
    }
    if suites.is_empty() {
        return Ok(None);
    }
    let there = suites.iter().map(|suite| suite.questions.len()).sum();
    let quick = training.filter(|_| evaluate.quick).map(|tokens| quick(evaluate, tokens, suites.len()));
    for suite in &mut suites {
        suite.questions.truncate(evaluate.prompts.or(quick).unwrap_or(usize::MAX));
    }
    check_ids(&suites)?;
    Ok(Some((suites, there)))
}

/// How a held-out row is rendered with its reply.
fn rendering(settings: &Settings, date: Date) -> RenderOptions {
    RenderOptions { date, effort: Some(settings.data.effort.clone()), ..RenderOptions::default() }
}

/// How the settings ask.
fn how(settings: &Settings) -> Result<AskedHow> {
    let evaluate = &settings.evaluate;
    let code = |name: &String| {
        let language = Language::from_code(name).or_else(|| Language::from_name(name));
        language.map(|language| language.code().to_owned()).ok_or_else(|| {
            let known: Vec<&str> = Language::all().map(Language::code).collect();
            anyhow!("evaluate.languages names `{name}`; expected codes out of {}", known.join(", "))
        })
    };
    Ok(AskedHow {
        efforts: evaluate.efforts.clone(),
        replies: evaluate.replies,
        temperature: evaluate.temperature(),
        top_p: evaluate.top_p,
        seed: evaluate.seed,
        max_new_tokens: evaluate.max_new_tokens,
        languages: evaluate.languages.iter().map(code).collect::<Result<_>>()?,
    })
}

pub(crate) fn adapter_sha256(folder: &Path) -> Result<String> {
    let path = folder.join("adapter_model.safetensors");
    Ok(descant_files::sha256_file(&path)?)
}

/// The rows of a suite that have a reply.
fn held_out(
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

    fn loss(&self, model: &GptOss, overlay: &dyn Overlay) -> descant_train::Result<Loss> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_measures_take_less_time_than_training() {
        let mut evaluate = Evaluate { max_new_tokens: 1024, ..Evaluate::default() };
        let seconds_of = |evaluate: &Evaluate, questions: usize, files: usize| {
            let replies = questions * files * evaluate.efforts.len() * if evaluate.plain { 2 } else { 1 };
            2.0 * replies as f64 * LENGTH * evaluate.max_new_tokens as f64 * REPLIED_TOKEN as f64
        };
        // Sixty steps of the tutorial: about a million tokens.
        for (training, files) in [(1_000_000, 2), (10_000_000, 2), (10_000_000, 1), (40_000_000, 3)] {
            let questions = quick(&evaluate, training, files);
            assert!(questions >= FEWEST);
            let used = seconds_of(&evaluate, questions, files);
            assert!(used <= training as f64 && seconds_of(&evaluate, questions + 1, files) > training as f64);
        }
        // However short the training, some are asked.
        assert_eq!(quick(&evaluate, 10, 2), FEWEST);
        evaluate.plain = false;
        let plain = Evaluate { plain: true, ..evaluate.clone() };
        assert!(quick(&evaluate, 10_000_000, 1) >= 2 * quick(&plain, 10_000_000, 1));
    }
}
