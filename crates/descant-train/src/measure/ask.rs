//! Asks every held-out prompt at every effort, with its language requested and without, and counts the replies.
//!
//! Decoding is the caller's, so that base, adapter and a table of expected replies are measured by the same lines.

use descant_harmony::{Date, RenderOptions, Renderer, TextEncoder as _};
use serde::{Deserialize, Serialize};

use super::cell::{Asked, Evaluation};
use super::held_out::HeldOut;
use super::language::Language;
use super::reply::{Expected, judge};
use crate::event::{Event, Observer};

/// What is asked, and how.
#[derive(Debug, Clone, Copy)]
pub struct Questions<'a> {
    /// The prompts.
    pub prompts: &'a [HeldOut],
    /// Efforts to ask each of them at.
    pub efforts: &'a [String],
    /// Date of the system message.
    pub date: Date,
    /// Prompts that are decoded together.
    pub batch: usize,
}

/// One reply, with what it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// Effort of the prompt.
    pub effort: String,
    /// Whether the prompt requested its language.
    pub asked: bool,
    /// Index of the prompt.
    pub prompt: usize,
    /// The reply as text, special tokens shown, padding left out.
    pub text: String,
}

impl Questions<'_> {
    /// How many replies there will be.
    pub fn len(&self) -> usize {
        2 * self.efforts.len() * self.prompts.len()
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Continues prompts given as ids, tells how many of them are done, and returns the new ids of each, in order.
pub type Decode<'a, E> = dyn FnMut(&[Vec<u32>], &mut dyn FnMut(usize)) -> Result<Vec<Vec<u32>>, E> + 'a;

/// Asks all questions.
///
/// # Errors
/// A prompt cannot be rendered, or `decode` fails.
pub fn ask<E: From<descant_harmony::Error>>(
    questions: &Questions<'_>,
    renderer: &Renderer,
    decode: &mut Decode<'_, E>,
    observer: &mut dyn Observer,
) -> Result<(Evaluation, Vec<Reply>), E> {
    let mut evaluation = Evaluation::default();
    let mut replies = Vec::with_capacity(questions.len());
    for effort in questions.efforts {
        for asked in [false, true] {
            for (batch, prompts) in questions.prompts.chunks(questions.batch.max(1)).enumerate() {
                let rendered: Result<Vec<_>, _> =
                    prompts.iter().map(|p| render(renderer, p, effort, asked, questions.date)).collect();
                let done = replies.len();
                let mut progress = |n: usize| observer.on(&Event::Progress { done: (done + n) as u64 });
                for (at, ids) in decode(&rendered?, &mut progress)?.iter().enumerate() {
                    let text = reply_text(renderer, ids)?;
                    count(&mut evaluation, renderer, &prompts[at], effort, asked, &text);
                    let prompt = batch * questions.batch.max(1) + at;
                    replies.push(Reply { effort: effort.clone(), asked, prompt, text });
                }
            }
        }
    }
    sort(&mut evaluation, questions.efforts);
    Ok((evaluation, replies))
}

fn render(
    renderer: &Renderer,
    prompt: &HeldOut,
    effort: &str,
    asked: bool,
    date: Date,
) -> Result<Vec<u32>, descant_harmony::Error> {
    let conversation = if asked { &prompt.asked } else { &prompt.plain };
    let options = RenderOptions { date, add_generation_prompt: true, ..RenderOptions::default() };
    Ok(renderer.render(&conversation.clone().with_effort(effort), &options)?.ids)
}

/// New ids as text. `<|endoftext|>` is what batches are padded with, and counts as nothing.
fn reply_text(renderer: &Renderer, ids: &[u32]) -> Result<String, descant_harmony::Error> {
    Ok(renderer.tokenizer().decode(ids)?.replace("<|endoftext|>", ""))
}

fn count(
    evaluation: &mut Evaluation,
    renderer: &Renderer,
    prompt: &HeldOut,
    effort: &str,
    asked: bool,
    reply: &str,
) {
    let tokens = |text: &str| renderer.tokenizer().encode_text(text).map_or(0, |ids| ids.len());
    let language = if asked { prompt.language } else { Language::English };
    let verdict = judge(reply, Expected { language, answer: &prompt.answer }, &tokens);
    if asked {
        evaluation.add(effort, Asked::Any, verdict);
        evaluation.add(effort, Asked::Language(language), verdict);
    } else {
        evaluation.add(effort, Asked::Nothing, verdict);
    }
}

/// Efforts as asked; within one, nothing asked, each its own, then the languages.
fn sort(evaluation: &mut Evaluation, efforts: &[String]) {
    evaluation.cells.sort_by_key(|cell| (efforts.iter().position(|e| *e == cell.effort), cell.asked));
}
