//! Tool calls and tools, in every spelling, as the template wants them: arguments and schemas as JSON, a tool in its
//! wrapper `{"type": "function", "function": {...}}`.

use crate::error::{Error, Result};
use crate::row::conversation::ToolCall;
use crate::row::fields::{Fields, parsed_if_text};
use crate::row::ignored::{Ignored, Place};
use serde_json::{Map, Value as Json, json};

/// The one call of a list of calls; nothing for an empty list.
///
/// # Errors
/// Several calls, which the template does not render, and what [`call`] refuses.
pub(crate) fn calls(json: &Json, path: &str, ignored: &mut Ignored) -> Result<Option<ToolCall>> {
    if json.as_str().is_some_and(|text| text.trim().is_empty()) {
        return Ok(None);
    }
    let calls = parsed_if_text(json, path)?;
    match calls.as_array().map(Vec::as_slice) {
        Some([]) => Ok(None),
        Some([one]) => call(one, &format!("{path}[0]"), ignored).map(Some),
        Some(more) => {
            let reason = format!("{} calls in one message; the template renders only the first", more.len());
            Err(Error::field(path, reason))
        }
        None => Err(Error::wrong(path, "a list", &calls)),
    }
}

/// A call: `name` and `arguments`, in a wrapper `function` or without, perhaps as JSON in a text.
///
/// # Errors
/// A call without a name, or arguments that are not JSON.
pub(crate) fn call(json: &Json, path: &str, ignored: &mut Ignored) -> Result<ToolCall> {
    let json = parsed_if_text(json, path)?;
    let mut outer = Fields::of(&json, path)?;
    let wrapped = outer.get("function").filter(|function| function.is_object());
    let inner_path = if wrapped.is_some() { format!("{path}.function") } else { path.to_owned() };
    let mut inner = wrapped.map(|function| Fields::of(function, &inner_path)).transpose()?;
    let fields = inner.as_mut().unwrap_or(&mut outer);
    let name = fields.text("name")?.filter(|name| !name.is_empty());
    // The wrapper is left out of the path: a name that is missing is missing in either place.
    let name = name.ok_or_else(|| Error::field(format!("{path}.name"), "missing"))?.to_owned();
    let arguments = match fields.one_of(&["arguments", "parameters"])? {
        None => Json::Object(Map::new()),
        Some((key, value)) => arguments(value, &format!("{path}.{key}"))?,
    };
    let content_type = fields.text("content_type")?.map(str::to_owned);
    let left = outer.left().chain(inner.iter().flat_map(Fields::left));
    left.for_each(|(key, _)| ignored.add(Place::ToolCall, key));
    Ok(ToolCall { name, arguments, content_type })
}

/// Arguments, as JSON or as JSON in a text, which the template would quote once more.
///
/// # Errors
/// A text that is not JSON.
pub(crate) fn arguments(value: &Json, path: &str) -> Result<Json> {
    match value.as_str() {
        Some(text) if text.trim().is_empty() => Ok(Json::Object(Map::new())),
        _ => match parsed_if_text(value, path)?.into_owned() {
            Json::Null => Ok(Json::Object(Map::new())),
            arguments => Ok(arguments),
        },
    }
}

/// The tools of a row: a list, or JSON in a text; each in its wrapper afterwards.
///
/// # Errors
/// Anything that describes no function.
pub(crate) fn tools(json: &Json, path: &str, ignored: &mut Ignored) -> Result<Vec<Json>> {
    if json.as_str().is_some_and(|text| text.trim().is_empty()) {
        return Ok(Vec::new());
    }
    let tools = parsed_if_text(json, path)?;
    let tools = match &*tools {
        Json::Array(tools) => tools,
        Json::Null => return Ok(Vec::new()),
        other => return Err(Error::wrong(path, "a list", other)),
    };
    tools.iter().enumerate().map(|(at, tool)| self::tool(tool, &format!("{path}[{at}]"), ignored)).collect()
}

fn tool(json: &Json, path: &str, ignored: &mut Ignored) -> Result<Json> {
    let json = parsed_if_text(json, path)?;
    let mut outer = Fields::of(&json, path)?;
    if let Some(kind) = outer.text("type")?.filter(|kind| *kind != "function") {
        let kind: String = kind.chars().take(40).collect();
        return Err(Error::field(
            outer.path("type"),
            format!("`{kind}` is not a function, and the template supports no other tools"),
        ));
    }
    let (function, inner_path) = match outer.get("function") {
        Some(function) => (function, outer.path("function")),
        None => (&*json, path.to_owned()),
    };
    let bare = std::ptr::eq(function, &raw const *json);
    let mut fields = Fields::of(function, &inner_path)?;
    let name = fields.text("name")?.filter(|name| !name.is_empty());
    name.ok_or_else(|| Error::field(fields.path("name"), "missing"))?;
    fields.text("description")?;
    let parameters = fields.one_of(&["parameters", "input_schema"])?;
    fields.get("type");
    let counted = fields.left().chain(outer.left().filter(|_| !bare));
    counted.for_each(|(key, _)| ignored.add(Place::Tool, key));
    let mut function = match function {
        Json::Object(map) => map.clone(),
        _ => Map::new(),
    };
    if bare {
        function.shift_remove("type");
    }
    // A schema that a column format had to store as text, or under its other name, in its place.
    if let Some((key, schema)) = parameters
        && (schema.is_string() || key != "parameters")
    {
        let schema = parsed_if_text(schema, &fields.path(key))?.into_owned();
        function.shift_remove(key);
        function.insert("parameters".to_owned(), schema);
    }
    if !bare {
        // As it was, so that the order of keys stays what a template may show.
        let mut whole = json.into_owned();
        whole["function"] = Json::Object(function);
        return Ok(whole);
    }
    Ok(json!({"type": "function", "function": function}))
}
