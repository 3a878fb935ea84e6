//! The cache that the Python libraries use too, so that a model is on the disk once.
//!
//! ```text
//! CACHE/models--OWNER--NAME/blobs/HASH                     content, named by its hash
//!                          /blobs/HASH.descant.incomplete  on its way; a later run continues there
//!                          /snapshots/COMMIT/FILE          a link to ../../blobs/HASH
//!                          /refs/REVISION                  the commit that a branch or tag meant last
//! CACHE/.locks/models--OWNER--NAME/HASH.lock               held while HASH is fetched
//! ```
//!
//! Blobs come first, links then, the ref last: what a reader finds by a ref is whole. Nothing here opens a socket.

use std::path::{Path, PathBuf};

use descant_files::{RelPath, read_bounded};

#[cfg(feature = "net")]
use crate::checksum::Checksum;
use crate::error::{Error, Result};
use crate::reference::{Commit, Kind, Reference, Repo};
use crate::select;

/// Longest file under `refs`.
const MAX_REF_BYTES: u64 = 256;
/// Folders inside each other that are looked into.
const MAX_DEPTH: usize = 8;

/// A cache folder; it need not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    root: PathBuf,
}

/// A repository at a commit, with everything that a run needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What was asked for, pinned to the commit.
    pub reference: Reference,
    /// The commit.
    pub commit: Commit,
    /// The directory of a model, the file of a data set, or the folder with its shards.
    pub path: PathBuf,
    /// The files, in the order of their names.
    pub files: Vec<RelPath>,
    /// The folder they lie in.
    pub dir: PathBuf,
}

impl Cache {
    /// The cache at `root`, what `HF_HUB_CACHE` names.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the cache holds of a repository, when that is all a run needs.
    ///
    /// # Errors
    /// [`Error::NotCached`] says what is missing.
    pub fn find(&self, reference: &Reference) -> Result<Snapshot> {
        let missing = |missing: String| Error::NotCached {
            reference: reference.to_string(),
            cache: self.root.clone(),
            missing,
        };
        let commit = self
            .commit_of(&reference.repo, reference.revision())?
            .ok_or_else(|| missing(format!("no `{}` of it", reference.revision())))?;
        let dir = self.snapshot_dir(&reference.repo, &commit);
        if !dir.is_dir() {
            return Err(missing(format!("no commit {}", commit.short())));
        }
        Snapshot::complete(reference, commit, dir).map_err(|error| match error {
            Error::Incompatible { reason, .. } => missing(reason),
            other => other,
        })
    }

    /// The commit that a revision means, as far as the cache knows.
    fn commit_of(&self, repo: &Repo, revision: &str) -> Result<Option<Commit>> {
        if let Some(commit) = Commit::parse(revision) {
            return Ok(Some(commit));
        }
        let path = self.ref_path(repo, revision)?;
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = read_bounded(&path, MAX_REF_BYTES)?;
        Ok(Commit::parse(String::from_utf8_lossy(&bytes).trim()))
    }

    pub(crate) fn repo_dir(&self, repo: &Repo) -> PathBuf {
        self.root.join(repo.folder())
    }

    #[cfg(feature = "net")]
    pub(crate) fn blob(&self, repo: &Repo, checksum: &Checksum) -> PathBuf {
        self.repo_dir(repo).join("blobs").join(checksum.as_str())
    }

    pub(crate) fn snapshot_dir(&self, repo: &Repo, commit: &Commit) -> PathBuf {
        self.repo_dir(repo).join("snapshots").join(commit.as_str())
    }

    #[cfg(feature = "net")]
    pub(crate) fn lock(&self, repo: &Repo, checksum: &Checksum) -> PathBuf {
        self.root.join(".locks").join(repo.folder()).join(format!("{}.lock", checksum.as_str()))
    }

    fn ref_path(&self, repo: &Repo, revision: &str) -> Result<PathBuf> {
        Ok(RelPath::new(revision)?.under(&self.repo_dir(repo).join("refs"))?)
    }

