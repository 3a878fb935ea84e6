//! `--stream`: text as it comes, one reply after the other.

use std::io;

use anyhow::Result;
use descant_harmony::{Renderer, ReplyPart, ReplyStream};
use descant_model::{Go, NewToken, Watch};

use super::asked::Asked;
use super::asking::{options, request};
use crate::cli::Generate;
use crate::command::speaker::Speaker;
use crate::failure::Exit;
use crate::reply::{Screen, cut_short};
use crate::talk::Talk;

/// Shows a reply while it comes.
struct Showing<'a, 'w> {
    stream: ReplyStream<'a>,
    screen: &'a mut Screen<'w>,
    failed: Option<io::Error>,
}

impl Watch for Showing<'_, '_> {
    fn token(&mut self, token: &NewToken<'_>) -> Go {
        let shown = self.stream.push(token.id).iter().try_for_each(|part| self.screen.part(part));
        self.failed = shown.err();
        if self.failed.is_some() { Go::EndAll } else { Go::On }
    }
}

/// Asks one after the other. A reader that goes away ends it.
pub(super) fn run(
    args: &Generate,
    speaker: &Speaker,
    renderer: &Renderer,
    asked: &[Asked],
    talk: Talk,
) -> Result<Exit> {
    let mut write = |text: &str| talk.write(text);
    let mut screen = Screen::new(talk.look(), Talk::columns_now, &mut write);
    for (at, asked_now) in asked.iter().enumerate() {
        if let Some(title) = title(asked, asked_now) {
            if at > 0 {
                talk.write("\n")?;
            }
            screen.title(&title)?;
        }
        let stream = ReplyStream::new(renderer.tokenizer());
        let mut showing = Showing { stream, screen: &mut screen, failed: None };
        let request = request(args, asked_now)?;
        let options = options(args, speaker);
        let reply = speaker.model.generate(&[request], &*speaker.overlay, &options, &mut showing)?;
        if let Some(error) = showing.failed {
            return Err(error.into());
        }
        let rest = showing.stream.finish();
        if let Some(rest) = rest {
            screen.part(&ReplyPart::Text(rest))?;
        }
        screen.line_break()?;
        for said in reply.iter().filter_map(|reply| cut_short(reply.stop, args.max_new_tokens)) {
            talk.say(said);
        }
    }
    Ok(Exit::Success)
}

/// What sets this reply apart from the others.
fn title(all: &[Asked], asked: &Asked) -> Option<String> {
    let differ = |of: fn(&Asked) -> String| all.iter().any(|other| of(other) != of(asked)).then(|| of(asked));
    let parts: Vec<String> = [
        differ(|asked| asked.user.clone()),
        differ(|asked| format!("effort {}", asked.effort)),
        differ(|asked| format!("sample {}", asked.sample)),
        differ(|asked| asked.side.as_str().to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
