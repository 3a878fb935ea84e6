//! Which files of a repository a run needs: one form of the weights, the tokenizer, the template. Never
//! `original/` or `metal/` beside the shards, no other formats, no pictures.

use std::collections::{BTreeMap, BTreeSet};

use descant_files::RelPath;
use serde::Deserialize;

/// The model's dimensions; read before anything large is fetched.
pub(crate) const CONFIG: &str = "config.json";
/// Which shard holds which tensor.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The weights in one file.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Longest `config.json` and longest index we read.
pub(crate) const MAX_JSON_BYTES: u64 = 64 << 20;

/// Files a model cannot be used without, beside its weights.
const REQUIRED: [&str; 2] = [CONFIG, "tokenizer.json"];
/// Files that are taken where they are.
const OPTIONAL: [&str; 4] =
    ["chat_template.jinja", "generation_config.json", "special_tokens_map.json", "tokenizer_config.json"];
/// Endings of files with rows, the preferred first.
const ROWS: [&str; 6] = [".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json"];
/// More names than this in a message help nobody.
const SHOWN_NAMES: usize = 8;

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    model_type: String,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The small files of a model, with the index or the one weight file last.
///
/// # Errors
/// Says what is missing.
pub(crate) fn model<'a>(has: impl Fn(&str) -> bool + 'a) -> Result<Vec<RelPath>, String> {
    if let Some(missing) = REQUIRED.into_iter().find(|name| !has(name)) {
        return Err(format!("it has no {missing}"));
    }
    let weights = [INDEX, SINGLE].into_iter().find(|name| has(name));
    let weights =
        weights.ok_or("it has no weights in safetensors (no model.safetensors, and no index of shards)")?;
    let optional = OPTIONAL.into_iter().filter(|name| has(name));
    let names = REQUIRED.into_iter().chain(optional).chain([weights]);
    Ok(names.map(|name| RelPath::new(name).expect("the names above are plain")).collect())
}

/// Refuses a `config.json` of another architecture.
///
/// # Errors
/// Says what it is.
pub(crate) fn check_config(bytes: &[u8]) -> Result<(), String> {
    let config: Config = serde_json::from_slice(bytes).map_err(|e| format!("config.json: {e}"))?;
    if config.model_type == "gpt_oss" {
        return Ok(());
    }
    let found: String = config.model_type.chars().take(40).collect();
    Err(format!("its model_type is {found:?}; expected \"gpt_oss\""))
}

/// The shards that an index names: plain names beside it.
///
/// # Errors
/// It is not an index, or names something else.
pub(crate) fn shards(index: &[u8]) -> Result<BTreeSet<RelPath>, String> {
    let index: Index = serde_json::from_slice(index).map_err(|e| format!("{INDEX}: {e}"))?;
    let distinct: BTreeSet<String> = index.weight_map.into_values().collect();
    if distinct.is_empty() {
        return Err(format!("{INDEX} names no file"));
    }
    let shard = |name: String| {
        let path = RelPath::new(&name).map_err(|e| format!("{INDEX}: {e}"))?;
        if name.contains('/') || !name.ends_with(".safetensors") {
            return Err(format!("{INDEX}: {name:?} is not a shard in the same folder"));
        }
        Ok(path)
    };
    distinct.into_iter().map(shard).collect()
}

/// The files with the rows to train on: one, or all shards of one set, in order.
///
/// # Errors
/// There is none, there are several that belong to no one set, a shard is missing, or a name is not safe.
pub(crate) fn rows<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Result<Vec<RelPath>, String> {
    for ending in ROWS {
        let all: Vec<&str> = names.clone().filter(|name| name.ends_with(ending)).collect();
        let train: Vec<&str> = all.iter().copied().filter(|name| is_train(name)).collect();
        let mut candidates = if train.is_empty() { all } else { train };
        candidates.sort_unstable();
        let Some(first) = candidates.first() else { continue };
        let set = Shard::of(first).map(|first| (first.set, first.count));
        let is_one_set = candidates.iter().all(|name| Shard::of(name).map(|s| (s.set, s.count)) == set);
        if let (true, Some((name, count))) = (is_one_set, set) {
            let here = candidates.len();
            if here != count {
                return Err(format!("it has {here} of the {count} files of {:?}", name.0));
            }
        } else if candidates.len() > 1 {
            let shown: Vec<String> =
                candidates.iter().take(SHOWN_NAMES).map(|name| format!("{name:?}")).collect();
            return Err(format!(
                "it has {} files with rows ({}); name one, as in hf://datasets/OWNER/NAME/FILE",
                candidates.len(),
                shown.join(", ")
            ));
        }
        return candidates.into_iter().map(|name| RelPath::new(name).map_err(|e| e.to_string())).collect();
    }
    Err("it has no parquet and no JSONL file".to_owned())
}

