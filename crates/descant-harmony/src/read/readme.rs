//! Which files are the training split, by the head of a data set's `README.md`.
//!
//! The head is YAML between two lines `---`. Only what publishers of data sets write there is read: `configs`, a list
//! of `config_name` and `data_files`, those a pattern, a list of patterns, or a list of `split` and `path`. Anything
//! else is passed over, and the files' names decide.

/// The patterns of the training split; nothing where the head does not say.
///
/// # Errors
/// There are several configurations and none is the default: their names.
pub(super) fn train_patterns(text: &str) -> Result<Option<Vec<String>>, Vec<String>> {
    let Some(head) = text.strip_prefix("---").and_then(|rest| rest.split("\n---").next()) else {
        return Ok(None);
    };
    let configs = configs(head);
    let chosen = match configs.as_slice() {
        [] => return Ok(None),
        [one] => one,
        several => match several.iter().find(|config| config.name == "default" || config.default) {
            Some(default) => default,
            None => return Err(configs.into_iter().map(|config| config.name).collect()),
        },
    };
    let train = |file: &&(String, String)| file.0.is_empty() || file.0 == "train";
    let patterns: Vec<String> = chosen.files.iter().filter(train).map(|file| file.1.clone()).collect();
    Ok((!patterns.is_empty()).then_some(patterns))
}

#[derive(Default)]
struct Config {
    name: String,
    default: bool,
    /// Split, empty where none is named, and pattern.
    files: Vec<(String, String)>,
}

fn configs(head: &str) -> Vec<Config> {
    let mut configs: Vec<Config> = Vec::new();
    let (mut inside, mut in_files, mut split) = (false, false, String::new());
    for line in head.lines() {
        let indented = line.starts_with([' ', '-']);
        let line = line.trim();
        if !indented {
            inside = line == "configs:";
            continue;
        }
        if !inside {
            continue;
        }
        let (item, line) = match line.strip_prefix("- ") {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        let (key, value) = match line.split_once(':') {
            Some((key, value)) if !key.contains(['/', '*']) => (key.trim(), unquoted(value)),
            _ => ("", unquoted(line)),
        };
        match key {
            "config_name" => {
                configs.push(Config { name: value, ..Config::default() });
                (in_files, split) = (false, String::new());
            }
            _ if configs.is_empty() => {}
            "default" => set(&mut configs, |config| config.default = value == "true"),
            "data_files" => {
                (in_files, split) = (true, String::new());
                if !value.is_empty() {
                    set(&mut configs, |config| config.files.push((String::new(), value)));
                }
            }
            "split" if in_files => split = value,
            "path" if in_files && !value.is_empty() => {
                let file = (split.clone(), value);
                set(&mut configs, |config| config.files.push(file));
            }
            "" if in_files && item => {
                let file = (split.clone(), value);
                set(&mut configs, |config| config.files.push(file));
            }
            _ => {}
        }
    }
    configs
}

fn set(configs: &mut [Config], change: impl FnOnce(&mut Config)) {
    if let Some(config) = configs.last_mut() {
        change(config);
    }
}

fn unquoted(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).to_owned()
}

/// Whether a path is one of a pattern: `*` is any text without `/`, `**` any text.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    fn rest(pattern: &[u8], path: &[u8]) -> bool {
        match pattern {
            [] => path.is_empty(),
            [b'*', b'*', after @ ..] => {
                let after = after.strip_prefix(b"/").unwrap_or(after);
                (0..=path.len()).any(|at| rest(after, &path[at..]))
            }
            [b'*', after @ ..] => {
                let end = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
                (0..=end).any(|at| rest(after, &path[at..]))
            }
            [first, after @ ..] => path.first() == Some(first) && rest(after, &path[1..]),
        }
    }
    // A pattern of many stars would be tried in too many ways.
    pattern.matches('*').count() <= 6 && rest(pattern.as_bytes(), path.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_training_split_of_the_default_configuration_is_found() {
        let text = "---\nlicense: mit\nconfigs:\n- config_name: extra\n  data_files: extra/*.jsonl\n\
                    - config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n  - split: test\n    \
                    path:\n    - \"data/test-*\"\n    - more/*\ndataset_info:\n- config_name: x\n---\n# Rows\n";
        assert_eq!(train_patterns(text), Ok(Some(vec!["data/train-*".to_owned()])));
        let lists = "---\nconfigs:\n  - config_name: a\n    data_files:\n      - split: train\n        path:\n          - 'a.jsonl'\n          - b/*\n---";
        assert_eq!(train_patterns(lists), Ok(Some(vec!["a.jsonl".to_owned(), "b/*".to_owned()])));
        assert_eq!(train_patterns("# no head"), Ok(None));
        assert_eq!(train_patterns("---\nlicense: mit\n---"), Ok(None));
        let two = "---\nconfigs:\n- config_name: en\n  data_files: en/*\n- config_name: fr\n  data_files: fr/*\n---";
        assert_eq!(train_patterns(two), Err(vec!["en".to_owned(), "fr".to_owned()]));
    }

    #[test]
    fn patterns_match_names_and_folders() {
        for (pattern, path, expected) in [
            ("data/train-*", "data/train-00000.parquet", true),
            ("data/train-*", "data/x/train-0", false),
            ("**/*.jsonl", "a/b/c.jsonl", true),
            ("**/*.jsonl", "c.jsonl", true),
            ("a.jsonl", "a.jsonl", true),
            ("a.jsonl", "b.jsonl", false),
            ("*************x", "aaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }
}
