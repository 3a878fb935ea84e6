//! The folder of prepared examples in the user's cache: what is found there, and what is removed.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use descant_harmony::store::Store;

use crate::settings::Settings;
use crate::talk::Talk;
use crate::user_cache;

/// A single file under a temporary name, which nothing locks, is removed after so many seconds.
const ABANDONED_AFTER: u64 = 3600;
/// The file in a key's folder.
pub(super) const EXAMPLES: &str = "examples";

/// Where prepared examples are kept.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(super) folder: PathBuf,
    most: u64,
}

impl Cache {
    /// The cache that the settings allow; `None` where they forbid one, or the system names no place for it.
    ///
    /// # Errors
    /// `run.cache` is not a number of bytes.
    pub(crate) fn of(settings: &Settings) -> Result<Option<Self>> {
        let most = settings.run.cache().map_err(|reason| anyhow!(reason))?;
        let folder = user_cache::folder().map(|cache| cache.join("data"));
        Ok(folder.zip(most).map(|(folder, most)| Self { folder, most }))
    }

    /// The examples of a key, whole; `None` where there are none. What is damaged is removed.
    pub(super) fn find(&self, key: &str, talk: Talk) -> Option<Store> {
        let path = self.folder.join(key).join(EXAMPLES);
        let file = File::options().read(true).open(&path).ok()?;
        let store = Store::open(file.try_clone().ok()?, key).and_then(|store| store.verify().map(|()| store));
        match store {
            Ok(store) => {
                // The last use, by which the oldest is found.
                let _ = file.set_modified(std::time::SystemTime::now());
                Some(store)
            }
            Err(error) => {
                talk.warn(format_args!("{}: {error}; made again", path.display()));
                let _ = descant_files::remove(&self.folder.join(key));
                None
            }
        }
    }

    /// Removes what was used longest ago until all fits, and files that were not finished.
    pub(super) fn clean(&self, keep: &str) {
        let mut all: Vec<(std::time::SystemTime, u64, String)> = Vec::new();
        for name in descant_files::list(&self.folder).unwrap_or_default() {
            let path = self.folder.join(&name);
            if descant_files::is_temporary(&name) {
                let age = path.metadata().and_then(|metadata| metadata.modified()).ok();
                let age = age.and_then(|modified| modified.elapsed().ok());
                if path.is_file() && age.is_some_and(|age| age.as_secs() > ABANDONED_AFTER) {
                    let _ = descant_files::remove(&path);
                }
            } else if let Ok(metadata) = path.join(EXAMPLES).metadata() {
                all.push((metadata.modified().unwrap_or(std::time::UNIX_EPOCH), metadata.len(), name));
            }
        }
        all.sort();
        let mut bytes: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, length, name) in all.iter().filter(|(_, _, name)| name != keep) {
            if bytes <= self.most {
                break;
            }
            if descant_files::remove(&self.folder.join(name)).is_ok() {
                bytes -= length;
            }
        }
    }
}
