//! Where compiled kernels and chosen algorithms lie between runs: a folder under the user's cache.
//!
//! Losing it costs the next start some seconds; nothing in it is trusted, and no failure here is worth stopping for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, anyhow};
use descant_files::{RelPath, read_bounded, write_atomic, write_first};
use descant_kernels::cuda::{Choices, CudaError, Entered, Gpu, Store, set_store};

use crate::failure::Hinted;
use crate::user_cache;

/// Longest piece that is read: the largest kernel file is 2 MB.
const LIMIT: u64 = 64 << 20;

/// Opens the card of this index, with what was kept; its product name.
pub(crate) fn open(index: usize) -> Result<String> {
    if let Some(cache) = user_cache::folder() {
        set_store(Arc::new(Folder::new(cache.join("kernels"), false)));
    }
    let gpu = Gpu::of(index).map_err(|error| hinted(&error))?;
    Ok(gpu.name().to_owned())
}

/// Keeps the choices of algorithms that this thread computes with in a run's folder: they decide the last bits.
#[must_use = "the choices end with the result"]
pub(crate) fn keep_choices(folder: &Path) -> Entered {
    Choices::new(Arc::new(Folder::new(folder.to_owned(), true))).enter()
}

/// Keeps what this thread chooses until the result is dropped from whatever it computes later.
#[must_use = "the choices end with the result"]
pub(crate) fn choose_apart() -> Entered {
    Choices::new(Arc::new(Nowhere)).enter()
}

/// Nothing is kept.
struct Nowhere;

impl Store for Nowhere {
    fn load(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn save(&self, _: &str, _: &[u8]) {}

    fn publish(&self, _: &str, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

fn hinted(error: &CudaError) -> anyhow::Error {
    match error.hint() {
        Some(hint) => Hinted::new(anyhow!("{error}"), hint).into(),
        None => anyhow!("{error}"),
    }
}

/// A file a piece.
struct Folder {
    place: PathBuf,
    /// Whether it is a run's: losing a piece of the user's cache costs time, losing one of a run bytes, which is said,
    /// once.
    is_of_run: bool,
    said: AtomicBool,
}

impl Folder {
    fn new(place: PathBuf, is_of_run: bool) -> Self {
        Self { place, is_of_run, said: AtomicBool::new(false) }
    }

    /// `None` where the system refuses.
    fn keep<T>(&self, name: &str, write: impl FnOnce(&Path) -> descant_files::Result<T>) -> Option<T> {
        let kept = descant_files::create_dirs(&self.place)
            .and_then(|()| RelPath::new(name)?.under(&self.place))
            .and_then(|path| write(&path));
        kept.inspect_err(|error| self.lost(error)).ok()
    }

    fn lost(&self, error: &descant_files::Error) {
        if !self.is_of_run {
            tracing::debug!("a kernel or a choice is not kept: {error}");
        } else if !self.said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "choices of algorithms cannot be stored; a resumed run may differ in the last bits: {error}"
            );
        }
    }
}

impl Store for Folder {
    fn load(&self, name: &str) -> Option<Vec<u8>> {
        read_bounded(&RelPath::new(name).ok()?.under(&self.place).ok()?, LIMIT).ok()
    }

    fn save(&self, name: &str, bytes: &[u8]) {
        self.keep(name, |path| write_atomic(path, bytes));
    }

    fn publish(&self, name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let is_first = self.keep(name, |path| write_first(path, bytes))?;
        if is_first { Some(bytes.to_vec()) } else { self.load(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_names_stay_inside() {
        let temporary = tempfile::tempdir().unwrap();
        let store = Folder::new(temporary.path().join("a").join("b"), false);
        assert_eq!(store.load("norm-1.cubin"), None);
        store.save("norm-1.cubin", b"bytes");
        assert_eq!(store.load("norm-1.cubin").as_deref(), Some(&b"bytes"[..]));
        store.save("../outside", b"bytes");
        assert!(!temporary.path().join("a").join("outside").exists());
        assert_eq!(store.publish("norm-1.cubin", b"later").as_deref(), Some(&b"bytes"[..]));
        assert_eq!(store.publish("x.algo", b"first").as_deref(), Some(&b"first"[..]));
        assert_eq!(store.publish("../outside", b"first"), None);
    }
}
