//! Sets of questions: those that ship with the program, and files.

use std::collections::BTreeMap;
use std::path::Path;

use descant_harmony::read::{Columns, each_object};
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};
use crate::question::Question;
use crate::samples::Source;

/// Names of the suites that ship.
pub const NAMES: [&str; 4] = ["tutorial", "mgsm", "general", "survives"];
/// Their questions, with licences beside the files and in THIRD-PARTY.md.
const SHIPPED: [&str; 4] = [
    include_str!("../suites/tutorial.jsonl"),
    include_str!("../suites/mgsm.jsonl"),
    include_str!("../suites/general.jsonl"),
    include_str!("../suites/survives.jsonl"),
];
/// Largest file of questions.
const BYTES: u64 = 1 << 30;

/// Questions that belong together.
#[derive(Debug, Clone)]
pub struct Suite {
    /// Its name, or that of its file without the ending.
    pub name: String,
    /// What it is loaded by: the name of a shipped one, else the path of its file.
    pub source: String,
    /// SHA-256 of its file.
    pub sha256: String,
    /// The questions, in the file's order.
    pub questions: Vec<Question>,
    /// Unknown keys, and how often they occur.
    pub unknown: BTreeMap<String, u64>,
}

impl Suite {
    /// A shipped suite by its name, else a file.
    ///
    /// # Errors
    /// There is neither, or a question cannot be asked.
    pub fn load(name: &str) -> Result<Self> {
        if let Some(at) = NAMES.iter().position(|known| *known == name) {
            return Self::from_text(name, SHIPPED[at]);
        }
        if !Path::new(name).exists() {
            return Err(Error::NoSuite { name: name.to_owned(), known: NAMES.join(", ") });
        }
        Self::from_file(Path::new(name))
    }

