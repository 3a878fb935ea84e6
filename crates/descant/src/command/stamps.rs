//! Hashes of files that have not changed since they were taken.
//!
//! To hash a file of gigabytes at each start takes longer than everything else. So a hash is kept with the file's
//! length, inode and times, as git does it: a file that is written gets another time of change, which no program can
//! set. A file that changed within the last moments is hashed again, since a second change may have the same time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use descant_files::{read_bounded, sha256_file, write_atomic};
use serde::{Deserialize, Serialize};

/// The file in the cache.
const NAME: &str = "stamps.json";
/// Longest such file.
const MOST_BYTES: u64 = 4 << 20;
/// Most files that are remembered.
const MOST_FILES: usize = 2000;
/// A file that was changed within this time before it was hashed may change again under the same time.
const UNSURE: Duration = Duration::from_secs(3);

/// A file at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    length: u64,
    device: u64,
    inode: u64,
    /// Nanoseconds since 1970.
    modified: u128,
    changed: u128,
    sha256: String,
}

/// The SHA-256 of a file's content, remembered in `folder`.
pub(super) fn content_sha256(path: &Path, folder: &Path) -> Result<String> {
    let Some(now) = stamp(path) else { return Ok(sha256_file(path)?) };
    let place = folder.join(NAME);
    let known = read_bounded(&place, MOST_BYTES).ok();
    // A file that cannot be read as this is as good as none.
    let mut stamps: BTreeMap<String, Stamp> =
        known.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let name = std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    if let Some(known) = stamps.get(&name)
        && *known == (Stamp { sha256: known.sha256.clone(), ..now.clone() })
    {
        return Ok(known.sha256.clone());
    }
    let begun = SystemTime::now();
    let sha256 = sha256_file(path)?;
    let settled = UNIX_EPOCH + Duration::from_nanos(now.changed as u64) + UNSURE < begun;
    if settled && stamp(path).as_ref() == Some(&now) {
        if stamps.len() >= MOST_FILES {
            stamps.clear();
        }
        stamps.insert(name, Stamp { sha256: sha256.clone(), ..now });
        // Not to remember costs time at the next start, and nothing else.
        if let Ok(bytes) = serde_json::to_vec(&stamps) {
            let _ = write_atomic(&place, &bytes);
        }
    }
    Ok(sha256)
}

/// A file as it is now, not hashed; `None` where the system does not say when a file changed.
#[cfg(unix)]
fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = path.metadata().ok()?;
    let time = |seconds: i64, nanos: i64| {
        u128::from(seconds.unsigned_abs()) * 1_000_000_000 + u128::from(nanos.unsigned_abs())
    };
    Some(Stamp {
        length: metadata.len(),
        device: metadata.dev(),
        inode: metadata.ino(),
        modified: time(metadata.mtime(), metadata.mtime_nsec()),
        changed: time(metadata.ctime(), metadata.ctime_nsec()),
        sha256: String::new(),
    })
}

#[cfg(not(unix))]
fn stamp(_: &Path) -> Option<Stamp> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_is_hashed_again_and_one_that_does_not_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        write_atomic(&path, b"one").unwrap();
        assert_eq!(content_sha256(&path, folder.path()).unwrap(), descant_files::sha256(b"one"));
        assert!(!folder.path().join(NAME).exists(), "it was written a moment ago");
        // As if that had been long ago, with a hash that shows whether it was looked up.
        let known = Stamp { sha256: "kept".to_owned(), ..stamp(&path).unwrap() };
        let stamps = BTreeMap::from([(path.display().to_string(), known)]);
        write_atomic(&folder.path().join(NAME), &serde_json::to_vec(&stamps).unwrap()).unwrap();
        assert_eq!(content_sha256(&path, folder.path()).unwrap(), "kept");
        write_atomic(&path, b"two").unwrap();
        assert_eq!(content_sha256(&path, folder.path()).unwrap(), descant_files::sha256(b"two"));
        write_atomic(&folder.path().join(NAME), b"no JSON").unwrap();
        assert_eq!(content_sha256(&path, folder.path()).unwrap(), descant_files::sha256(b"two"));
    }
}
