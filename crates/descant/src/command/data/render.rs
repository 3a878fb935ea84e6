//! `descant data render`: an object a row, in the rows' order.
//!
//! Rows are taken in chunks, rendered side by side and printed in order, so that a file of any length needs little
//! memory and the output does not depend on the number of threads.

use std::path::{Path, PathBuf};

use anyhow::Result;
use descant_harmony::read::{Body, Columns, Format, OnBadRow, each_object};
use descant_harmony::{
    Channel, Error, LossWeights, Masker, RenderOptions, Rendered, Renderer, TemplateInput,
};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::cli::Render;
use crate::failure::Exit;
use crate::talk::Talk;
use crate::words::counted;

/// Rows that are rendered side by side.
const CHUNK: usize = 256;

/// Renders a file.
pub(crate) fn run(args: &Render, renderer: &Renderer, input: &Path, talk: Talk) -> Result<Exit> {
    let masker = Masker::new(renderer.tokenizer(), args.files.mask, LossWeights::default())?;
    let mut job = Job { args, renderer, masker: &masker, talk, waiting: Vec::new(), counts: [0; 4] };
    let mut format = args.files.format;
    each_object(input, Columns::OfForms, |number, object| {
        let id = object.as_ref().ok().and_then(|row| row.get("id").filter(|id| !id.is_null()).cloned());
        let work = object.and_then(|row| work(&row, args.template_exact, &mut format));
        job.waiting.push(Waiting { number, id: id.unwrap_or_else(|| number.into()), work });
        if job.waiting.len() == CHUNK { job.print() } else { Ok(()) }
    })?;
    job.print()?;
    let [rows, refused, untrained, broken] = job.counts;
    let form = format.map_or_else(|| "unknown".to_owned(), |format| format.to_string());
    talk.item("input", format_args!("{} ({form}), {rows} rows", args.input.display()));
    let template = renderer.template();
    talk.item("template", format_args!("{} (sha256 {})", template.source(), template.sha256()));
    for (count, what) in [
        (refused, "refused, with an `error` in place of ids"),
        (untrained, "without a trained token under this mask"),
        (
            broken,
            "no longer Harmony, because content became control tokens; messages are parsed from the tokens",
        ),
    ] {
        if count > 0 {
            talk.warn(format_args!("{} {what}", counted(count, "row")));
        }
    }
    Ok(Exit::Success)
}

/// What is rendered of a row.
enum Work {
    /// As it is.
    Raw(TemplateInput),
    /// Read, and whether the prompt for the next message follows.
    Read(Body, bool),
}

/// Takes a row apart. The first good row decides the form of all.
fn work(row: &Map<String, Value>, exact: bool, format: &mut Option<Format>) -> Result<Work, Error> {
    let raw = TemplateInput::from_row(row)?;
    if exact {
        return Ok(Work::Raw(raw));
    }
    let form = Format::of(row, *format)?;
    let body = form.row(0, row)?.body;
    *format = Some(form);
    Ok(Work::Read(body, raw.add_generation_prompt))
}

/// A row that waits for its chunk.
struct Waiting {
    number: u64,
    id: Value,
    work: Result<Work, Error>,
}

struct Job<'a> {
    args: &'a Render,
    renderer: &'a Renderer,
    masker: &'a Masker,
    talk: Talk,
    waiting: Vec<Waiting>,
    /// Rows; of them refused, without a trained token, no longer Harmony.
    counts: [u64; 4],
}

impl Job<'_> {
    /// Renders and prints what waits.
    fn print(&mut self) -> Result<(), Error> {
        let waiting = std::mem::take(&mut self.waiting);
        let this = &*self;
        let done: Vec<(u64, Value, Result<Shown, Error>)> = waiting
            .into_par_iter()
            .map(|row| (row.number, row.id, row.work.and_then(|work| this.shown(work))))
            .collect();
        let mut lines = String::new();
        let mut end = Ok(());
        for (number, id, shown) in done {
            self.counts[0] += 1;
            match shown {
                Ok(shown) => {
                    self.counts[2] += u64::from(!shown.mask.contains(&1));
                    self.counts[3] += u64::from(shown.rendered.broken.is_some());
                    lines += &line(id, Ok(&shown), self.args.json);
                }
                Err(error) if self.args.files.on_bad_row == OnBadRow::Fail => {
                    end = Err(error.in_row(&self.args.input, number));
                    break;
                }
                Err(error) => {
                    self.counts[1] += 1;
                    lines += &line(id, Err(&error), self.args.json);
                }
            }
        }
        if !lines.is_empty() {
            let gone = |source| Error::Io { path: PathBuf::from("standard output"), source };
            self.talk.data(lines.trim_end_matches('\n')).map_err(gone)?;
        }
        end
    }

    fn shown(&self, work: Work) -> Result<Shown, Error> {
        let mut options = RenderOptions { date: self.args.files.date, ..RenderOptions::default() };
        options.exact = self.args.template_exact;
        let rendered = match &work {
            Work::Raw(input) => self.renderer.render_raw(input, &options)?,
            Work::Read(Body::Text(text), _) => self.renderer.rendered_text(text)?,
            Work::Read(Body::Conversation(conversation), prompt) => {
                options.add_generation_prompt = *prompt;
                self.renderer.render(conversation, &options)?
            }
        };
        let mask = if rendered.broken.is_some() {
            self.masker.mask_ids(&rendered.ids, &rendered.messages, 0)
        } else {
            self.masker.mask(&rendered, 0)
        };
        let mask = match mask {
            Ok(mask) => mask.bits().map(u8::from).collect(),
            Err(Error::EmptyMask { .. }) => vec![0; rendered.ids.len()],
            Err(error) => return Err(error),
        };
        Ok(Shown { rendered, mask })
    }
}

struct Shown {
    rendered: Rendered,
    mask: Vec<u8>,
}

/// A row's line, or without JSON its text under a heading.
fn line(id: Value, shown: Result<&Shown, &Error>, as_json: bool) -> String {
    match (shown, as_json) {
        (Err(error), true) => format!("{}\n", json!({"id": id, "error": error.to_string()})),
        (Err(error), false) => format!("--- {id}: refused: {error}\n"),
        (Ok(shown), false) => {
            let tokens = shown.rendered.ids.len();
            format!("--- {id}: {tokens} tokens\n{}\n", crate::words::visible(&shown.rendered.text))
        }
        (Ok(Shown { rendered, mask }), true) => {
            let messages: Vec<Value> = rendered
                .messages
                .iter()
                .map(|message| {
                    json!({
                        "role": message.header.role.as_str(),
                        "channel": message.header.channel.map(Channel::as_str),
                        "start": message.start,
                        "body": message.body,
                        "end": message.end,
                    })
                })
                .collect();
            let row = json!({"id": id, "text": rendered.text, "ids": rendered.ids, "messages": messages, "mask": mask});
            format!("{row}\n")
        }
    }
}
