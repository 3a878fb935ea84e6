//! Everything about a row that can be found out without the others: its views, rendered, masked, counted and hashed.

use crate::error::{Error, Result};
use crate::examples::example::{Example, OnTooLong, PrepareOptions};
use crate::examples::languages::JUDGED_BYTES;
use crate::examples::mask::{ClassCounts, LossMask, MaskPolicy, Masker};
use crate::examples::render::Renderer;
use crate::examples::rendered::Rendered;
use crate::examples::views::{View, ViewPolicy};
use crate::messages::parse::MessageSpan;
use crate::row::body::Row;
use crate::row::channel::Channel;
use crate::row::conversation::Role;
use crate::row::ignored::{Ignored, Place};
use sha2::{Digest, Sha256};

/// What one row gives.
pub(super) struct Ready {
    /// Keys that were not used.
    pub(super) ignored: Ignored,
    pub(super) fates: Vec<Fate>,
}

/// What becomes of one view.
pub(super) enum Fate {
    Kept(Box<Kept>),
    Dropped,
    Empty(Error),
}

/// A view that can be trained on, unless it repeats another.
pub(super) struct Kept {
    pub(super) example: Example,
    /// Whether it was too long and lost messages.
    pub(super) cut: bool,
    pub(super) counts: ClassCounts,
    /// The beginning of its reasoning; `None` without any.
    pub(super) reasoning: Option<String>,
}

/// Makes rows ready, in any thread.
pub(super) struct Maker<'r> {
    renderer: &'r Renderer,
    masker: Masker,
    options: &'r PrepareOptions,
}

impl<'r> Maker<'r> {
    pub(super) fn new(renderer: &'r Renderer, options: &'r PrepareOptions) -> Result<Self> {
        let masker = Masker::new(renderer.tokenizer(), options.mask, options.weights)?;
        Ok(Self { renderer, masker, options })
    }

    pub(super) fn row(&self, row: &Row) -> Result<Ready> {
        let views = self.renderer.views(&row.body, &self.options.render, self.options.views)?;
        let group = views.first().map_or(0, |view| prompt_key(view, self.masker.opening()));
        let fates = views.into_iter().map(|view| self.fate(row, view, group)).collect::<Result<_>>()?;
        let mut ignored = row.ignored.clone();
        if self.options.mask != MaskPolicy::Everything {
            weights_without_effect(row, &mut ignored);
        }
        if self.options.views != ViewPolicy::WholeRow {
            after_the_last_answer(row, &mut ignored);
        }
        Ok(Ready { ignored, fates })
    }

    fn fate(&self, row: &Row, mut view: View, group: u64) -> Result<Fate> {
        let tokens = view.rendered.ids.len();
        let limit = self.options.max_tokens.unwrap_or(usize::MAX);
        let cut = tokens > limit;
        if cut {
            match self.options.on_too_long {
                OnTooLong::Fail => return Err(Error::TooLong { tokens, limit }),
                OnTooLong::Drop => return Ok(Fate::Dropped),
                OnTooLong::CutAtMessage => view.rendered = view.rendered.up_to(limit),
            }
        }
        match self.masker.mask(&view.rendered, view.trained_from) {
            Ok(mask) => Ok(Fate::Kept(Box::new(kept(row, view, mask, cut, group)))),
            Err(Error::EmptyMask { .. }) if cut => Ok(Fate::Dropped),
            Err(error @ Error::EmptyMask { .. }) => Ok(Fate::Empty(error)),
            Err(error) => Err(error),
        }
    }
}

fn kept(row: &Row, view: View, mask: LossMask, cut: bool, group: u64) -> Kept {
    let View { rendered, message, .. } = view;
    let first_reasoning = first_reasoning(&rendered, &mask);
    let (counts, reasoning) = (mask.counts(), reasoning(&rendered));
    let hash = hash(&rendered.ids, &mask.weights, first_reasoning);
    let example = Example {
        row: row.number,
        message,
        ids: rendered.ids,
        mask,
        first_reasoning,
        reasoning_language: row.reasoning_language.clone(),
        hash,
        group,
    };
    Kept { example, cut, counts, reasoning }
}

/// Messages behind the last answer, which are in no view.
fn after_the_last_answer(row: &Row, ignored: &mut Ignored) {
    let messages = row.conversation().map_or(&[][..], |conversation| &conversation.messages);
    for _ in messages.iter().rev().take_while(|message| message.role != Role::Assistant) {
        ignored.add(Place::Message, "(after the last answer)");
    }
}

/// Weights that ask for what this mask does not train.
fn weights_without_effect(row: &Row, ignored: &mut Ignored) {
    let messages = row.conversation().map_or(&[][..], |conversation| &conversation.messages);
    for message in messages {
        if message.role != Role::Assistant && message.weight.is_some_and(|weight| weight > 0.0) {
            ignored.add(Place::Message, &format!("weight of {}", message.role));
        }
    }
}

fn analyses(rendered: &Rendered) -> impl Iterator<Item = &MessageSpan> {
    let is_analysis = |message: &&MessageSpan| {
        message.header.role == Role::Assistant && message.header.channel == Some(Channel::Analysis)
    };
    rendered.messages.iter().filter(is_analysis)
}

/// The reasoning in a row, as much of it as is looked at; `None` without any.
fn reasoning(rendered: &Rendered) -> Option<String> {
    let mut text: Option<String> = None;
    for message in analyses(rendered) {
        let content = rendered.content(message);
        match &mut text {
            None => text = Some(content.to_owned()),
            Some(text) => {
                text.push('\n');
                text.push_str(content);
            }
        }
    }
    text.map(|mut text| {
        text.truncate(text.floor_char_boundary(JUDGED_BYTES));
        text
    })
}

fn first_reasoning(rendered: &Rendered, mask: &LossMask) -> Option<usize> {
    let first = analyses(rendered).next()?.body;
    mask.weights.get(first).is_some_and(|weight| *weight > 0.0).then_some(first)
}

/// What a trainer sees of an example. A run's identity is made of these: the same data must give the same for ever.
pub(crate) fn hash(ids: &[u32], weights: &[f32], first_reasoning: Option<usize>) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(8 * ids.len() + 8);
    bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    bytes.extend(weights.iter().flat_map(|weight| weight.to_bits().to_le_bytes()));
    bytes.extend(first_reasoning.map_or(u64::MAX, |at| at as u64).to_le_bytes());
    Sha256::digest(&bytes).into()
}

/// A key of a row's prompt: the tokens before its first reply, which begins behind the opening of an assistant message;
/// of all tokens where nothing is before one.
fn prompt_key(view: &View, opening: usize) -> u64 {
    let rendered = &view.rendered;
    let is_reply = |message: &&MessageSpan| message.header.role == Role::Assistant;
    let end = match view.trained_from {
        0 => rendered.messages.iter().find(is_reply).map(|reply| reply.start).filter(|start| *start > 0),
        from => from.checked_sub(opening),
    };
    let end = end.map_or(rendered.ids.len(), |start| start + opening);
    let prompt = &rendered.ids[..end.min(rendered.ids.len())];
    let bytes: Vec<u8> = prompt.iter().flat_map(|id| id.to_le_bytes()).collect();
    let hash = Sha256::digest(&bytes);
    u64::from_le_bytes(*hash.first_chunk().expect("SHA-256 has 32 bytes"))
}
