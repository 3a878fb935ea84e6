//! Names of repositories, revisions and commits: what a user writes, checked before it becomes a path or an URL.
//!
//! ```text
//! hf://openai/gpt-oss-20b                                                   a model
//! hf://openai/gpt-oss-20b@6cee5e81ee83917806bbde320786a8fb61efebee          pinned to a commit
//! hf://datasets/HuggingFaceH4/Multilingual-Thinking                         a data set
//! hf://datasets/OWNER/NAME@REVISION/data/train-00000-of-00001.parquet       one file of it
//! ```
//!
//! The spelling is that of the `hf://` paths of the Python libraries.

use std::fmt;

use descant_files::RelPath;

use crate::error::{Error, Result};

/// What every reference to a hub begins with in settings.
const SCHEME: &str = "hf://";
/// Longest owner or name, and longest revision, in bytes.
const MAX_PART_BYTES: usize = 96;
const MAX_REVISION_BYTES: usize = 255;

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

impl Kind {
    /// The plural that paths of the hub and of its cache use.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

/// A repository: what it holds, and `OWNER/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repo {
    kind: Kind,
    owner: String,
    name: String,
}

impl Repo {
    /// A repository of this kind with the name `OWNER/NAME`.
    ///
    /// # Errors
    /// The name is not of that form.
    pub fn new(kind: Kind, id: &str) -> Result<Self> {
        let bad = |reason| Error::Reference { given: shown(id), reason };
        let (owner, name) = id.split_once('/').ok_or(bad("expected OWNER/NAME"))?;
        for part in [owner, name] {
            if part.is_empty() || part.len() > MAX_PART_BYTES {
                return Err(bad("owner and name have 1 to 96 characters"));
            }
            if !part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
                return Err(bad("owner and name consist of letters, digits, `.`, `_` and `-`"));
            }
            if part.starts_with(['.', '-']) || part.ends_with(['.', '-']) {
                return Err(bad("owner and name begin and end with a letter, a digit or `_`"));
            }
            if part.contains("--") || part.contains("..") {
                return Err(bad("`--` and `..` cannot be part of an owner or a name"));
            }
        }
        Ok(Self { kind, owner: owner.to_owned(), name: name.to_owned() })
    }

    /// What it holds.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// `OWNER/NAME`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// `NAME`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of the cache that is the repository's.
    pub(crate) fn folder(&self) -> String {
        format!("{}--{}--{}", self.kind.plural(), self.owner, self.name)
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.kind == Kind::Dataset { "datasets/" } else { "" };
        write!(f, "{prefix}{}/{}", self.owner, self.name)
    }
}

/// A commit: 40 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commit(String);

impl Commit {
    /// The commit with this name, when it is one.
    pub fn parse(text: &str) -> Option<Self> {
        is_lower_hex(text, 40).then(|| Self(text.to_owned()))
    }

    /// All 40 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` consists of this many lower-case hexadecimal digits.
pub(crate) fn is_lower_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A repository, which state of it, and perhaps one file in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The repository.
    pub repo: Repo,
    /// A branch, a tag or a commit; the branch `main` when absent.
    pub revision: Option<String>,
    /// A file of a data set.
    pub file: Option<RelPath>,
}

impl Reference {
    /// Whether settings mean a hub by this, and not a path.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Reads `hf://[datasets/]OWNER/NAME[@REVISION][/FILE]`; the scheme may be left out.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |reason| Error::Reference { given: shown(text), reason };
        let rest = text.strip_prefix(SCHEME).unwrap_or(text);
        let (kind, rest) = match rest.strip_prefix("datasets/") {
            Some(rest) => (Kind::Dataset, rest),
            None => (Kind::Model, rest.strip_prefix("models/").unwrap_or(rest)),
        };
        let mut parts = rest.splitn(3, '/');
        let (owner, name) =
            (parts.next().unwrap_or_default(), parts.next().ok_or(bad("expected OWNER/NAME"))?);
        let file = parts.next();
        let (name, revision) = match name.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (name, None),
        };
        let repo = Repo::new(kind, &format!("{owner}/{name}"))?;
        if kind == Kind::Model && file.is_some() {
            return Err(bad("a model is named without a file"));
        }
        let file = file.map(RelPath::new).transpose()?;
        let revision = revision.map(|r| checked_revision(&r.replace("%2F", "/"))).transpose();
        Ok(Self { repo, revision: revision.map_err(bad)?, file })
    }

    /// The revision, `main` when none is named.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The same at a commit.
    #[must_use]
    pub fn pinned(&self, commit: &Commit) -> Self {
        Self { revision: Some(commit.as_str().to_owned()), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.repo)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{}", revision.replace('/', "%2F"))?;
        }
        match &self.file {
            Some(file) => write!(f, "/{file}"),
            None => Ok(()),
        }
    }
}

/// A revision becomes part of a path in the cache and of an URL.
fn checked_revision(revision: &str) -> std::result::Result<String, &'static str> {
    if revision.len() > MAX_REVISION_BYTES || RelPath::new(revision).is_err() {
        return Err("the revision is not a valid branch, tag or commit name");
    }
    Ok(revision.to_owned())
}

/// What was given, short enough for a message.
fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written_alike() {
        for text in [
            "hf://openai/gpt-oss-20b",
            "hf://openai/gpt-oss-20b@main",
            "hf://openai/gpt-oss-20b@6cee5e81ee83917806bbde320786a8fb61efebee",
            "hf://datasets/HuggingFaceH4/Multilingual-Thinking",
            "hf://datasets/HuggingFaceH4/Multilingual-Thinking@refs%2Fpr%2F1/data/train-00000-of-00001.parquet",
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), text);
            assert!(Reference::is_meant(text));
        }
        let short = Reference::parse("unsloth/gpt-oss-20b-BF16").unwrap();
        assert_eq!(short.to_string(), "hf://unsloth/gpt-oss-20b-BF16");
        assert_eq!((short.revision(), short.repo.kind()), ("main", Kind::Model));
        assert_eq!(short.repo.folder(), "models--unsloth--gpt-oss-20b-BF16");
        assert!(!Reference::is_meant("openai/gpt-oss-20b"));
        let pinned = short.pinned(&Commit::parse(&"a".repeat(40)).unwrap());
        assert_eq!(pinned.to_string(), format!("hf://unsloth/gpt-oss-20b-BF16@{}", "a".repeat(40)));
    }

    #[test]
    fn what_could_leave_the_cache_or_change_the_request_is_refused() {
        for text in [
            "",
            "hf://",
            "hf://gpt-oss-20b",
            "hf://openai/",
            "hf:///x",
            "hf://../x",
            "hf://a/..",
            "hf://a/b--c",
            "hf://a--b/c",
            "hf://a/b?x=1",
            "hf://a/b#c",
            "hf://a/b c",
            "hf://a/b%2e",
            "hf://a/\u{e9}",
            "hf://a\\b/c",
            "hf://-a/b",
            "hf://a/.b",
            "hf://openai/gpt-oss-20b/config.json",
            "hf://a/b@",
            "hf://a/b@..",
            "hf://a/b@x%2F..%2Fy",
            "hf://a/b@a:b",
            "hf://a/b@a\nb",
            "hf://datasets/a/b/../../x",
            "hf://datasets/a/b//x",
            "hf://datasets/a/b@main/C:x",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
        assert!(Commit::parse("6CEE5E81EE83917806BBDE320786A8FB61EFEBEE").is_none());
        assert!(Commit::parse("6cee5e8").is_none());
    }
}
