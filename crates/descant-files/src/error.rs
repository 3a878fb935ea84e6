//! What can go wrong between this program and the file system.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the file layer; every variant names the path, or the name that was to become one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation.
    #[error("{operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried: open, read, write, sync, rename, remove.
        operation: &'static str,
        /// The path it was tried on.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is longer than its kind may be.
    #[error("{path}: longer than the limit of {limit} bytes", path = path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// A name from outside that is not a plain relative path.
    #[error("file name {name:?}: {defect}")]
    Name {
        /// The name, escaped when shown.
        name: String,
        /// What is wrong with it.
        defect: NameDefect,
    },
    /// A symbolic link leads out of the folder.
    #[error("{path}: leads out of its folder to {target}", path = path.display(), target = target.display())]
    Escapes {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Something is where a new file or folder was to be made.
    #[error("{path}: already exists", path = path.display())]
    Exists {
        /// What is in the way.
        path: PathBuf,
    },
    /// Another process, or another part of this one, is at work there.
    #[error("{path}: locked by {holder}", path = path.display())]
    Locked {
        /// The lock's file.
        path: PathBuf,
        /// Who holds it, as it says itself.
        holder: String,
    },
    /// What was to be a regular file is something else.
    #[error("{path}: not a regular file", path = path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file is shorter or longer than it was, or than a record of it says.
    #[error("{path}: expected {expected} bytes, file has {actual}", path = path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// The bytes it should have.
        expected: u64,
        /// The bytes it has.
        actual: u64,
    },
    /// A line for an [`Appender`](crate::Appender) that would become two.
    #[error("{path}: a line must not contain a line break", path = path.display())]
    LineBreak {
        /// The file.
        path: PathBuf,
    },
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameDefect {
    /// No characters.
    #[error("is empty")]
    Empty,
    /// Starts at a root: `/`, `//server/share`.
    #[error("is absolute")]
    Absolute,
    /// `\`, which separates on one system and is a letter on another.
    #[error("contains a backslash")]
    Backslash,
    /// `:`, as in a drive (`C:`) or an alternate stream (`a.txt:b`).
    #[error("contains a colon")]
    Colon,
    /// A control character, NUL included.
    #[error("contains a control character")]
    Control,
    /// A part `.` or `..`.
    #[error("contains the part `.` or `..`")]
    Dots,
    /// An empty part: `a//b`, `a/`.
    #[error("contains an empty part")]
    EmptyPart,
    /// A part that ends in a dot or a space, which some systems drop.
    #[error("has a part that ends in a dot or a space")]
    TrailingDotOrSpace,
    /// A name that some systems keep for a device: `NUL`, `con.txt`, `COM1`.
    #[error("is the name of a device on some systems")]
    Device,
    /// A part, or the whole, longer than file systems allow.
    #[error("is longer than file systems allow")]
    TooLong,
}
