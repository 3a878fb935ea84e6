//! `descant chat`: a conversation in the terminal.
//!
//! The model is loaded once. Each reply is asked for with the whole conversation as the model's template serves it, so
//! what the model sees is what a server would show it: the reasoning of earlier turns is left out. What a prompt has in
//! common with the one before is not computed again.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use descant_harmony::{Date, Renderer};
use descant_model::{GenerateOptions, Request, Sampling, Session};
use descant_train::memory::Asking;

use super::load;
use super::speaker::{Speaker, sampling};
use crate::cli::Chat;
use crate::failure::Exit;
use crate::reply::{Screen, Turn, cut_short};
use crate::settings::check_effort;
use crate::talk::Talk;
use crate::words::{grouped, visible};

mod commands;
mod dialogue;
mod editor;
mod input;
mod interrupt;
mod line;
mod save;
mod watch;

use commands::{Command, HELP, message};
use dialogue::Dialogue;
use input::Input;
use interrupt::Interrupt;
use line::Line;
use watch::Showing;

/// Tokens of a conversation that memory is planned for; a longer one is tried all the same.
const PLANNED: usize = 16_384;

/// Loads the model and talks until the input ends.
pub(crate) fn run(args: &Chat, dir: &Path, talk: Talk) -> Result<Exit> {
    load::check_dir(dir)?;
    check_effort("--effort", &args.effort).map_err(|reason| anyhow!(reason))?;
    let sampling = sampling(&args.sampling)?;
    let date = args.date.parse().with_context(|| format!("--date {}", args.date))?;
    let renderer = Renderer::load(dir, args.template.as_deref())?;
    let context = load::config(dir)?.max_context;
    let dialogue = Dialogue::new(args.developer.clone(), args.language.clone(), &args.effort);
    let tokens = context.min(PLANNED + args.max_new_tokens) as u64;
    // Base and adapter have each their own conversation in the cache.
    let batch = if args.model.adapter.is_some() { 2 } else { 1 };
    let asking = Asking { batch, tokens, scored: 0 };
    let began = Instant::now();
    let speaker = Speaker::load(&args.model, dir, asking, (&args.model.device.name, 1), talk)?;
    talk.item("model", format_args!("{} in {:.1} s", dir.display(), began.elapsed().as_secs_f64()));
    let adapter =
        args.model.adapter.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    talk.item("adapter", adapter);
    let mut input = Input::new(talk)?;
    if input.is_terminal() {
        talk.sentence("Type a message. /help lists commands, Ctrl-C stops a reply, Ctrl-D ends.");
    }
    let options = GenerateOptions { stop_ids: speaker.stop_ids.clone(), ..GenerateOptions::default() };
    let compare = args.compare;
    let max_new_tokens = args.max_new_tokens;
    let mut chat = Talking {
        dialogue,
        renderer,
        session: Session::new(&speaker.model, &*speaker.overlay),
        has_adapter: speaker.has_adapter,
        options,
        sampling,
        date,
        context,
        max_new_tokens,
        compare,
        speed: None,
        replies: 0,
        interrupt: Interrupt::new(input.is_terminal())?,
        talk,
    };
    loop {
        match input.line(&chat.prompt())? {
            Line::End => return Ok(Exit::Success),
            Line::Nothing => {}
            Line::Text(text) => match Command::parse(&text) {
                None => chat.say(message(&text))?,
                Some(Ok(Command::Quit)) => return Ok(Exit::Success),
                Some(Ok(command)) => chat.obey(command)?,
                Some(Err(reason)) => talk.warn(reason),
            },
        }
    }
}

/// Who replies: a title, where more than one does, and whether the adapter takes part.
type Side = (Option<&'static str>, bool);
const BASE: Side = (Some("base"), false);
const ADAPTER: Side = (Some("adapter"), true);

/// A running conversation.
struct Talking<'a> {
    dialogue: Dialogue,
    renderer: Renderer,
    session: Session<'a>,
    has_adapter: bool,
    options: GenerateOptions,
    sampling: Sampling,
    date: Date,
    /// Tokens of the model's context.
    context: usize,
    max_new_tokens: usize,
    /// Whether the base replies too.
    compare: bool,
    /// Tokens a second of the last reply.
    speed: Option<f64>,
    /// Replies so far: each draws its own random numbers.
    replies: u64,
    interrupt: Interrupt,
    talk: Talk,
}

