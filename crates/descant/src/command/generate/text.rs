//! Replies as text for people: one as it is, two sides beside each other, efforts as a table.

use std::fmt::Write as _;

use anyhow::Result;
use descant_harmony::{Renderer, TextEncoder as _};
use descant_model::Generated;

use super::asked::Asked;
use crate::cli::Generate;
use crate::reply::{Turn, cut_short};
use crate::report::{Sample, compared, parts};
use crate::talk::Talk;
use crate::words::visible;
use crate::wrap::hanging;

/// Prints all of them.
pub(super) fn print(
    args: &Generate,
    asked: &[Asked],
    replies: &[Generated],
    renderer: &Renderer,
    talk: Talk,
) -> Result<()> {
    let decode = |reply: &Generated| renderer.tokenizer().decode(&reply.ids);
    if let ([_], [reply]) = (asked, replies) {
        talk.data(decode(reply)?)?;
    } else if args.effort.len() > 1 || args.prompts.len() > 1 || args.n > 1 {
        talk.data(table(asked, replies, renderer, talk.data_width())?.trim_end())?;
    } else if let ([base, _], [before, after]) = (asked, replies) {
        let sample = Sample {
            suite: String::new(),
            id: String::new(),
            language: None,
            effort: base.effort.clone(),
            asked: args.language.clone(),
            user: base.user.clone(),
            before: decode(before)?,
            after: Some(decode(after)?),
        };
        talk.data(compared(&sample, talk.data_width()).trim_end())?;
    }
    if args.logprobs.is_some() {
        let text = |id| renderer.tokenizer().decode(&[id]).unwrap_or_default();
        for reply in replies {
            talk.data(log_probabilities(reply, text).trim_end())?;
        }
    }
    for said in replies.iter().filter_map(|reply| cut_short(reply.stop, args.max_new_tokens)) {
        talk.say(said);
    }
    Ok(())
}

/// The replies under their prompts, after a table of how long each is: the efforts of one prompt side by side.
fn table(asked: &[Asked], replies: &[Generated], renderer: &Renderer, width: usize) -> Result<String> {
    let (mut text, mut last) = (String::new(), None);
    let sides = asked.iter().any(|other| other.side != asked[0].side);
    let samples = asked.iter().any(|other| other.sample > 0);
    for (at, (asked_now, reply)) in asked.iter().zip(replies).enumerate() {
        if last != Some(asked_now.prompt) {
            if last.is_some() {
                text.push('\n');
            }
            let _ = writeln!(text, "{}\n", hanging("prompt", &visible(&asked_now.user), width));
            last = Some(asked_now.prompt);
            let of_prompt: Vec<usize> =
                (at..asked.len()).take_while(|&i| asked[i].prompt == asked_now.prompt).collect();
            let _ = writeln!(
                text,
                "{:<8}  {:<8}  {:>6}  {:>10}  {:>8}  answer",
                "effort", "side", "sample", "reasoning", "reply"
            );
            for i in of_prompt {
                let turn = Turn::read(renderer.tokenizer(), &replies[i].ids);
                let thinking = match &turn.thinking {
                    Some(thinking) => renderer.tokenizer().encode_text(thinking)?.len(),
                    None => 0,
                };
                let answer = turn.answer.as_deref().unwrap_or("(none)");
                let answer: String =
                    visible(answer).lines().next().unwrap_or_default().chars().take(40).collect();
                let _ = writeln!(
                    text,
                    "{:<8}  {:<8}  {:>6}  {:>10}  {:>8}  {answer}",
                    asked[i].effort,
                    asked[i].side.as_str(),
                    asked[i].sample,
                    thinking,
                    replies[i].ids.len(),
                );
            }
            text.push('\n');
        }
        let mut title = format!("{} effort", asked_now.effort);
        if sides {
            let _ = write!(title, ", {}", asked_now.side.as_str());
        }
        if samples {
            let _ = write!(title, ", sample {}", asked_now.sample);
        }
        let _ = writeln!(text, "{title}");
        let reply = renderer.tokenizer().decode(&reply.ids)?;
        for (channel, part) in parts(&reply) {
            let _ =
                writeln!(text, "  {}", hanging(channel, part, width.saturating_sub(2)).replace('\n', "\n  "));
        }
    }
    Ok(text)
}

/// A line for each token: its log-probability, and the likeliest others.
pub(super) fn log_probabilities(reply: &Generated, text: impl Fn(u32) -> String) -> String {
    let mut lines = format!("{:>8}  {:>9}  token\n", "id", "log p");
    for (at, (id, value)) in reply.ids.iter().zip(&reply.log_probabilities).enumerate() {
        let _ = write!(lines, "{id:>8}  {value:>9.4}  {:?}", text(*id));
        for (other, value) in reply.top.get(at).into_iter().flatten() {
            let _ = write!(lines, "  {:?} {value:.4}", text(*other));
        }
        lines.push('\n');
    }
    lines
}
