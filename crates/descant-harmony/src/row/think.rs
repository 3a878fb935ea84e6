//! Reasoning between tags in the text of an answer, as models without channels write it.
//!
//! An answer that begins with such a tag and closes it once says what it thought, and then what it answers: the first
//! is read as its reasoning. A tag in any other place is text, which an answer about such tags may hold, or a broken
//! record: it is trained unchanged, and counted.

use crate::error::{Error, Result};
use crate::row::ignored::{Ignored, Place};

/// Tags that open reasoning, and those that close it.
const TAGS: [(&str, &str); 4] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
];
/// Tags around an answer that follows the last kind of reasoning.
const SOLUTION: (&str, &str) = ("<|begin_of_solution|>", "<|end_of_solution|>");

/// An answer without its tags.
pub(crate) struct Answer {
    pub(crate) thinking: Option<String>,
    pub(crate) said: String,
}

/// Takes the reasoning out of the text of an answer, which may have reasoning of its own beside it, or a tool call.
///
/// # Errors
/// The two reasonings differ; neither an answer nor a call follows the reasoning.
pub(crate) fn answer(
    said: String,
    thinking: Option<String>,
    calls: bool,
    path: &str,
    ignored: &mut Ignored,
) -> Result<Answer> {
    let Some((thought, rest)) = split(&said) else {
        count(&said, ignored);
        return Ok(Answer { thinking, said });
    };
    if rest.is_empty() && !calls {
        return Err(Error::field(
            path,
            "reasoning between tags that neither an answer nor a tool call follows",
        ));
    }
    let own = thinking.as_deref().map(str::trim).filter(|own| !own.is_empty());
    if own.is_some_and(|own| !thought.is_empty() && own != thought) {
        return Err(Error::field(path, "has reasoning between tags that differs from the message's own"));
    }
    let thought = Some(thought.to_owned()).filter(|thought| !thought.is_empty());
    Ok(Answer { thinking: own.map(str::to_owned).or(thought), said: rest.to_owned() })
}

/// Counts tags in a text that is trained unchanged.
fn count(text: &str, ignored: &mut Ignored) {
    if !text.contains('<') {
        return;
    }
    for (open, close) in TAGS {
        if let Some(tag) = [open, close].into_iter().find(|tag| text.contains(tag)) {
            ignored.add(Place::Message, tag);
        }
    }
}

/// The reasoning with which a text begins, and what follows it.
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let ((open, close), inside) = TAGS.iter().find_map(|tags| Some((*tags, text.strip_prefix(tags.0)?)))?;
    let (thought, rest) = inside.split_once(close)?;
    if [thought, rest].iter().any(|part| part.contains(open) || part.contains(close)) {
        return None;
    }
    let rest = rest.trim_start();
    let solution = rest.trim_end().strip_prefix(SOLUTION.0).and_then(|rest| rest.strip_suffix(SOLUTION.1));
    Some((thought.trim(), solution.map_or(rest, str::trim)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(said: &str, thinking: Option<&str>, calls: bool) -> Result<(Option<String>, String, u64)> {
        let mut ignored = Ignored::default();
        let answer = answer(said.to_owned(), thinking.map(str::to_owned), calls, "content", &mut ignored)?;
        Ok((answer.thinking, answer.said, ignored.iter().map(|key| key.count).sum()))
    }

    #[test]
    fn an_answer_that_begins_with_its_reasoning_is_taken_apart() {
        for (said, thinking, rest) in [
            ("<think>\nAdd.\n</think>\n\n4", Some("Add."), "4"),
            ("\n <think>Add.</think>4 ", Some("Add."), "4 "),
            ("<think>\n\n</think>\n\n4", None, "4"),
            ("<thinking>a < b</thinking> 4", Some("a < b"), "4"),
            ("<reasoning>Add.</reasoning><answer>4</answer>", Some("Add."), "<answer>4</answer>"),
            (
                "<|begin_of_thought|>\nAdd.\n<|end_of_thought|>\n\n<|begin_of_solution|>\n4\n<|end_of_solution|>",
                Some("Add."),
                "4",
            ),
        ] {
            assert_eq!(
                read(said, None, false).unwrap(),
                (thinking.map(str::to_owned), rest.to_owned(), 0),
                "{said}"
            );
        }
        assert_eq!(read("<think>x</think>", None, true).unwrap(), (Some("x".into()), String::new(), 0));
    }

    #[test]
    fn tags_in_other_places_are_text_and_counted() {
        for said in [
            "Add.</think>4",
            "<think>Add. 4",
            "4 <think>or 5</think>",
            "<think>a<think>b</think>c</think>4",
            "<think>a</think>4<think>b</think>",
        ] {
            assert_eq!(read(said, None, false).unwrap(), (None, said.to_owned(), 1), "{said}");
        }
        assert_eq!(read("2 < 4, <b>thinking</b>", None, false).unwrap().2, 0);
    }

    #[test]
    fn two_reasonings_agree_or_are_an_error_and_reasoning_alone_is_none() {
        let own = |text| read("<think>Add.</think>4", Some(text), false);
        assert_eq!(own("Add.\n").unwrap(), (Some("Add.".into()), "4".into(), 0));
        assert_eq!(own("").unwrap(), (Some("Add.".into()), "4".into(), 0));
        assert!(own("Other.").unwrap_err().to_string().contains("differs from the message's own"));
        assert_eq!(
            read("<think></think>4", Some("Add."), false).unwrap(),
            (Some("Add.".into()), "4".into(), 0)
        );
        assert!(
            read("<think>x</think>\n", None, false).unwrap_err().to_string().contains("neither an answer")
        );
    }
}
