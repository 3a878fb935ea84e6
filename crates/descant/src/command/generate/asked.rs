//! What is asked: every prompt at every effort, so many times, of one side or both.

use anyhow::Result;
use descant_harmony::{Conversation, Date, Message, Renderer, Role};

use crate::cli::Generate;
use crate::command::speaker::{instructions, prompt_ids};

/// The effort where nobody chooses one.
pub(super) const EFFORT: &str = "medium";

/// Who replies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Side {
    /// The bare model.
    #[default]
    Base,
    /// Base and adapter.
    Adapter,
}

impl Side {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Adapter => "adapter",
        }
    }
}

/// A reply that is wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    /// Which prompt, from 0.
    pub(super) prompt: usize,
    /// What the user says.
    pub(super) user: String,
    pub(super) effort: String,
    /// Which of the replies to the prompt, from 0.
    pub(super) sample: usize,
    pub(super) side: Side,
    pub(super) ids: Vec<u32>,
}

/// The prompts of the command line: by prompt, effort, sample, side.
pub(super) fn texts(args: &Generate, renderer: &Renderer, date: Date, sides: &[Side]) -> Result<Vec<Asked>> {
    let medium = [EFFORT.to_owned()];
    let efforts = if args.effort.is_empty() { &medium[..] } else { &args.effort };
    let mut asked = Vec::new();
    for (prompt, user) in args.prompts.iter().enumerate() {
        for effort in efforts {
            let first = instructions(args.developer.as_deref(), args.language.as_deref());
            let messages = first.into_iter().chain([Message::text(Role::User, user)]).collect();
            let conversation = Conversation::new(messages).with_effort(effort);
            let ids = prompt_ids(renderer, &conversation, date)?;
            for sample in 0..args.n {
                asked.extend(sides.iter().map(|side| Asked {
                    prompt,
                    user: user.clone(),
                    effort: effort.clone(),
                    sample,
                    side: *side,
                    ids: ids.clone(),
                }));
            }
        }
    }
    Ok(asked)
}
