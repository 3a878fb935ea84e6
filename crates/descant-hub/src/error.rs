//! What can go wrong between a name of a repository and verified files.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the hub layer. Texts name repository, file or URL; URLs are shown without their query, and no text
/// ever holds a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No name of a repository.
    #[error("`{given}` is not a repository: {reason}")]
    Reference {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The hub's address, the proxy, the certificates or the token cannot be used.
    #[error("{what}: {reason}")]
    Setting {
        /// Which of them.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// The cache lacks the repository, or files of it.
    #[error("{reference} is not in the cache {cache}: {missing}", cache = cache.display())]
    NotCached {
        /// What was asked for.
        reference: String,
        /// The cache.
        cache: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// The hub does not have it, or does not show it to us.
    #[error("{repo}: {reason}")]
    Refused {
        /// The repository.
        repo: String,
        /// What the hub says.
        reason: Refusal,
    },
    /// An unexpected answer.
    #[error("{url}: the server answered {status}")]
    Status {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// No answer, or an incomplete one.
    #[error("{url}: {reason}")]
    Transport {
        /// What was asked.
        url: String,
        /// What happened.
        reason: String,
    },
    /// Too many tries.
    #[error("gave up after {tries} tries without progress")]
    GaveUp {
        /// How often.
        tries: u32,
        /// The last failure.
        #[source]
        last: Box<Error>,
    },
    /// The hub asks to wait longer than allowed.
    #[error("{url}: the server asks to retry in {seconds} s")]
    Later {
        /// What was asked.
        url: String,
        /// Its wish.
        seconds: u64,
    },
    /// A redirect that is not followed.
    #[error("{url}: redirect {reason}")]
    Redirect {
        /// What was asked.
        url: String,
        /// Why not.
        reason: &'static str,
    },
    /// The list of a repository's files cannot be used.
    #[error("{repo}: the list of its files: {reason}")]
    Listing {
        /// The repository.
        repo: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The repository, or the folder, does not hold what a run needs.
    #[error("{what}: {reason}")]
    Incompatible {
        /// The repository or the folder.
        what: String,
        /// What is missing or foreign.
        reason: String,
    },
    /// A file has another length than announced.
    #[error("{file}: received {actual} bytes, but {expected} were announced")]
    Length {
        /// The file.
        file: String,
        /// Announced.
        expected: u64,
        /// Found.
        actual: u64,
    },
    /// A file's content is not what was published.
    #[error("{file}: its {kind} is {actual}, but the published one is {expected}")]
    Checksum {
        /// The file.
        file: String,
        /// `SHA-256`, or `git SHA-1` for small files.
        kind: &'static str,
        /// As published.
        expected: String,
        /// As it came.
        actual: String,
    },
    /// A pointer of git LFS instead of the file it points to.
    #[error("{file} is a pointer of git LFS, not the file itself")]
    Pointer {
        /// The file.
        file: String,
    },
    /// The disk is too small.
    #[error("{path}: {needed} bytes are needed, but only {free} are free", path = path.display())]
    Space {
        /// The cache.
        path: PathBuf,
        /// Bytes still to be written, and a reserve.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Stopped because another file failed.
    #[error("stopped")]
    Stopped,
    /// A file cannot be read or written, or its name is not safe.
    #[error(transparent)]
    Files(#[from] descant_files::Error),
}

/// Why a hub does not give a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// 401, and we sent no token.
    #[error("there is no such repository, or it needs a token, and none was sent")]
    NeedsToken,
    /// 401, and we sent a token.
    #[error("there is no such repository, or the token that was sent does not open it")]
    BadToken,
    /// The owner wants to be asked first.
    #[error("its licence must be accepted on its page before it can be fetched")]
    Gated,
    /// 403.
    #[error("access is forbidden")]
    Forbidden,
    /// 404.
    #[error("there is no such repository")]
    NoRepo,
    /// 404 for the revision alone.
    #[error("it has no such revision")]
    NoRevision,
    /// 404 for a file.
    #[error("a file of its list is not there")]
    NoFile,
}
