//! What a hub publishes, what it should do wrong, and what was requested.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

/// What a server does instead of answering well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Ends the connection after this many bytes of the body.
    Cut(usize),
    /// Changes the byte at this place of the file.
    Flip(usize),
    /// Announces this many bytes more than there are and ends the connection.
    AnnounceMore(usize),
    /// Sends and announces this many bytes too few.
    Short(usize),
    /// Sends this many bytes too many, without announcing a length.
    Long(usize),
    /// Answers with this status and a page of HTML; with seconds, as `Retry-After`.
    Status(u16, Option<u64>),
    /// Answers 200 with a page of HTML that asks to log in.
    LoginPage,
    /// Sends the pointer of git LFS in place of the file.
    Pointer,
    /// Sends this many bytes, then nothing for this long.
    Stall(usize, Duration),
    /// Answers a request for a range with the whole file.
    IgnoreRange,
    /// Answers a request for a range with the range one byte later.
    OtherRange,
    /// Redirects there.
    Redirect(String),
    /// Answers nothing and closes.
    Hang,
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whether it came to the store, and not to the hub itself.
    pub at_store: bool,
    /// `GET` or `HEAD`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    /// The header `Range`.
    pub range: Option<String>,
    /// Everything that was sent, as it came.
    pub head: String,
}

#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) sha256: String,
    pub(super) git: String,
}

#[derive(Debug, Default)]
pub(super) struct Repository {
    pub(super) commit: String,
    pub(super) files: BTreeMap<String, File>,
    /// Entries of the list that no file is behind.
    pub(super) also: Vec<Value>,
    /// Whether the list names sizes and hashes.
    pub(super) silent: bool,
    /// The token that opens it.
    pub(super) token: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// By `models/OWNER/NAME` or `datasets/OWNER/NAME`.
    pub(super) repositories: BTreeMap<String, Repository>,
    /// What befalls requests whose target contains the text, and how many of them still.
    pub(super) faults: Vec<(String, usize, Fault)>,
    pub(super) seen: Vec<Seen>,
    pub(super) store: String,
}
