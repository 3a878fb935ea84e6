//! Hides control tokens inside content from the template and from the tokenizer.
//!
//! A user may type `<|end|>`; a data set may quote it. Rendered as text and then tokenized, it would become a control
//! token and end the message. So before rendering, the characters that control tokens begin and end with (`<` and `>`)
//! are replaced in every string of the input by noncharacters that occur nowhere in it, one for one, so that lengths
//! stay what they were. Every control token in the rendered text is then the template's own; the text between them is
//! turned back and encoded as ordinary text.

use crate::error::{Error, Result};
use crate::row::input::TemplateInput;
use crate::text::guards::Guards;
use serde_json::{Map, Value as Json};

/// Which character replaces which, while content is hidden.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Escape {
    /// Real character and replacement.
    pairs: Vec<(char, char)>,
}

impl Escape {
    /// A plan for an input; `None` when no string of it holds a guard character, so that nothing needs hiding.
    pub(crate) fn plan(input: &TemplateInput, guards: &Guards) -> Result<Option<Self>> {
        let mut needed = false;
        each_string(input, &mut |text| needed |= guards.first_in(text).is_some());
        if !needed {
            return Ok(None);
        }
        // Bit i: the i-th candidate occurs in the content.
        let mut taken = vec![false; candidates().count()];
        each_string(input, &mut |text| {
            for char in text.chars().filter(|char| is_candidate(*char)) {
                if let Some(at) = candidates().position(|candidate| candidate == char) {
                    taken[at] = true;
                }
            }
        });
        let mut free = candidates().zip(taken).filter(|(_, taken)| !taken).map(|(candidate, _)| candidate);
        let pairs =
            guards.chars().iter().map(|guard| Some((*guard, free.next()?))).collect::<Option<Vec<_>>>();
        pairs.map(|pairs| Some(Self { pairs })).ok_or(Error::NoSentinel)
    }

    /// The input with every guard character replaced, in keys too: schema properties are shown in prompts.
    pub(crate) fn hide(&self, input: &TemplateInput) -> TemplateInput {
        TemplateInput {
            messages: self.hide_json(&input.messages),
            tools: self.hide_json(&input.tools),
            // The keys are names of variables, which the template must find.
            kwargs: input.kwargs.iter().map(|(key, value)| (key.clone(), self.hide_json(value))).collect(),
            add_generation_prompt: input.add_generation_prompt,
        }
    }

    /// Turns a text back.
    pub(crate) fn reveal(&self, text: &str) -> String {
        text.chars().map(|char| self.swap(char, |(real, stand_in)| (*stand_in, *real))).collect()
    }

    fn hide_text(&self, text: &str) -> String {
        text.chars().map(|char| self.swap(char, |pair| *pair)).collect()
    }

    fn swap(&self, char: char, order: impl Fn(&(char, char)) -> (char, char)) -> char {
        self.pairs.iter().map(order).find(|(from, _)| *from == char).map_or(char, |(_, to)| to)
    }

    fn hide_json(&self, json: &Json) -> Json {
        match json {
            Json::String(text) => Json::String(self.hide_text(text)),
            Json::Array(items) => Json::Array(items.iter().map(|item| self.hide_json(item)).collect()),
            Json::Object(map) => {
                let entries = map.iter().map(|(key, value)| (self.hide_text(key), self.hide_json(value)));
                Json::Object(entries.collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }
}

/// The noncharacters of the Arabic Presentation Forms block: reserved by Unicode for a program's internal use.
fn candidates() -> impl Iterator<Item = char> {
    '\u{FDD0}'..='\u{FDEF}'
}

fn is_candidate(char: char) -> bool {
    ('\u{FDD0}'..='\u{FDEF}').contains(&char)
}

fn each_string(input: &TemplateInput, visit: &mut impl FnMut(&str)) {
    walk(&input.messages, visit);
    walk(&input.tools, visit);
    input.kwargs.values().for_each(|value| walk(value, visit));
}

fn walk(json: &Json, visit: &mut impl FnMut(&str)) {
    match json {
        Json::String(text) => visit(text),
        Json::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        Json::Object(map) => map.iter().for_each(|(key, value)| {
            visit(key);
            walk(value, visit);
        }),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn input(messages: Json) -> TemplateInput {
        TemplateInput { messages, ..TemplateInput::default() }
    }

    fn guards() -> Guards {
        Guards::new(vec!['<', '>'])
    }

    #[test]
    fn a_stand_in_never_occurs_in_the_content() {
        let text = "\u{FDD0}<|end|>\u{FDD2}";
        let input = input(json!([{"content": text}]));
        let escape = Escape::plan(&input, &guards()).unwrap().unwrap();
        assert_eq!(escape.pairs, [('<', '\u{FDD1}'), ('>', '\u{FDD3}')]);
        let hidden = escape.hide(&input).messages[0]["content"].as_str().unwrap().to_owned();
        assert_eq!(hidden, "\u{FDD0}\u{FDD1}|end|\u{FDD3}\u{FDD2}");
        assert_eq!(escape.reveal(&hidden), text);
    }

    #[test]
    fn plain_content_needs_no_plan_and_full_content_has_none() {
        assert_eq!(Escape::plan(&input(json!([{"content": "2 + 2"}])), &guards()).unwrap(), None);
        let all: String = candidates().chain(['<']).collect();
        assert!(matches!(Escape::plan(&input(json!([all])), &guards()), Err(Error::NoSentinel)));
    }
}
