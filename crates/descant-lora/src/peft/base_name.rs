//! How the model is called that an adapter belongs to.
//!
//! Hubs take a repository's name in a card and nothing else, and a path tells who trained where: a card has the name of
//! a repository or none.

use std::path::Path;

/// A model's name on a hub: two parts of letters, digits, `.`, `_` and `-`, 96 characters in all.
pub fn is_hub_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.', '-'])
            && !part.contains("--")
            && !part.contains("..")
    };
    name.len() <= 96 && name.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

/// The name, where it is a repository's. As for transformers, a folder of that name goes before the repository.
pub fn hub_name(name: &str) -> Option<&str> {
    Some(name).filter(|name| is_hub_name(name) && !Path::new(name).exists())
}

/// The last part of a model's name, be it a repository's or a path.
pub fn short_name(name: &str) -> &str {
    let parts = name.lines().next().unwrap_or_default().split(['/', '\\']);
    parts.rev().find(|part| !part.is_empty()).unwrap_or("gpt-oss")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_hub_are_two_plain_parts() {
        for good in ["openai/gpt-oss-20b", "a/b", "A_1/b.c"] {
            assert!(is_hub_name(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "/home/user/model",
            "a/b/c",
            "a/",
            "/b",
            "a/-b",
            "a/b.",
            "a--b/c",
            "a/b..c",
            "a b/c",
            "a/b\n---",
        ] {
            assert!(!is_hub_name(bad), "{bad}");
        }
    }

    #[test]
    fn the_short_name_is_no_path() {
        for (name, short) in [
            ("openai/gpt-oss-20b", "gpt-oss-20b"),
            ("/home/user/model/", "model"),
            ("", "gpt-oss"),
            ("C:\\x", "x"),
        ] {
            assert_eq!(short_name(name), short);
        }
    }
}