    /// Gives a blob the name of a file in a snapshot.
    #[cfg(feature = "net")]
    pub(crate) fn link(&self, repo: &Repo, commit: &Commit, name: &RelPath, blob: &Checksum) -> Result<()> {
        let dir = self.snapshot_dir(repo, commit);
        descant_files::create_dirs(&dir)?;
        let parents: Vec<&str> = name.as_str().split('/').collect();
        if let Some((_, folders)) = parents.split_last()
            && !folders.is_empty()
        {
            let folder = RelPath::new(&folders.join("/"))?.under(&dir)?;
            descant_files::create_dirs(&folder)?;
        }
        let up = "../".repeat(parents.len() + 1);
        let target = PathBuf::from(format!("{up}blobs/{}", blob.as_str()));
        let link = dir.join(name.as_str());
        if std::fs::read_link(&link).is_ok_and(|leads| leads == target) {
            return Ok(());
        }
        Ok(descant_files::link_relative(&target, &link)?)
    }

    /// Remembers what a branch or tag means now.
    #[cfg(feature = "net")]
    pub(crate) fn remember(&self, repo: &Repo, revision: &str, commit: &Commit) -> Result<()> {
        if Commit::parse(revision).is_some() {
            return Ok(());
        }
        let path = self.ref_path(repo, revision)?;
        if let Some(folder) = path.parent() {
            descant_files::create_dirs(folder)?;
        }
        Ok(descant_files::write_atomic(&path, commit.as_str().as_bytes())?)
    }
}

impl Snapshot {
    /// The snapshot in `dir`, when it is complete.
    pub(crate) fn complete(reference: &Reference, commit: Commit, dir: PathBuf) -> Result<Self> {
        let incompatible = |reason: String| Error::Incompatible { what: reference.to_string(), reason };
        let files = match (reference.repo.kind(), &reference.file) {
            (Kind::Model, _) => model_files(&dir).map_err(incompatible)?,
            (Kind::Dataset, Some(file)) => vec![file.clone()],
            (Kind::Dataset, None) => {
                let names = walk(&dir)?;
                select::rows(names.iter().map(String::as_str)).map_err(incompatible)?
            }
        };
        if let Some(missing) = files.iter().find(|file| !dir.join(file.as_str()).is_file()) {
            return Err(incompatible(format!("no {missing}")));
        }
        let path = match (reference.repo.kind(), &files[..]) {
            (Kind::Dataset, [file]) => dir.join(file.as_str()),
            // Shards of one set lie in one folder.
            (Kind::Dataset, [first, ..]) => {
                dir.join(first.as_str().rsplit_once('/').map_or("", |(folder, _)| folder))
            }
            _ => dir.clone(),
        };
        Ok(Self { reference: reference.pinned(&commit), commit, path, files, dir })
    }
}

/// The files of a model directory, in the order of their names, when none is missing.
pub(crate) fn model_files(dir: &Path) -> Result<Vec<RelPath>, String> {
    let mut files = select::model(|name| dir.join(name).is_file())?;
    if files.iter().any(|name| name.as_str() == select::INDEX) {
        let index = read_bounded(&dir.join(select::INDEX), select::MAX_JSON_BYTES);
        let shards = select::shards(&index.map_err(|e| e.to_string())?)?;
        if let Some(missing) = shards.iter().find(|name| !dir.join(name.as_str()).is_file()) {
            return Err(format!("no {missing}"));
        }
        files.extend(shards);
    }
    files.sort();
    Ok(files)
}

/// Names of all files below a folder, in order, links followed.
pub(crate) fn walk(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![(root.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let io = |source| descant_files::Error::Io { operation: "open", path: folder.clone(), source };
        for entry in folder.read_dir().map_err(io)? {
            let entry = entry.map_err(io)?;
            // A listing cannot contain a name that is not UTF-8.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = entry.path();
            if entry.file_type().map_err(io)?.is_dir() {
                if depth < MAX_DEPTH {
                    folders.push((path, format!("{prefix}{name}/"), depth + 1));
                }
            } else if path.is_file() {
                found.push(format!("{prefix}{name}"));
            }
        }
    }
    found.sort();
    Ok(found)
}
