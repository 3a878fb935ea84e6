//! What is beside the messages of a row, whatever form those have: tools, reasoning effort, identity, date.

use crate::error::{Error, Result};
use crate::row::conversation::Conversation;
use crate::row::fields::{Fields, parsed_if_text};
use crate::row::ignored::{Ignored, Place};
use crate::row::message::refuse_what_is_not_text;
use crate::row::tool;
use serde_json::{Map, Value as Json};

/// Keys of a row that become variables of the template.
const KWARG_COLUMNS: [&str; 3] = ["reasoning_effort", "model_identity", "builtin_tools"];
/// Variables that the row's messages, the run or the engine give.
const RESERVED: [&str; 5] = ["messages", "tools", "add_generation_prompt", "strftime_now", "raise_exception"];
/// The efforts that the model was trained with.
const EFFORTS: [&str; 3] = ["low", "medium", "high"];
/// The tools that the template describes by itself.
const BUILTIN: [&str; 2] = ["browser", "python"];

/// A conversation without messages.
///
/// # Errors
/// [`Error::Field`] with the path of the first field that does not fit.
pub(crate) fn head(fields: &mut Fields<'_>, ignored: &mut Ignored) -> Result<Conversation> {
    let mut head = Conversation { tools: tools(fields, ignored)?, ..Conversation::default() };
    for key in ["template_kwargs", "chat_template_kwargs"] {
        let Some(kwargs) = fields.get(key) else { continue };
        let kwargs = parsed_if_text(kwargs, key)?;
        let kwargs = kwargs.as_object().ok_or_else(|| Error::wrong(key, "an object", &kwargs))?;
        for (name, value) in kwargs.iter().filter(|(_, value)| !value.is_null()) {
            if RESERVED.contains(&name.as_str()) {
                return Err(Error::field(
                    format!("{key}.{name}"),
                    "is given by the row itself, or by the engine",
                ));
            }
            if !KWARG_COLUMNS.contains(&name.as_str()) {
                ignored.add(Place::TemplateKwargs, name);
            }
            put(&mut head.template_kwargs, name, value, key)?;
        }
    }
    for key in KWARG_COLUMNS {
        if let Some(value) = fields.get(key) {
            put(&mut head.template_kwargs, key, value, "the row")?;
        }
    }
    if let Some(identity) = head.template_kwargs.get("model_identity").filter(|value| !value.is_string()) {
        return Err(Error::wrong("model_identity", "a text", identity));
    }
    if let Some(effort) = head.template_kwargs.get("reasoning_effort") {
        let word = effort.as_str().ok_or_else(|| Error::wrong("reasoning_effort", "a text", effort))?;
        if !EFFORTS.contains(&word) {
            let word: String = word.chars().take(40).collect();
            return Err(Error::field("reasoning_effort", format!("`{word}` is not low, medium or high")));
        }
    }
    if let Some(builtin) = head.template_kwargs.get_mut("builtin_tools") {
        *builtin = parsed_if_text(builtin, "builtin_tools")?.into_owned();
        let names = builtin.as_array().ok_or_else(|| Error::wrong("builtin_tools", "a list", builtin))?;
        let known = |name: &&Json| name.as_str().is_some_and(|name| BUILTIN.contains(&name));
        if let Some(other) = names.iter().find(|name| !known(name)) {
            return Err(Error::field("builtin_tools", format!("{other} is not browser or python")));
        }
    }
    if let Some(date) = fields.text("current_date")? {
        head.date =
            Some(date.parse().map_err(|error: Error| Error::field("current_date", error.to_string()))?);
    }
    refuse_what_is_not_text(fields)?;
    Ok(head)
}

fn tools(fields: &mut Fields<'_>, ignored: &mut Ignored) -> Result<Vec<Json>> {
    let mut found: Option<(&str, Vec<Json>)> = None;
    for key in ["tools", "functions"] {
        let Some(json) = fields.get(key) else { continue };
        let tools = tool::tools(json, key, ignored)?;
        match &found {
            Some((first, other)) if !other.is_empty() && !tools.is_empty() && *other != tools => {
                return Err(fields.differs(first, key));
            }
            Some((_, other)) if !other.is_empty() => {}
            _ => found = Some((key, tools)),
        }
    }
    Ok(found.map(|(_, tools)| tools).unwrap_or_default())
}

fn put(kwargs: &mut Map<String, Json>, name: &str, value: &Json, from: &str) -> Result<()> {
    match kwargs.get(name) {
        Some(other) if other != value => {
            Err(Error::field(name, format!("{from} says {value}, another field {other}")))
        }
        Some(_) => Ok(()),
        None => {
            kwargs.insert(name.to_owned(), value.clone());
            Ok(())
        }
    }
}
