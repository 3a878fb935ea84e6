//! `docs/settings.md` is made of the schema that `descant init --schema` prints, and so of the types.
//!
//! After a wanted change: `DESCANT_UPDATE=1 cargo test --package descant --test it settings`, and read the difference.

use std::fmt::Write as _;

use serde_json::Value;

use crate::binary::{descant, root};

fn schema() -> Value {
    let ran = descant(root(), &["init", "--schema"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    serde_json::from_str(&ran.out).unwrap()
}

/// A schema with what its reference says, its own words first.
fn resolved(root: &Value, schema: &Value) -> Value {
    let Some(name) = schema["$ref"].as_str() else { return schema.clone() };
    let mut all = root["$defs"][name.strip_prefix("#/$defs/").unwrap()].clone();
    for (key, value) in schema.as_object().unwrap().iter().filter(|(key, _)| *key != "$ref") {
        all[key] = value.clone();
    }
    all
}

/// What a key takes, as text.
fn kind(root: &Value, schema: &Value) -> String {
    let schema = resolved(root, schema);
    let several = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
    if let Some(several) = several {
        return several.iter().map(|one| kind(root, one)).collect::<Vec<_>>().join(", ");
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("`\"{word}\"`");
    }
    match schema["type"].as_str().unwrap_or_default() {
        "array" => format!("list of {}", kind(root, &schema["items"])),
        "string" => "text".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        "object" => "table".to_owned(),
        other => other.to_owned(),
    }
}

fn default(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Object(_) => String::new(),
        other => format!("`{other}`"),
    }
}

fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn section(root: &Value, name: &str, schema: &Value, defaults: &Value, page: &mut String) {
    let schema = resolved(root, schema);
    let meaning = schema["description"].as_str().unwrap_or_default();
    let _ = writeln!(page, "\n## `[{name}]`\n\n{}", cell(meaning));
    *page += "\n| key | takes | default | meaning |\n| --- | --- | --- | --- |\n";
    let mut inner = Vec::new();
    for (key, value) in schema["properties"].as_object().unwrap() {
        let value = resolved(root, value);
        if value["properties"].is_object() {
            inner.push((key.clone(), value));
            continue;
        }
        let own = defaults.get(key).unwrap_or(&value["default"]);
        let row =
            [kind(root, &value), default(own), value["description"].as_str().unwrap_or_default().to_owned()];
        let _ = writeln!(page, "| `{key}` | {} |", row.map(|text| cell(&text)).join(" | "));
    }
    for (key, value) in inner {
        let defaults = defaults.get(&key).cloned().unwrap_or(value["default"].clone());
        section(root, &format!("{name}.{key}"), &value, &defaults, page);
    }
}

fn reference() -> String {
    let schema = schema();
    let mut page = String::from(
        "# Settings\n\n\
         Every key of `run.toml`, generated from the program's types; a test keeps this page up to date.\n\
         `descant init` writes a file that explains every key in comments, and `descant init --schema` a JSON schema for \
         editors.\n\
         Change any key for one run with `--set`, as in `--set train.max_steps=200`.\n",
    );
    for (name, value) in schema["properties"].as_object().unwrap() {
        section(&schema, name, value, &value["default"], &mut page);
    }
    page + "\n## `[[data.sources]]`\n\nSeveral data sets instead of `data.path`, each with `path`, `share` and `format`.\n"
}

#[test]
fn the_page_of_settings_is_what_the_types_say() {
    let path = root().join("docs/settings.md");
    let reference = reference();
    if std::env::var_os("DESCANT_UPDATE").is_some() {
        descant_files::write_atomic(&path, reference.as_bytes()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == reference,
        "docs/settings.md is not what the types say; see crates/descant/tests/it/settings.rs"
    );
    assert!(written.contains("| `learning_rate` | number | `0.0002` |"), "the types' own defaults");
}

#[test]
fn the_schema_goes_to_a_file_when_it_is_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let ran = descant(dir.path(), &["init", "--schema", "--out", "run.schema.json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("#:schema run.schema.json"), "{}", ran.err);
    let written: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("run.schema.json")).unwrap()).unwrap();
    assert_eq!(written, schema());
    assert_eq!(descant(dir.path(), &["init", "--schema", "--recipe", "tiny"]).code, 2);
}
