//! What a chat template is given.

use crate::error::{Error, Result};
use serde_json::{Map, Value as Json};

/// What a template is given, as JSON: nothing is dropped, renamed or checked on the way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemplateInput {
    /// The list of messages.
    pub messages: Json,
    /// The list of tools, or null.
    pub tools: Json,
    /// Further variables, such as `reasoning_effort`; a key with null is defined and none.
    pub kwargs: Map<String, Json>,
    /// Whether the text ends with the prompt for the next assistant message.
    pub add_generation_prompt: bool,
}

impl TemplateInput {
    /// The input of a row as it is: its `messages`, `tools`, `template_kwargs` and `add_generation_prompt`.
    ///
    /// # Errors
    /// [`Error::Field`] when `template_kwargs` is not an object or `add_generation_prompt` neither true nor false.
    pub fn from_row(row: &Map<String, Json>) -> Result<Self> {
        let field = |key: &str| row.get(key).cloned().unwrap_or(Json::Null);
        let kwargs = match row.get("template_kwargs") {
            None | Some(Json::Null) => Map::new(),
            Some(Json::Object(kwargs)) => kwargs.clone(),
            Some(other) => return Err(Error::wrong("template_kwargs", "an object", other)),
        };
        let add_generation_prompt = generation_prompt(row)?;
        Ok(Self { messages: field("messages"), tools: field("tools"), kwargs, add_generation_prompt })
    }
}

/// Whether a row asks for the prompt of the next assistant message.
pub(crate) fn generation_prompt(row: &Map<String, Json>) -> Result<bool> {
    match row.get("add_generation_prompt") {
        None | Some(Json::Null) => Ok(false),
        Some(Json::Bool(wanted)) => Ok(*wanted),
        Some(other) => Err(Error::wrong("add_generation_prompt", "true or false", other)),
    }
}
