//! Which field of a row the chat template does not accept.
//!
//! A template says why it refuses and seldom where. So the row is shortened until it is accepted: the last message that
//! was taken away is the one, or the tools, or the variable. This costs a few more renderings of a row that is refused
//! anyway.

use crate::error::Error;
use crate::row::date::Date;
use crate::row::input::TemplateInput;
use crate::text::template::ChatTemplate;
use serde_json::{Value as Json, json};

/// Most messages of a row that is searched; the search takes as many renderings.
const MESSAGES: usize = 200;

/// The same error, with the field where one is found.
pub(crate) fn located(error: Error, template: &ChatTemplate, input: &TemplateInput, date: Date) -> Error {
    match error {
        Error::TemplateRefused { field: None, reason } => {
            Error::TemplateRefused { field: field(template, input, date), reason }
        }
        other => other,
    }
}

fn field(template: &ChatTemplate, input: &TemplateInput, date: Date) -> Option<String> {
    let accepted = |input: &TemplateInput| template.render(input, date).is_ok();
    let plain = TemplateInput { messages: json!([{"role": "user", "content": "x"}]), ..input.clone() };
    if !accepted(&plain) {
        let without_tools = TemplateInput { tools: Json::Null, ..plain.clone() };
        if accepted(&without_tools) {
            return Some("tools".to_owned());
        }
        return input.kwargs.keys().find_map(|key| {
            let mut without = plain.clone();
            without.kwargs.shift_remove(key);
            accepted(&without).then(|| format!("template_kwargs.{key}"))
        });
    }
    let messages = input.messages.as_array().filter(|messages| messages.len() <= MESSAGES);
    let first = messages.and_then(|messages| {
        (1..=messages.len()).find(|n| {
            let prefix = Json::Array(messages[..*n].to_vec());
            !accepted(&TemplateInput { messages: prefix, ..input.clone() })
        })
    });
    Some(first.map_or_else(|| "messages".to_owned(), |n| format!("messages[{}]", n - 1)))
}
