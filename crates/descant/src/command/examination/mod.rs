//! What is asked before and after: suites and held-out rows, read once, asked of base and adapter in the same way.
//!
//! Replies go to a file of samples while the others are made; whatever is shown is made from such files by
//! [`Figures`](super::figures::Figures). `chosen.rs` says which questions are asked, `held_out.rs` measures the loss of
//! rows with replies, and `together.rs` asks with several processes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use descant_evaluate::{
    AskedHow, Header, Language, Prompt, Question, Samples, Suite, Writer, missing, prompts, reply,
};
use descant_harmony::{Renderer, Tokenizer};
use descant_model::{Ended, GenerateOptions, GptOss, InOrder, Overlay, Request, Sampling, stop_ids};
use descant_train::memory::Asking;
use descant_train::{Event, Observer};
use descant_workers::Group;

use crate::settings::{Resolved, Settings};

mod chosen;
mod held_out;
mod together;

use chosen::suites;
use held_out::{HeldOut, held_out, rendering};

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

    /// Losses on the held-out rows that are not there yet.
    fn losses(&self, writer: &mut Writer, answering: &Answering<'_>, group: Option<&Group>) -> Result<()> {
        let waits = |row: &&HeldOut| !writer.samples().losses.contains_key(&row.id);
        let waiting: Vec<&HeldOut> = self.held_out.iter().filter(waits).collect();
        if let Some(group) = group {
            return self.losses_together(&waiting, writer, answering, group);
        }
        for row in waiting {
            writer.add_loss(row.loss(answering.model, answering.overlay)?)?;
        }
        Ok(())
    }
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
