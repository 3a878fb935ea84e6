//! How a hub is reached. Everything is passed in: this crate reads no environment.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The hub that everybody means.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Address, token, and how patient to be.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Address of the hub, without credentials.
    pub endpoint: String,
    /// Sent to the host of `endpoint` and to no other.
    pub token: Option<Secret>,
    /// A proxy, as `http://[USER:PASSWORD@]HOST:PORT`.
    pub proxy: Option<Secret>,
    /// Hosts that are reached without the proxy.
    pub no_proxy: Vec<String>,
    /// Certificates to trust instead of the built-in ones, a file in PEM.
    pub certificates: Option<PathBuf>,
    /// Files that are fetched at the same time.
    pub connections: usize,
    /// Timeouts and tries.
    pub patience: Patience,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            endpoint: DEFAULT_ENDPOINT.to_owned(),
            token: None,
            proxy: None,
            no_proxy: Vec::new(),
            certificates: None,
            connections: 4,
            patience: Patience::default(),
        }
    }
}

/// How long to wait, and how often to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, encryption included.
    pub connect: Duration,
    /// For the first line of an answer.
    pub answer: Duration,
    /// For the next bytes; a connection that brings next to nothing in this time counts as broken.
    pub stall: Duration,
    /// Tries without progress before giving up.
    pub tries: u32,
    /// Pause before the second try; each further pause is twice as long.
    pub pause: Duration,
    /// Longest pause, and the longest that a server may ask for.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            answer: Duration::from_mins(1),
            stall: Duration::from_secs(30),
            tries: 6,
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_mins(2),
        }
    }
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text. White space around it is not part of it; nothing is left of an empty one.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The text, for the one who sends it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
