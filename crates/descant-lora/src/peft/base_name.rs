//! What an adapter calls the model it belongs to.
//!
//! Files that leave this machine name a repository of a hub where there is one, else a folder, and never a path: a path
//! means nothing elsewhere and says who trained where. A model card has the name of a repository or none.

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

/// A base's name as files that are shared may give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicName {
    /// A repository's name, or a folder's.
    pub name: String,
    /// The commit, where a place in a hub's cache says it.
    pub revision: Option<String>,
}

impl PublicName {
    /// The name in `text`, which may be a path: a repository's name as it is, the repository and commit of a place in a
    /// hub's cache, else the last part. `None` where nothing is left, as of `/` or `..`.
    pub fn of(text: &str) -> Option<Self> {
        if is_hub_name(text) {
            return Some(Self { name: text.to_owned(), revision: None });
        }
        let parts: Vec<&str> =
            text.split(['/', '\\']).filter(|part| !matches!(*part, "" | "." | "..")).collect();
        let cached = parts.iter().enumerate().rev().find_map(|(at, part)| {
            let id = part.strip_prefix("models--")?.replacen("--", "/", 1);
            let commit = (*parts.get(at + 1)? == "snapshots").then(|| parts.get(at + 2)).flatten()?;
            is_hub_name(&id).then(|| Self { name: id, revision: Some((*commit).to_owned()) })
        });
        let last = || parts.iter().rev().find(|part| **part != "~");
        cached.or_else(|| last().map(|last| Self { name: (*last).to_owned(), revision: None }))
    }

    /// Whether a hub can have it.
    pub fn is_of_hub(&self) -> bool {
        is_hub_name(&self.name)
    }
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
    fn a_public_name_is_no_path() {
        let of = |text: &str| PublicName::of(text).map(|found| (found.name, found.revision));
        let named = |name: &str| Some((name.to_owned(), None));
        for name in ["openai/gpt-oss-20b", "tiny-gpt-oss"] {
            assert_eq!(of(name), named(name));
        }
        for path in [
            "/home/me/models/base",
            "./base",
            "../base/",
            "~/base",
            "C:\\models\\base",
            "a/b/base",
            "/base",
            "/cache/models--base",
            "/cache/models--a--b/base",
        ] {
            let name = path.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap();
            assert_eq!(of(path), named(name), "{path}");
        }
        for nothing in ["", "/", "..", "~"] {
            assert_eq!(of(nothing), None);
        }
        let cached = Some(("openai/gpt-oss-20b".to_owned(), Some("c0ffee".to_owned())));
        assert_eq!(of("/home/me/hub/models--openai--gpt-oss-20b/snapshots/c0ffee"), cached);
        assert_eq!(of("D:\\hub\\models--openai--gpt-oss-20b\\snapshots\\c0ffee\\"), cached);
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
