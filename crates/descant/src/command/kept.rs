//! Where compiled kernels and chosen algorithms lie between runs: a folder under the user's cache.
//!
//! Losing it costs the next start some seconds; nothing in it is trusted, and no failure here is worth stopping for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, anyhow};
use descant_files::{RelPath, read_bounded, write_atomic};
use descant_kernels::cuda::{Choices, CudaError, Entered, Gpu, Store, set_store};

use crate::failure::Hinted;
use crate::user_cache;

/// Longest piece that is read: the largest kernel file is 2 MB.
const LIMIT: u64 = 64 << 20;

/// Opens the card of this index, with what was kept; its product name.
pub(crate) fn open(index: usize) -> Result<String> {
    if let Some(cache) = user_cache::folder() {
        set_store(Arc::new(Folder(cache.join("kernels"))));
    }
    let gpu = Gpu::of(index).map_err(|error| hinted(&error))?;
    Ok(gpu.name().to_owned())
}

/// Keeps the choices of algorithms that this thread computes with in a run's folder: they decide the last bits.
#[must_use = "the choices end with the result"]
pub(crate) fn keep_choices(folder: &Path) -> Entered {
    let store = OfRun { folder: Folder(folder.to_owned()), said: AtomicBool::new(false) };
    Choices::new(Arc::new(store)).enter()
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
}

fn hinted(error: &CudaError) -> anyhow::Error {
    match error.hint() {
        Some(hint) => Hinted::new(anyhow!("{error}"), hint).into(),
        None => anyhow!("{error}"),
    }
}

/// A file a piece.
struct Folder(PathBuf);

impl Store for Folder {
    fn load(&self, name: &str) -> Option<Vec<u8>> {
        read_bounded(&RelPath::new(name).ok()?.under(&self.0).ok()?, LIMIT).ok()
    }

    fn save(&self, name: &str, bytes: &[u8]) {
        if let Err(error) = self.write(name, bytes) {
            tracing::debug!("a kernel is not kept: {error}");
        }
    }
}

impl Folder {
    fn write(&self, name: &str, bytes: &[u8]) -> descant_files::Result<()> {
        descant_files::create_dirs(&self.0)?;
        write_atomic(&RelPath::new(name)?.under(&self.0)?, bytes)
    }
}

/// Those of a run: losing one costs no time but bytes, so it is said, once.
struct OfRun {
    folder: Folder,
    said: AtomicBool,
}

impl Store for OfRun {
    fn load(&self, name: &str) -> Option<Vec<u8>> {
        self.folder.load(name)
    }

    fn save(&self, name: &str, bytes: &[u8]) {
        if let Err(error) = self.folder.write(name, bytes)
            && !self.said.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "choices of algorithms cannot be stored; a resumed run may differ in the last bits: {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_names_stay_inside() {
        let temporary = tempfile::tempdir().unwrap();
        let store = Folder(temporary.path().join("a").join("b"));
        assert_eq!(store.load("norm-1.cubin"), None);
        store.save("norm-1.cubin", b"bytes");
        assert_eq!(store.load("norm-1.cubin").as_deref(), Some(&b"bytes"[..]));
        store.save("../outside", b"bytes");
        assert!(!temporary.path().join("a").join("outside").exists());
    }
}
