//! A good row and a good tokenizer, small, so that damage meets their structure.

use std::path::Path;

use serde_json::{Map, Value, json};

/// A row with every kind of message.
///
/// # Panics
/// Never.
pub fn row() -> Map<String, Value> {
    let row = json!({"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How warm is it?"},
        {"role": "assistant", "thinking": "A tool knows.", "tool_calls": [
            {"type": "function", "function": {"name": "weather", "arguments": {"place": "Ulm", "days": 2}}}]},
        {"role": "tool", "name": "weather", "content": "{\"celsius\": 21}"},
        {"role": "assistant", "thinking": "It said 21.", "content": "21 degrees."}],
        "tools": [{"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters":
            {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}}}}],
        "reasoning_effort": "low"});
    row.as_object().expect("an object").clone()
}

/// The tiny model's `tokenizer.json` with bytes, three merges and the control tokens.
///
/// # Panics
/// The fixture is not there.
pub fn small_tokenizer() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/harmony/tiny/tokenizer.json");
    let file = std::fs::read(path).expect("the fixture is there");
    let mut file: Value = serde_json::from_slice(&file).expect("JSON");
    let old = file["model"]["vocab"].as_object().expect("a vocabulary").clone();
    let words =
        old.keys().filter(|token| token.chars().count() == 1).map(String::as_str).chain(["an", "st", "in"]);
    let vocab: Map<String, Value> = words.zip(0..).map(|(token, id)| (token.to_owned(), id.into())).collect();
    let first = vocab.len();
    file["model"]["vocab"] = vocab.into();
    file["model"]["merges"] = json!([["a", "n"], ["s", "t"], ["i", "n"]]);
    for (at, token) in file["added_tokens"].as_array_mut().expect("a list").iter_mut().enumerate() {
        token["id"] = (first + at).into();
    }
    file.to_string().into_bytes()
}