/// One of several files that are one table, as `datasets` names them: `data/train-00002-of-00005.parquet`.
struct Shard<'a> {
    /// What is before the number and behind the count.
    set: (&'a str, &'a str),
    count: usize,
}

impl<'a> Shard<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let (before, after) = name.rsplit_once("-of-")?;
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (count, behind) = after.split_at(digits);
        let (set, number) = before.rsplit_once('-')?;
        let count = count.parse().ok()?;
        (number.parse::<usize>().ok()? < count).then_some(Self { set: (set, behind), count })
    }
}

/// Whether a file's own name begins with the name of the split.
fn is_train(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|file| file.starts_with("train"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[RelPath]) -> Vec<&str> {
        paths.iter().map(RelPath::as_str).collect()
    }

    #[test]
    fn a_model_is_one_form_of_its_weights_and_nothing_else() {
        let published = [
            ".gitattributes",
            "LICENSE",
            "README.md",
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "metal/model.bin",
            "model-00000-of-00002.safetensors",
            "model.safetensors.index.json",
            "original/model.safetensors",
            "tokenizer.json",
        ];
        let chosen = model(|name| published.contains(&name)).unwrap();
        assert_eq!(
            names(&chosen),
            [
                "config.json",
                "tokenizer.json",
                "chat_template.jinja",
                "generation_config.json",
                "model.safetensors.index.json"
            ]
        );
        let single = ["config.json", "tokenizer.json", "model.safetensors"];
        assert_eq!(names(&model(|name| single.contains(&name)).unwrap()).last(), Some(&"model.safetensors"));
        for (without, reason) in [
            ("config.json", "it has no config.json"),
            ("tokenizer.json", "it has no tokenizer.json"),
            ("model.safetensors", "it has no weights in safetensors"),
        ] {
            let error = model(|name| name != without && single.contains(&name)).unwrap_err();
            assert!(error.starts_with(reason), "{error}");
        }
    }

    #[test]
    fn an_index_names_shards_beside_it_and_nothing_else() {
        let index = |name: &str| shards(format!(r#"{{"weight_map": {{"a": {name:?}}}}}"#).as_bytes());
        assert_eq!(index("model-00001-of-00002.safetensors").unwrap().len(), 1);
        for name in [
            "../model.safetensors",
            "/etc/x.safetensors",
            "a/../../x.safetensors",
            "original/model.safetensors",
            "C:model.safetensors",
            "a\\b.safetensors",
            "NUL.safetensors",
            "config.json",
            "",
        ] {
            assert!(index(name).is_err(), "{name}");
        }
        for index in ["{}", "[]", r#"{"weight_map": {}}"#, r#"{"weight_map": {"a": 1}}"#, "<html>"] {
            assert!(shards(index.as_bytes()).is_err(), "{index}");
        }
    }

    #[test]
    fn the_rows_are_those_of_the_training_split_or_of_the_only_file() {
        let chosen = |names: &[&str]| {
            let rows = rows(names.iter().copied())?;
            Ok::<_, String>(rows.iter().map(RelPath::as_str).collect::<Vec<_>>().join(" "))
        };
        let published =
            ["README.md", "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"];
        assert_eq!(chosen(&published).unwrap(), published[1]);
        assert_eq!(chosen(&["a.jsonl", "README.md"]).unwrap(), "a.jsonl");
        assert_eq!(chosen(&["x.parquet", "x.jsonl"]).unwrap(), "x.parquet");
        assert!(chosen(&["README.md"]).unwrap_err().contains("no parquet"));
        assert!(chosen(&["train-0.parquet", "train-1.parquet"]).unwrap_err().contains("name one"));
        let [first, second] = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"];
        assert_eq!(
            chosen(&[second, "data/test-00000-of-00001.parquet", first]).unwrap(),
            format!("{first} {second}")
        );
        assert!(chosen(&[second]).unwrap_err().contains("1 of the 2 files of \"data/train\""));
        for other in
            ["more/train-00001-of-00002.parquet", "data/train-00001-of-00003.parquet", "data/train-1.parquet"]
        {
            assert!(chosen(&[first, other]).unwrap_err().contains("name one"), "{other}");
        }
        assert!(chosen(&["../train.parquet"]).unwrap_err().contains("`.` or `..`"));
    }

    #[test]
    fn other_architectures_are_refused() {
        assert!(check_config(br#"{"model_type": "gpt_oss"}"#).is_ok());
        for config in [r#"{"model_type": "llama"}"#, "{}", "[]", ""] {
            assert!(check_config(config.as_bytes()).is_err(), "{config}");
        }
    }
}
