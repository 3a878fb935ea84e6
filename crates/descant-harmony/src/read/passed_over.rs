//! Files that lie beside those that are read, and are not: named and counted by reason, so that none is missed.
//!
//! Only what may hold rows is named. A text about the data, a licence, a script or a picture is not.

use serde::Serialize;
use std::collections::BTreeMap;

/// Why a file is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Those that are read are of another kind.
    Kind,
    /// It is named after a split that is not for training.
    Split,
    /// Others are named after the training split.
    NoSplit,
    /// `README.md` names others.
    Unnamed,
    /// A folder below too many others.
    Deep,
    /// Its name is not UTF-8.
    Name,
}

impl Why {
    /// What such a file is, as a sentence says it.
    fn what(self, many: bool) -> &'static str {
        match (self, many) {
            (Self::Kind, false) => "file of another kind",
            (Self::Kind, true) => "files of another kind",
            (Self::Split, false) => "file of another split",
            (Self::Split, true) => "files of other splits",
            (Self::NoSplit, false) => "file that is not named after the training split",
            (Self::NoSplit, true) => "files that are not named after the training split",
            (Self::Unnamed, false) => "file that README.md does not name",
            (Self::Unnamed, true) => "files that README.md does not name",
            (Self::Deep, false) => "folder nested too deeply",
            (Self::Deep, true) => "folders nested too deeply",
            (Self::Name, false) => "file with a non-UTF-8 name",
            (Self::Name, true) => "files with non-UTF-8 names",
        }
    }
}

/// Endings of files that say something about data and hold none.
const ABOUT: [&str; 20] = [
    ".md", ".rst", ".pdf", ".html", ".py", ".sh", ".ipynb", ".rs", ".yaml", ".yml", ".toml", ".lock", ".cfg",
    ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".log",
];
/// Files without an ending that say something about data.
const ABOUT_NAMES: [&str; 6] = ["license", "licence", "notice", "readme", "makefile", "license.txt"];
/// Names that are kept of each reason.
const NAMED: usize = 5;
/// Longest name that is kept.
const NAME_CHARS: usize = 120;

/// Files that were not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassedOver(BTreeMap<Why, (u64, Vec<String>)>);

/// Those of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group<'p> {
    /// The reason.
    pub why: Why,
    /// How many.
    pub count: u64,
    /// The first of them, below the folder.
    pub first: &'p [String],
}

impl PassedOver {
    /// Counts a file, unless it is one that says something about data.
    pub(super) fn add(&mut self, name: &str, why: Why) {
        let lower = name.to_ascii_lowercase();
        let last = lower.rsplit('/').next().unwrap_or(&lower);
        if why != Why::Deep
            && (ABOUT.iter().any(|ending| last.ends_with(ending)) || ABOUT_NAMES.contains(&last))
        {
            return;
        }
        let (count, first) = self.0.entry(why).or_default();
        *count += 1;
        if first.len() < NAMED {
            first.push(name.chars().take(NAME_CHARS).collect());
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds those of another data set.
    pub fn merge(&mut self, other: &Self) {
        for (why, (count, first)) in &other.0 {
            let (all, names) = self.0.entry(*why).or_default();
            *all += count;
            names.extend(first.iter().take(NAMED.saturating_sub(names.len())).cloned());
        }
    }

    /// Each reason with its files.
    pub fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.0.iter().map(|(why, (count, first))| Group { why: *why, count: *count, first })
    }
}

impl Serialize for PassedOver {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.groups())
    }
}

impl std::fmt::Display for Group<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let many = self.count != 1;
        let verb = if many { "were" } else { "was" };
        write!(f, "{} {} {verb} not read: {}", self.count, self.why.what(many), self.first.join(", "))?;
        match self.count - self.first.len() as u64 {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_by_reason_and_texts_about_the_data_are_not() {
        let mut passed_over = PassedOver::default();
        for name in ["README.md", "LICENSE", "code/load.py", "a.csv", "x.json"] {
            passed_over.add(name, Why::Kind);
        }
        (0..7).for_each(|at| passed_over.add(&format!("test-{at}.jsonl"), Why::Split));
        let said: Vec<String> = passed_over.groups().map(|group| group.to_string()).collect();
        assert_eq!(
            said,
            [
                "2 files of another kind were not read: a.csv, x.json",
                "7 files of other splits were not read: test-0.jsonl, test-1.jsonl, test-2.jsonl, test-3.jsonl, \
                 test-4.jsonl and 2 more"
            ]
        );
    }
}