impl Talking<'_> {
    /// What stands before the cursor: effort, tokens that are left, speed.
    fn prompt(&self) -> String {
        let used = self.dialogue.ids(&self.renderer, self.date).map_or(0, |ids| ids.len());
        let left = grouped(self.context.saturating_sub(used) as u64);
        let speed = self.speed.map_or_else(String::new, |speed| format!(", {speed:.0} tok/s"));
        format!("{}, {left} left{speed} > ", self.dialogue.effort)
    }

    /// Sends a message. Without an answer the conversation stays as it was.
    fn say(&mut self, text: String) -> Result<()> {
        self.dialogue.say(text);
        let answered = self.answer()?;
        if !answered {
            self.dialogue.take_back();
        }
        Ok(())
    }

    /// Asks for a reply to the last message; whether there is an answer.
    fn answer(&mut self) -> Result<bool> {
        let ids = match self.dialogue.ids(&self.renderer, self.date) {
            Ok(ids) => ids,
            Err(error) => {
                self.talk.warn_of(&error);
                return Ok(false);
            }
        };
        if ids.len() >= self.context {
            self.talk.warn(format_args!(
                "the conversation has {} tokens and the model's context {}: /reset begins a new one, /save FILE keeps this one",
                grouped(ids.len() as u64),
                grouped(self.context as u64)
            ));
            return Ok(false);
        }
        self.replies += 1;
        let sides = if self.compare { &[BASE, ADAPTER][..] } else { &[(None, self.has_adapter)] };
        let turn = self.reply(&ids, sides)?;
        let message = turn.message();
        let answered = message.is_some();
        match message {
            Some(message) => {
                if !turn.complete {
                    self.talk.sentence("The answer was cut off; what came is kept in the conversation.");
                }
                self.dialogue.reply(message);
            }
            None if turn.calls.is_empty() => {
                self.talk.sentence("The reply has no answer; message and reply are removed from the conversation.");
            }
            None => self.talk.sentence(format_args!(
                "The reply calls {}, and no tool is here: message and reply are left out of the conversation.",
                visible(&turn.calls.join(", "))
            )),
        }
        Ok(answered)
    }

    /// Streams the replies of these sides, which are asked together; what the last of them says.
    fn reply(&mut self, ids: &[u32], sides: &[Side]) -> Result<Turn> {
        let talk = self.talk;
        let mut write = |text: &str| talk.write(text);
        let mut screen = Screen::new(talk.look(), Talk::columns_now, &mut write);
        self.interrupt.clear();
        let request = |adapter| Request {
            prompt: ids.to_vec(),
            max_new_tokens: self.max_new_tokens,
            adapter,
            sampling: self.sampling,
            stream: self.replies,
        };
        let requests: Vec<Request> = sides.iter().map(|(_, adapter)| request(*adapter)).collect();
        let titles: Vec<_> = sides.iter().map(|(title, _)| *title).collect();
        let tokenizer = self.renderer.tokenizer();
        let mut showing = Showing::new(tokenizer, &mut screen, &self.interrupt, &titles)?;
        let replies = self.session.reply(&requests, &self.options, &mut showing)?;
        self.speed = showing.finish()?.into_iter().next_back().flatten().or(self.speed);
        for (reply, title) in replies.iter().zip(titles) {
            if let Some(said) = cut_short(reply.stop, self.max_new_tokens) {
                talk.sentence(title.map_or_else(|| said.clone(), |title| format!("{title}: {said}")));
            }
        }
        let last = replies.last().expect("at least one side is asked");
        Ok(Turn::read(tokenizer, &last.ids))
    }

    /// Does what a command says.
    fn obey(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Help => self.talk.data(HELP.trim_end())?,
            Command::Quit => {}
            Command::Effort(effort) => {
                self.dialogue.effort = effort;
                self.talk.sentence(format_args!("Effort is {}.", self.dialogue.effort));
            }
            Command::Language(language) => {
                self.talk.sentence(match &language {
                    Some(language) => format!("Asks for reasoning in {}.", visible(language)),
                    None => "Asks for no language.".to_owned(),
                });
                self.dialogue.language = language;
            }
            Command::System(text) => {
                self.talk.sentence(if text.is_some() {
                    "Instructions are set."
                } else {
                    "There are no instructions."
                });
                self.dialogue.developer = text;
            }
            Command::Reset => {
                self.dialogue.reset();
                self.talk.sentence("The conversation begins anew; effort, language and instructions stay.");
            }
            Command::Retry => self.retry()?,
            Command::Compare(wanted) => self.compared(wanted)?,
            Command::Save(path) => match save::save(&self.dialogue, &path) {
                Ok(said) => self.talk.sentence(said),
                Err(error) => self.talk.warn_of(&error),
            },
        }
        Ok(())
    }

    /// Another reply to the last message.
    fn retry(&mut self) -> Result<()> {
        let Some(before) = self.dialogue.take_reply() else {
            self.talk.warn("there is no reply to ask for again");
            return Ok(());
        };
        if !self.answer()? {
            self.talk.sentence("The reply before is kept.");
            self.dialogue.reply(before);
        }
        Ok(())
    }

    /// `/compare`: the base's reply to the last message, or to each from now on.
    fn compared(&mut self, always: Option<bool>) -> Result<()> {
        if !self.has_adapter {
            self.talk.warn("there is no adapter to compare the base with; start with --adapter DIR");
            return Ok(());
        }
        if let Some(always) = always {
            self.compare = always;
            self.talk.sentence(if always {
                "The base replies too from now on."
            } else {
                "The adapter replies alone."
            });
            return Ok(());
        }
        let Some(ids) = self.dialogue.asked_last(&self.renderer, self.date)? else {
            self.talk
                .warn("there is no reply yet to compare with; /compare on compares from the next message on");
            return Ok(());
        };
        self.reply(&ids, &[BASE])?;
        Ok(())
    }
}
