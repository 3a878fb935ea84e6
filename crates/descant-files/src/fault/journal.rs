//! What was done since it was last brought to the disk, so that it can be lost.
//!
//! Harsher than most file systems: each change that no `fsync` covers is lost or kept by itself, as a seed says, and
//! in no order.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The content of a file that a renaming replaced.
pub(crate) type Replaced = Option<Vec<u8>>;

#[derive(Debug)]
enum Name {
    Created(PathBuf),
    Renamed { from: PathBuf, to: PathBuf, replaced: Replaced },
}

/// Changes that a loss of power may undo.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Files with unsynced content, and the length that is safe.
    content: BTreeMap<PathBuf, u64>,
    names: Vec<Name>,
}

impl Journal {
    pub(crate) fn created(&mut self, path: &Path) {
        self.names.push(Name::Created(path.to_owned()));
    }

    pub(crate) fn written(&mut self, path: &Path, file: &File) {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        self.content.entry(path.to_owned()).or_insert(length);
    }

    pub(crate) fn cut(&mut self, path: &Path, length: u64) {
        if let Some(safe) = self.content.get_mut(path) {
            *safe = length.min(*safe);
        }
    }

    pub(crate) fn synced(&mut self, path: &Path) {
        self.content.remove(path);
    }

    pub(crate) fn synced_dir(&mut self, dir: &Path) {
        self.names.retain(|name| match name {
            Name::Created(path) | Name::Renamed { to: path, .. } => path.parent() != Some(dir),
        });
    }

    pub(crate) fn renamed(&mut self, from: &Path, to: &Path, replaced: Replaced) {
        let moved = |path: &Path| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path.to_owned(),
        };
        self.content =
            std::mem::take(&mut self.content).into_iter().map(|(path, safe)| (moved(&path), safe)).collect();
        for name in &mut self.names {
            if let Name::Created(path) = name {
                *path = moved(path);
            }
        }
        self.names.push(Name::Renamed { from: from.to_owned(), to: to.to_owned(), replaced });
    }

    pub(crate) fn removed(&mut self, path: &Path) {
        self.content.retain(|file, _| !file.starts_with(path));
        self.names.retain(|name| match name {
            Name::Created(created) => !created.starts_with(path),
            Name::Renamed { .. } => true,
        });
    }

    /// The power goes.
    pub(crate) fn lose(self, seed: u64) {
        let mut dice = Dice(seed);
        for (path, safe) in self.content {
            let Ok(file) = File::options().write(true).open(&path) else { continue };
            let length = file.metadata().map_or(safe, |metadata| metadata.len());
            let lost = length.saturating_sub(safe);
            let _ = match dice.below(4) {
                0 => Ok(()),
                1 => file.set_len(safe + dice.below(lost + 1)),
                // The length arrived and the content did not: zeros.
                2 => file.set_len(safe).and_then(|()| file.set_len(length)),
                _ => file.set_len(safe),
            };
        }
        for name in self.names.into_iter().rev() {
            if dice.below(2) == 0 {
                undo(name);
            }
        }
    }
}

/// Best effort: what another loss took away already cannot be undone.
fn undo(name: Name) {
    match name {
        Name::Created(path) if path.is_dir() => drop(std::fs::remove_dir_all(path)),
        Name::Created(path) => drop(std::fs::remove_file(path)),
        Name::Renamed { from, to, replaced } => {
            if to.exists() {
                drop(std::fs::rename(&to, from));
                #[expect(clippy::disallowed_methods, reason = "this is the disk, not a writer")]
                drop(replaced.map(|bytes| std::fs::write(to, bytes)));
            } else {
                // It was removed under its new name: of the folder only the name came back.
                drop(std::fs::create_dir(from));
            }
        }
    }
}

/// SplitMix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}
