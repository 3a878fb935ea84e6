//! From a conversation to ids, with every message's place in them.
//!
//! ```text
//! conversation -> template -> text -> cut at the template's control tokens -> ids -> parsed into messages
//!       \-> content hidden from the template's own control tokens (escape.rs)
//! ```
//!
//! `exact` gives what transformers gives instead: the whole text tokenized as one, special tokens in content special.

use crate::error::{Error, Result};
use crate::examples::rendered::{Cut, Encoded, Rendered};
use crate::examples::weights::weights;
use crate::messages::parse::{Parsed, parse_conversation};
use crate::messages::scan::scan;
use crate::row::conversation::Conversation;
use crate::row::date::{Date, PINNED_DATE};
use crate::row::input::TemplateInput;
use crate::text::escape::Escape;
use crate::text::locate::located;
use crate::text::template::ChatTemplate;
use crate::tokens::special::Piece;
use crate::tokens::tokenizer::{TextEncoder, Tokenizer};
use std::path::Path;

/// What rendering needs in addition to the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderOptions {
    /// The day in the system message, where the conversation states none.
    pub date: Date,
    /// The reasoning effort, where the conversation states none; the template's own default when absent.
    pub effort: Option<String>,
    /// The model's identity, where the conversation states none; the template's own default when absent.
    pub identity: Option<String>,
    /// Whether the text ends with the prompt for the next assistant message.
    pub add_generation_prompt: bool,
    /// Whether special tokens in content become special, as in transformers. For comparison only.
    pub exact: bool,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self { date: PINNED_DATE, effort: None, identity: None, add_generation_prompt: false, exact: false }
    }
}

impl RenderOptions {
    /// Adds the effort and the identity where the input states none.
    pub(crate) fn fill(&self, mut input: TemplateInput) -> TemplateInput {
        for (key, value) in [("reasoning_effort", &self.effort), ("model_identity", &self.identity)] {
            if let Some(value) = value {
                input.kwargs.entry(key).or_insert_with(|| value.as_str().into());
            }
        }
        input
    }
}

/// A tokenizer and the chat template that goes with it.
#[derive(Debug)]
pub struct Renderer {
    tokenizer: Tokenizer,
    template: ChatTemplate,
}

impl Renderer {
    /// A renderer of these two.
    pub fn new(tokenizer: Tokenizer, template: ChatTemplate) -> Self {
        Self { tokenizer, template }
    }

    /// The tokenizer and the template of a model directory; `template` overrides the latter.
    ///
    /// # Errors
    /// As [`Tokenizer::load`] and [`ChatTemplate::load`].
    pub fn load(model_dir: &Path, template: Option<&Path>) -> Result<Self> {
        Ok(Self::new(Tokenizer::load(model_dir)?, ChatTemplate::load(model_dir, template)?))
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// When the template refuses it, or renders what is not Harmony.
    pub fn render(&self, conversation: &Conversation, options: &RenderOptions) -> Result<Rendered> {
        let input = conversation.to_input(options.add_generation_prompt);
        let date = conversation.date.unwrap_or(options.date);
        let mut rendered = self.render_input(input, date, options)?;
        if rendered.broken.is_none() {
            rendered.weights = weights(&conversation.messages, &rendered.messages)?;
        }
        Ok(rendered)
    }

    /// Renders a row as it is: nothing dropped, renamed or checked before the template sees it.
    /// `add_generation_prompt` is the input's.
    ///
    /// # Errors
    /// As [`Renderer::render`].
    pub fn render_raw(&self, input: &TemplateInput, options: &RenderOptions) -> Result<Rendered> {
        self.render_input(input.clone(), options.date, options)
    }

    /// Text that is Harmony already: special tokens in it are special.
    ///
    /// # Errors
    /// When it is not Harmony.
    pub fn rendered_text(&self, text: &str) -> Result<Rendered> {
        let segments: Vec<Segment> =
            self.tokenizer.control().split(text).into_iter().map(Segment::from).collect();
        self.parsed(text.to_owned(), self.encode(&segments)?, false)
    }

    fn render_input(&self, input: TemplateInput, date: Date, options: &RenderOptions) -> Result<Rendered> {
        let (text, segments) = self.segments(&options.fill(input), date, options.exact)?;
        self.parsed(text, self.encode(&segments)?, options.exact)
    }

    /// Finds the messages in ids.
    pub(crate) fn parsed(&self, text: String, encoded: Encoded, exact: bool) -> Result<Rendered> {
        let Encoded { ids, cuts } = encoded;
        let (parsed, broken) = match parse_conversation(&self.tokenizer, &ids) {
            Ok(parsed) => (parsed, None),
            Err(error) if exact => {
                (Parsed { messages: scan(&self.tokenizer, &ids), prompt: None }, Some(error))
            }
            Err(error) => return Err(error.into()),
        };
        let Parsed { messages, prompt } = parsed;
        Ok(Rendered { text, ids, messages, prompt, broken, weights: Vec::new(), cuts })
    }

    /// The text of an input, and the same cut at its control tokens.
    pub(crate) fn segments(
        &self,
        input: &TemplateInput,
        date: Date,
        exact: bool,
    ) -> Result<(String, Vec<Segment>)> {
        let control = self.tokenizer.control();
        // The template sees the real text first, so that it can refuse what it would refuse.
        let text =
            self.template.render(input, date).map_err(|error| located(error, &self.template, input, date))?;
        let escape = if exact { None } else { Escape::plan(input, control.guards())? };
        let Some(escape) = escape else {
            let segments = control.split(&text).into_iter().map(Segment::from).collect();
            return Ok((text, segments));
        };
        let hidden = self.template.render(&escape.hide(input), date)?;
        if escape.reveal(&hidden) != text {
            return Err(Error::TemplateReadsMarkup);
        }
        let segments = control.split(&hidden).into_iter().map(|piece| match piece {
            Piece::Control(id) => Segment::Control(id),
            Piece::Text(text) => Segment::Text(escape.reveal(text)),
        });
        Ok((text, segments.collect()))
    }

    /// The ids of a text that was cut.
    pub(crate) fn encode(&self, segments: &[Segment]) -> Result<Encoded> {
        let control = self.tokenizer.control();
        let mut encoded = Encoded { ids: Vec::new(), cuts: Vec::with_capacity(segments.len()) };
        let mut byte = 0;
        for segment in segments {
            encoded.cuts.push(Cut { token: encoded.ids.len(), byte });
            match segment {
                Segment::Control(id) => {
                    byte += control.text(*id).map_or(0, str::len);
                    encoded.ids.push(*id);
                }
                Segment::Text(text) => {
                    byte += text.len();
                    encoded.ids.extend(self.tokenizer.encode_text(text)?);
                }
            }
        }
        Ok(encoded)
    }
}

/// A [`Piece`] that owns its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Control(u32),
    Text(String),
}

impl From<Piece<'_>> for Segment {
    fn from(piece: Piece<'_>) -> Self {
        match piece {
            Piece::Control(id) => Self::Control(id),
            Piece::Text(text) => Self::Text(text.to_owned()),
        }
    }
}
