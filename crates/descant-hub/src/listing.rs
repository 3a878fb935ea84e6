//! The list of a repository's files, as the hub answers it. Parsing only.
//!
//! ```text
//! GET /api/models/OWNER/NAME/revision/REVISION?blobs=true
//! {"sha": COMMIT, "siblings": [{"rfilename": NAME, "size": N, "blobId": GIT_SHA1,
//!                               "lfs": {"sha256": SHA256, "size": N, "pointerSize": N}}, ...]}
//! ```
//!
//! One answer gives the commit, every size and every hash before anything is fetched. Names are kept as they came;
//! only those that a run needs become paths, and those are checked then.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::checksum::Checksum;
use crate::reference::Commit;

/// Longest list we read.
pub const MAX_LISTING_BYTES: u64 = 32 << 20;
/// Largest file we believe in: 16 TiB.
const MAX_FILE_BYTES: u64 = 1 << 44;

/// The files of a repository at a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The commit.
    pub commit: Commit,
    /// The files by name.
    pub files: BTreeMap<String, Published>,
}

/// What the list says of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Published {
    /// Its length; some mirrors do not publish it.
    pub size: Option<u64>,
    /// Its hash; some mirrors do not publish it.
    pub checksum: Option<Checksum>,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Listing {
    /// Reads an answer.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let answer: Answer = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let commit = Commit::parse(&answer.sha).ok_or("its `sha` is not a commit")?;
        let mut files = BTreeMap::new();
        for sibling in answer.siblings {
            let name = sibling.rfilename;
            let hash = |text: &str| {
                Checksum::parse(text).ok_or_else(|| format!("{name:?}: its hash has an unknown format"))
            };
            let published = match &sibling.lfs {
                Some(lfs) => Published { size: Some(lfs.size), checksum: Some(hash(&lfs.sha256)?) },
                None => Published {
                    size: sibling.size,
                    checksum: sibling.blob_id.as_deref().map(hash).transpose()?,
                },
            };
            if published.size.is_some_and(|size| size > MAX_FILE_BYTES) {
                return Err(format!("{name:?}: its size cannot be true"));
            }
            if files.insert(name.clone(), published).is_some() {
                return Err(format!("{name:?} is there twice"));
            }
        }
        Ok(Self { commit, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "6cee5e81ee83917806bbde320786a8fb61efebee";

    fn parse(siblings: &str) -> Result<Listing, String> {
        Listing::parse(format!(r#"{{"sha": "{SHA}", "siblings": [{siblings}], "more": 1}}"#).as_bytes())
    }

    #[test]
    fn sizes_and_hashes_are_those_of_the_content_and_not_of_the_pointer() {
        let sha256 = "a".repeat(64);
        let listing = parse(&format!(
            r#"{{"rfilename": "a", "size": 5, "blobId": "{SHA}"}},
               {{"rfilename": "b", "size": 9, "blobId": "{SHA}",
                 "lfs": {{"sha256": "{sha256}", "size": 9, "pointerSize": 134}}}},
               {{"rfilename": "c"}}"#
        ))
        .unwrap();
        assert_eq!(listing.commit.as_str(), SHA);
        let of = |name: &str| listing.files[name].clone();
        assert_eq!(of("a"), Published { size: Some(5), checksum: Some(Checksum::Git(SHA.into())) });
        assert_eq!(of("b"), Published { size: Some(9), checksum: Some(Checksum::Sha256(sha256)) });
        assert_eq!(of("c"), Published::default());
    }

    #[test]
    fn lists_that_cannot_be_true_are_refused() {
        for (siblings, reason) in [
            (r#"{"rfilename": "a"}, {"rfilename": "a"}"#, "\"a\" is there twice"),
            (r#"{"rfilename": "a", "blobId": "../../x"}"#, "\"a\": its hash has an unknown format"),
            (r#"{"rfilename": "a", "size": 99999999999999999}"#, "\"a\": its size cannot be true"),
            (r#"{"rfilename": "a", "size": -1}"#, "invalid value"),
            (r#"{"size": 1}"#, "missing field `rfilename`"),
        ] {
            let error = parse(siblings).unwrap_err();
            assert!(error.contains(reason), "{siblings}: {error}");
        }
        for answer in ["", "[]", "{}", "<html>", r#"{"sha": "main", "siblings": []}"#] {
            assert!(Listing::parse(answer.as_bytes()).is_err(), "{answer}");
        }
    }
}
