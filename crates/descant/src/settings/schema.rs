//! The JSON schema of the settings: types, defaults and meanings as the types have them, for editors.
//!
//! TOML has no null: a key that may be absent is left out, so that no schema says null.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::Settings;

/// The schema.
pub(crate) fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Settings>().to_value();
    tidy(&mut schema);
    schema["title"] = "Settings of a Descant run".into();
    schema
}

/// Takes out null, and brackets around names of the program.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            without_null(map);
            for (key, value) in map.iter_mut() {
                match value {
                    Value::String(text) if key == "description" => {
                        *text = text.replace("[`", "`").replace("`]", "`");
                    }
                    other => tidy(other),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// `type` and `anyOf` without null; what is then alone replaces the list.
fn without_null(map: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            map.insert("type".into(), one);
        }
    }
    if let Some(Value::Array(all)) = map.get_mut("anyOf") {
        all.retain(|one| one.get("type").is_none_or(|kind| kind != "null"));
        if let [Value::Object(one)] = all.as_slice() {
            let one = one.clone();
            map.remove("anyOf");
            map.extend(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::settings::{keys, resolve_text};

    /// Every key below a schema, with the names of the tables before it.
    fn keys_of(root: &Value, schema: &Value, before: &str, keys: &mut BTreeSet<String>) {
        let schema = resolved(root, schema);
        let Some(properties) = schema["properties"].as_object() else {
            keys.insert(before.to_owned());
            return;
        };
        assert_eq!(schema["additionalProperties"], false, "{before}: unknown keys are errors");
        for (key, inner) in properties {
            let full = if before.is_empty() { key.clone() } else { format!("{before}.{key}") };
            keys_of(root, inner, &full, keys);
        }
    }

    fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
        let Some(name) = schema["$ref"].as_str() else { return schema };
        &root["$defs"][name.strip_prefix("#/$defs/").unwrap()]
    }

    #[test]
    fn the_schema_has_every_key_and_no_other() {
        let schema = schema();
        let mut found = BTreeSet::new();
        keys_of(&schema, &schema, "", &mut found);
        // Rows of a list of tables are not keys of their own.
        let known: BTreeSet<String> = keys::known().into_iter().collect();
        assert_eq!(found, known);
        assert!(!schema.to_string().contains("null"), "TOML has none");
        // Of keys that are written only when they are not the default, the schema needs the default.
        let default =
            |section: &str, key: &str| schema["$defs"][section]["properties"][key]["default"].clone();
        assert_eq!(default("Model", "preflight"), Settings::default().model.preflight);
        assert_eq!(default("TrainConfig", "experts"), "bf16");
        assert_eq!(default("GuardConfig", "on_deviation"), "refuse");
        let cache = default("Run", "cache");
        assert_eq!(
            crate::settings::bytes(cache.as_str().unwrap()).ok(),
            Settings::default().run.cache().unwrap()
        );
    }

    #[test]
    fn every_word_of_the_schema_is_taken_and_another_is_not() {
        let schema = schema();
        let words = |section: &str, key: &str| -> Vec<String> {
            let section = resolved(&schema, &schema["properties"][section]);
            let key = resolved(&schema, &section["properties"][key]);
            let of = |one: &Value| one["const"].as_str().map(str::to_owned);
            key["oneOf"].as_array().unwrap().iter().map(|one| of(one).unwrap()).collect()
        };
        for (section, key, one) in [
            ("train", "schedule", "cosine"),
            ("train", "optimizer", "adamw_8bit"),
            ("train", "experts", "fp8"),
            ("guard", "on_spike", "skip"),
            ("guard", "on_deviation", "warn"),
            ("data", "mask", "final_only"),
            ("data", "format", "sharegpt"),
            ("data", "views", "whole_row"),
            ("data", "on_bad_row", "skip"),
            ("data", "too_long", "cut_at_message"),
        ] {
            let words = words(section, key);
            assert!(words.iter().any(|word| word == one), "{section}.{key}: {words:?}");
            for word in &words {
                let text = format!("[{section}]\n{key} = \"{word}\"\n");
                resolve_text("words", &text, &[]).unwrap_or_else(|error| panic!("{text}: {error:#}"));
            }
            let other = format!("[{section}]\n{key} = \"another\"\n");
            assert!(resolve_text("words", &other, &[]).is_err(), "{section}.{key}");
        }
    }
}