    /// The questions of a file, JSON lines or parquet.
    ///
    /// # Errors
    /// It cannot be read, or a question cannot be asked.
    pub fn from_file(path: &Path) -> Result<Self> {
        let stem = path.file_stem().and_then(std::ffi::OsStr::to_str).unwrap_or("questions");
        let bytes = descant_files::read_bounded(path, BYTES)?;
        let mut suite = Reader::new(stem, &path.display().to_string(), descant_files::sha256(&bytes));
        let mut failed = None;
        let read = each_object(path, Columns::All, |line, row| {
            let taken = row.map_err(|error| error.to_string()).map_err(|reason| suite.wrong(line, reason));
            match taken.and_then(|row| suite.take(line, &row)) {
                Ok(()) => Ok(()),
                Err(error) => {
                    failed = Some(error);
                    // Any error ends the reading; ours is kept beside it.
                    Err(descant_harmony::Error::Json { reason: String::new() })
                }
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        read?;
        suite.finish()
    }

    /// The questions of JSON lines in memory.
    ///
    /// # Errors
    /// A line is not JSON, or a question cannot be asked.
    pub fn from_text(name: &str, text: &str) -> Result<Self> {
        let mut suite = Reader::new(name, name, descant_files::sha256(text.as_bytes()));
        for (line, row) in (1..).zip(text.lines()) {
            let row: Map<String, Json> =
                serde_json::from_str(row).map_err(|error| suite.wrong(line, error.to_string()))?;
            suite.take(line, &row)?;
        }
        suite.finish()
    }

    /// Only the questions with this tag.
    ///
    /// # Errors
    /// None has it.
    pub fn tagged(mut self, tag: &str) -> Result<Self> {
        self.questions.retain(|question| question.tags.iter().any(|own| own == tag));
        if self.questions.is_empty() {
            return Err(Error::Empty { file: self.name, reason: format!("no question has the tag `{tag}`") });
        }
        Ok(self)
    }

    /// What samples say of it.
    pub fn described(&self) -> Source {
        Source { name: self.source.clone(), sha256: self.sha256.clone(), questions: self.questions.len() }
    }

    /// The question with an id.
    pub fn question(&self, id: &str) -> Option<&Question> {
        self.questions.iter().find(|question| question.id == id)
    }
}

/// A suite that is being read.
struct Reader {
    suite: Suite,
    file: String,
    lines: BTreeMap<String, u64>,
}

impl Reader {
    fn new(name: &str, file: &str, sha256: String) -> Self {
        let suite = Suite {
            name: name.to_owned(),
            source: file.to_owned(),
            sha256,
            questions: Vec::new(),
            unknown: BTreeMap::new(),
        };
        Self { suite, file: file.to_owned(), lines: BTreeMap::new() }
    }

    fn wrong(&self, line: u64, reason: String) -> Error {
        Error::Question { file: self.file.clone(), line, reason }
    }

    fn take(&mut self, line: u64, row: &Map<String, Json>) -> Result<()> {
        let unknown = &mut self.suite.unknown;
        let mut count = |key: &str, times: u64| *unknown.entry(key.to_owned()).or_insert(0) += times;
        let question = Question::from_row(row, &self.suite.name, line, &mut count)
            .map_err(|reason| self.wrong(line, reason))?;
        if let Some(first) = self.lines.insert(question.id.clone(), line) {
            let (file, id) = (self.file.clone(), question.id);
            return Err(Error::Taken { file, line, id, first: format!("line {first}") });
        }
        self.suite.questions.push(question);
        Ok(())
    }

    fn finish(self) -> Result<Suite> {
        if self.suite.questions.is_empty() {
            return Err(Error::Empty { file: self.file, reason: "no questions".into() });
        }
        Ok(self.suite)
    }
}

/// Checks that no id is in two suites.
///
/// # Errors
/// One does.
pub fn check_ids(suites: &[Suite]) -> Result<()> {
    let mut seen: BTreeMap<&str, (&str, u64)> = BTreeMap::new();
    for suite in suites {
        for Question { id, line, .. } in &suite.questions {
            if let Some((name, first)) = seen.insert(id, (&suite.name, *line)) {
                let first = format!("{name}, line {first}");
                return Err(Error::Taken { file: suite.name.clone(), line: *line, id: id.clone(), first });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_suites_are_what_they_say() {
        let suites: Vec<Suite> = NAMES.iter().map(|name| Suite::load(name).unwrap()).collect();
        assert_eq!(suites.iter().map(|s| s.questions.len()).collect::<Vec<_>>(), [16, 550, 64, 40]);
        check_ids(&suites).unwrap();
        assert!(suites.iter().all(|suite| suite.unknown.is_empty()));
        // Every prefix of a multiple of 11 is balanced over question languages.
        let languages: BTreeMap<&str, usize> = suites[1].questions[..110]
            .iter()
            .flat_map(|q| &q.tags)
            .filter(|t| t.starts_with("question:"))
            .fold(BTreeMap::new(), |mut count, tag| {
                *count.entry(tag.as_str()).or_insert(0) += 1;
                count
            });
        assert_eq!(languages.into_values().collect::<Vec<_>>(), [10; 11]);
        assert!(check_ids(&[suites[0].clone(), suites[0].clone()]).is_err());
    }

    #[test]
    fn a_file_is_read_with_its_lines_in_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.jsonl");
        let row = r#"{"messages": [{"role": "user", "content": "Hi"}], "answr": 1}"#;
        descant_files::write_atomic(&path, format!("{row}\n\n{row}\n").as_bytes()).unwrap();
        let suite = Suite::from_file(&path).unwrap();
        assert_eq!(suite.questions.iter().map(|q| q.id.as_str()).collect::<Vec<_>>(), ["mine:1", "mine:3"]);
        assert_eq!(suite.unknown["answr"], 2);
        let same = r#"{"id": "a", "messages": [{"role": "user", "content": "Hi"}]}"#;
        for (text, expected) in [
            (format!("{same}\n{same}\n"), "line 2: id `a` is taken by line 1"),
            (format!("{same}\n{{\"id\": 1}}\n"), "line 2: "),
            (format!("{same}\nnothing\n"), "line 2: "),
            (String::new(), "an empty file"),
        ] {
            descant_files::write_atomic(&path, text.as_bytes()).unwrap();
            let error = Suite::from_file(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("mine.jsonl"), "{text}: {error}");
        }
        assert!(Suite::load("nothing").unwrap_err().to_string().contains("shipped are tutorial, mgsm"));
    }
}
