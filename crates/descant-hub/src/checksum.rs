//! What a published file must hash to.
//!
//! A hub names large files (git LFS, Xet) by their SHA-256 and small ones by git's own name, the SHA-1 of
//! `blob LENGTH\0` and the content. The cache uses the same names for its blobs, so a cache can be verified without
//! asking anybody. SHA-1 detects a damaged file; against a server that forges collisions it does not help, and such a
//! server could change the list as well.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use descant_files::hex;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::reference::is_lower_hex;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 18;

/// A published hash; also the name of the blob in the cache.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Checksum {
    /// SHA-256 of the content.
    Sha256(String),
    /// SHA-1 of git's header and the content.
    Git(String),
}

impl Checksum {
    /// Reads a blob's name, or an entity tag with its quotes: 64 digits are SHA-256, 40 are git's.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        if is_lower_hex(text, 64) {
            return Some(Self::Sha256(text.to_owned()));
        }
        is_lower_hex(text, 40).then(|| Self::Git(text.to_owned()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::Git(digits) => digits,
        }
    }

    /// Hashes a file and compares.
    ///
    /// # Errors
    /// It cannot be read, or is another one.
    pub fn check_file(&self, path: &Path) -> Result<()> {
        let io = |operation, source| descant_files::Error::Io { operation, path: path.to_owned(), source };
        let mut file = File::open(path).map_err(|e| io("open", e))?;
        let length = file.metadata().map_err(|e| io("look at", e))?.len();
        let mut hasher = Hasher::new(self, length);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => return hasher.finish(&path.display().to_string()),
                Ok(n) => hasher.update(&chunk[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io("read", e).into()),
            }
        }
    }
}

/// Takes content in, and compares at the end.
pub(crate) struct Hasher {
    expected: Checksum,
    state: State,
}

enum State {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    /// For a file of this length.
    pub(crate) fn new(expected: &Checksum, length: u64) -> Self {
        let state = match expected {
            Checksum::Sha256(_) => State::Sha256(Sha256::new()),
            Checksum::Git(_) => State::Git(Sha1::new().chain_update(format!("blob {length}\0"))),
        };
        Self { expected: expected.clone(), state }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha256(hash) => hash.update(bytes),
            State::Git(hash) => hash.update(bytes),
        }
    }

    /// # Errors
    /// The content was another.
    pub(crate) fn finish(self, file: &str) -> Result<()> {
        let (kind, actual) = match self.state {
            State::Sha256(hash) => ("SHA-256", hex(&hash.finalize())),
            State::Git(hash) => ("git SHA-1", hex(&hash.finalize())),
        };
        let expected = self.expected.as_str();
        if actual == expected {
            return Ok(());
        }
        Err(Error::Checksum { file: file.to_owned(), kind, expected: expected.to_owned(), actual })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_of_lfs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hello");
        descant_files::write_atomic(&path, b"hello\n").unwrap();
        // printf 'hello\n' | git hash-object --stdin; printf 'hello\n' | sha256sum
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for digits in [git, sha256] {
            let checksum = Checksum::parse(digits).unwrap();
            checksum.check_file(&path).unwrap();
            assert_eq!(checksum.as_str(), digits);
            let wrong = Checksum::parse(&digits.replacen(&digits[..1], "0", 1)).unwrap();
            assert!(matches!(wrong.check_file(&path), Err(Error::Checksum { .. })));
        }
        assert_eq!(Checksum::parse(&format!("W/\"{git}\"")), Checksum::parse(git));
        for wrong in ["", "x", &git[1..], "../../x", &git.to_uppercase()] {
            assert_eq!(Checksum::parse(wrong), None, "{wrong}");
        }
    }
}
