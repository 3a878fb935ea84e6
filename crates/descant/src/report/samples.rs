//! Replies to the same prompt, before and after, as people read them.

use std::fmt::Write as _;

use descant_evaluate::{Key, Samples, Suite};

use crate::wrap::{WIDE, wrap};

/// One prompt and what was said to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Its suite.
    pub(crate) suite: String,
    /// Id of the question.
    pub(crate) id: String,
    /// Reasoning effort.
    pub(crate) effort: String,
    /// Reasoning language that the prompt asks for, by name; `None` when it asks for none.
    pub(crate) asked: Option<String>,
    /// Its code.
    pub(crate) language: Option<String>,
    /// What the user says.
    pub(crate) user: String,
    /// The base's reply, or that of the only side, special tokens shown.
    pub(crate) before: String,
    /// The trained model's reply.
    pub(crate) after: Option<String>,
}

/// Replies of both sides to the first `most` questions of each suite, at each effort. A question that asks for a
/// language is shown with its request.
pub(crate) fn samples_of(
    suites: &[Suite],
    before: &Samples,
    after: Option<&Samples>,
    most: usize,
) -> Vec<Sample> {
    let mut shown = Vec::new();
    for suite in suites {
        for effort in &before.header.settings.efforts {
            for question in suite.questions.iter().take(most) {
                let asked = question.reasoning_language.is_some();
                let key = Key { question: question.id.clone(), effort: effort.clone(), asked, sample: 0 };
                let Some(was) = before.replies.get(&key) else { continue };
                let now = after.and_then(|samples| samples.replies.get(&key));
                shown.push(Sample {
                    suite: suite.name.clone(),
                    id: question.id.clone(),
                    effort: effort.clone(),
                    asked: question.reasoning_language.map(|language| language.name().to_owned()),
                    language: question.reasoning_language.map(|language| language.code().to_owned()),
                    user: question.user().to_owned(),
                    before: was.text.clone(),
                    after: now.map(|reply| reply.text.clone()),
                });
            }
        }
    }
    shown
}

/// The parts of a reply as people read them: channel and text. What is not read to its end is shown as it is.
pub(crate) fn parts(reply: &str) -> Vec<(&str, &str)> {
    let mut parts = Vec::new();
    let mut rest = reply;
    loop {
        let header = rest.strip_prefix("<|start|>assistant").unwrap_or(rest);
        let message = header.strip_prefix("<|channel|>").and_then(|rest| rest.split_once("<|message|>"));
        let Some((channel, body)) = message.filter(|(channel, _)| !channel.contains("<|")) else {
            if !rest.is_empty() {
                parts.push(("not Harmony", rest));
            }
            return parts;
        };
        let Some(at) = body.find("<|") else {
            parts.push((channel, body));
            return parts;
        };
        parts.push((channel, &body[..at]));
        let closed =
            ["<|end|>", "<|return|>", "<|call|>"].iter().find_map(|end| body[at..].strip_prefix(end));
        rest = closed.unwrap_or(&body[at..]);
        if rest.is_empty() {
            return parts;
        }
    }
}

/// Columns of a side's name, and of a channel's.
const SIDE: usize = 8;
const CHANNEL: usize = 10;

/// A reply in a narrow page: the side's name, and its channels with their texts below themselves.
fn below(name: &str, reply: &str, width: usize) -> String {
    let mut text = String::new();
    let indent = 2 + SIDE + CHANNEL;
    for (at, (channel, body)) in parts(reply).into_iter().enumerate() {
        let side = if at == 0 { format!("{name}:") } else { String::new() };
        let mut label = format!("  {side:<SIDE$}{channel:<CHANNEL$}");
        if channel.chars().count() >= CHANNEL {
            let _ = writeln!(text, "{}", label.trim_end());
            label = " ".repeat(indent);
        }
        let body = wrap(body, width.saturating_sub(indent)).join(&format!("\n{}", " ".repeat(indent)));
        let _ = writeln!(text, "{}", format!("{label}{body}").trim_end());
    }
    text
}

/// Both replies: in two columns from 100 columns on, below each other in a narrower page.
pub(crate) fn compared(sample: &Sample, width: usize) -> String {
    let asked = sample.asked.as_ref().map_or_else(String::new, |asked| format!("{asked}, "));
    let head = format!("{asked}{} effort: {}", sample.effort, sample.user);
    let mut text = wrap(&head, width).join("\n") + "\n";
    let sides = [("before", Some(&sample.before)), ("after", sample.after.as_ref())];
    let lines = |reply: &str, width: usize| -> Vec<String> {
        parts(reply).into_iter().flat_map(|(label, part)| wrap(&format!("{label}: {part}"), width)).collect()
    };
    if width < WIDE || sample.after.is_none() {
        for (name, reply) in sides.into_iter().filter_map(|(name, reply)| Some((name, reply?))) {
            text += &below(name, reply, width);
        }
        return text;
    }
    let column = (width - 5) / 2;
    let side = |(name, reply): (&str, Option<&String>)| {
        let mut all = vec![name.to_owned()];
        all.extend(lines(reply.map_or("", String::as_str), column));
        all
    };
    let [left, right] = sides.map(side);
    for at in 0..left.len().max(right.len()) {
        let cell = |lines: &[String]| lines.get(at).cloned().unwrap_or_default();
        let line = format!("  {:<column$} | {}", cell(&left), cell(&right));
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        let reply = |analysis: &str| {
            format!(
                "<|channel|>analysis<|message|>{analysis}<|end|><|start|>assistant<|channel|>final<|message|>The answer is 97.<|return|>"
            )
        };
        Sample {
            suite: "s".into(),
            id: "a".into(),
            effort: "medium".into(),
            asked: Some("French".into()),
            language: Some("fr".into()),
            user: "What is 71 + 26?".into(),
            before: reply("We need the sum of 71 and 26. We get 71 + 26 = 97. So the answer is 97."),
            after: Some(reply("Il s'agit d'additionner 71 et 26.")),
        }
    }

    #[test]
    fn replies_stand_beside_each_other_where_there_is_room() {
        insta::assert_snapshot!(compared(&sample(), 100), @r"
        French, medium effort: What is 71 + 26?
          before                                          | after
          analysis: We need the sum of 71 and 26. We get  | analysis: Il s'agit d'additionner 71 et 26.
          71 + 26 = 97. So the answer is 97.              | final: The answer is 97.
          final: The answer is 97.                        |
        ");
        insta::assert_snapshot!(compared(&sample(), 60), @r"
        French, medium effort: What is 71 + 26?
          before: analysis  We need the sum of 71 and 26. We get 71
                            + 26 = 97. So the answer is 97.
                  final     The answer is 97.
          after:  analysis  Il s'agit d'additionner 71 et 26.
                  final     The answer is 97.
        ");
    }

    #[test]
    fn what_is_no_harmony_is_shown_as_it_is_and_cannot_move_the_cursor() {
        assert_eq!(parts("<|channel|>\u{1b}[2Jfinal"), [("not Harmony", "<|channel|>\u{1b}[2Jfinal")]);
        assert_eq!(parts("<|channel|>analysis<|message|>cut"), [("analysis", "cut")]);
        assert_eq!(
            parts("<|channel|>analysis<|message|>a<|channel|>b"),
            [("analysis", "a"), ("not Harmony", "<|channel|>b")]
        );
        let text = compared(&Sample { before: "\u{1b}[2J".into(), ..sample() }, 60);
        assert!(!text.contains('\u{1b}'));
    }
}
