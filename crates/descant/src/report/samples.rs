//! Replies to the same prompt, before and after, side by side.

use descant_train::measure::parse;
use serde::Serialize;

/// One prompt and what was said to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Sample {
    /// Reasoning effort.
    pub(crate) effort: String,
    /// Reasoning language that the prompt asks for, by name; `None` when it asks for none.
    pub(crate) asked: Option<String>,
    /// What the user says.
    pub(crate) user: String,
    /// The base's reply, special tokens shown.
    pub(crate) before: String,
    /// The trained model's reply, special tokens shown.
    pub(crate) after: String,
}

/// The parts of a reply as people read them: label and text.
pub(crate) fn parts(reply: &str) -> Vec<(&'static str, &str)> {
    match parse(reply) {
        Some((analysis, answer)) => vec![("analysis", analysis), ("final", answer)],
        None => vec![("not Harmony", reply)],
    }
}

/// Both replies in two columns of a page `width` wide.
pub(crate) fn side_by_side(sample: &Sample, width: usize) -> String {
    let asked =
        sample.asked.as_ref().map_or_else(String::new, |asked| format!(", asked to reason in {asked}"));
    let mut text =
        wrap(&format!("{} effort{asked}: {}", sample.effort, sample.user), width).join("\n") + "\n";
    let column = (width.max(60) - 5) / 2;
    let [left, right] = [("before", &sample.before), ("after", &sample.after)].map(|(name, reply)| {
        let mut lines = vec![name.to_owned()];
        for (label, part) in parts(reply) {
            lines.extend(wrap(&format!("{label}: {part}"), column));
        }
        lines
    });
    for at in 0..left.len().max(right.len()) {
        let cell = |lines: &[String]| lines.get(at).cloned().unwrap_or_default();
        let line = format!("  {:<column$} | {}", cell(&left), cell(&right));
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Words into lines of at most `width` characters; a longer word is broken. Control characters become spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut length = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        let letters: Vec<char> = word.chars().collect();
        for (at, piece) in letters.chunks(width).enumerate() {
            let gap = usize::from(at == 0 && length > 0);
            if length + gap + piece.len() > width || at > 0 {
                lines.push(String::new());
                length = 0;
            } else if gap == 1 {
                lines.last_mut().expect("begins with one line").push(' ');
                length += 1;
            }
            lines.last_mut().expect("begins with one line").extend(piece);
            length += piece.len();
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(analysis: &str, answer: &str) -> String {
        format!(
            "<|channel|>analysis<|message|>{analysis}<|end|><|start|>assistant<|channel|>final<|message|>{answer}<|return|>"
        )
    }

    #[test]
    fn replies_stand_beside_each_other() {
        let sample = Sample {
            effort: "medium".into(),
            asked: Some("French".into()),
            user: "What is 71 + 26?".into(),
            before: reply(
                "We need the sum of 71 and 26. We get 71 + 26 = 97. So the answer is 97.",
                "The answer is 97.",
            ),
            after: reply("Il s'agit d'additionner 71 et 26.", "The answer is 97."),
        };
        insta::assert_snapshot!(side_by_side(&sample, 80), @r##"
        medium effort, asked to reason in French: What is 71 + 26?
          before                                | after
          analysis: We need the sum of 71 and   | analysis: Il s'agit d'additionner 71
          26. We get 71 + 26 = 97. So the       | et 26.
          answer is 97.                         | final: The answer is 97.
          final: The answer is 97.              |
        "##);
    }

    #[test]
    fn what_is_no_harmony_is_shown_as_it_is_and_cannot_move_the_cursor() {
        let sample = Sample {
            effort: "low".into(),
            asked: None,
            user: "x\u{7}y".into(),
            before: "<|channel|>\u{1b}[2Jfinal\r\n".into(),
            after: "y".repeat(50),
        };
        insta::assert_snapshot!(side_by_side(&sample, 60), @r##"
        low effort: x y
          before                      | after
          not Harmony: <|channel|>    | not Harmony:
          [2Jfinal                    | yyyyyyyyyyyyyyyyyyyyyyyyyyy
                                      | yyyyyyyyyyyyyyyyyyyyyyy
        "##);
    }
}
