//! Where compiled kernels and chosen algorithms outlive the process.
//!
//! This crate writes no files: the binary hands in a [`Store`] over a folder of its own. Without one everything
//! is compiled and chosen once a process. What comes back from a store is checked and never trusted.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use sha2::{Digest as _, Sha256};

/// Named small pieces of bytes. Names are plain file names.
pub trait Store: Send + Sync {
    /// What was saved under `name`, or `None`: absence and failure are the same, the piece is made again.
    fn load(&self, name: &str) -> Option<Vec<u8>>;
    /// Keeps `bytes` under `name`, completely or not at all. A failure costs time on the next start and no more.
    fn save(&self, name: &str, bytes: &[u8]);
}

static STORE: OnceLock<Arc<dyn Store>> = OnceLock::new();
static CHOICES: Mutex<Option<Arc<dyn Store>>> = Mutex::new(None);

/// How names of choices end, as against compiled kernels.
const CHOICE: &str = ".algo";

/// Keeps every choice that is made or taken from now on in `store` too, and looks there first: a run that is gone on
/// with computes with its own choices, whatever became of the store of the process.
pub fn set_choices(store: Arc<dyn Store>) {
    *CHOICES.lock().unwrap_or_else(PoisonError::into_inner) = Some(store);
}

fn choices(name: &str) -> Option<Arc<dyn Store>> {
    name.ends_with(CHOICE).then(|| CHOICES.lock().unwrap_or_else(PoisonError::into_inner).clone()).flatten()
}

/// Sets the store of this process; the first call wins.
pub fn set_store(store: Arc<dyn Store>) {
    let _ = STORE.set(store);
}

/// What was kept under `name`, if it is whole.
pub fn load(name: &str) -> Option<Vec<u8>> {
    let own = choices(name);
    if let Some(found) = own.as_ref().and_then(|own| unseal(own.load(name)?)) {
        return Some(found);
    }
    let found = unseal(STORE.get()?.load(name)?)?;
    if let Some(own) = own {
        own.save(name, &seal(&found));
    }
    Some(found)
}

/// Keeps `bytes` under `name`, if there is a store.
pub fn save(name: &str, bytes: &[u8]) {
    if let Some(own) = choices(name) {
        own.save(name, &seal(bytes));
    }
    if let Some(store) = STORE.get() {
        store.save(name, &seal(bytes));
    }
}

/// Bytes of a checksum.
const SEAL: usize = 32;

/// The bytes with their SHA-256 behind them.
fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = bytes.to_vec();
    sealed.extend(Sha256::digest(bytes));
    sealed
}

/// The bytes before their checksum; `None` where it is not theirs.
fn unseal(mut sealed: Vec<u8>) -> Option<Vec<u8>> {
    let length = sealed.len().checked_sub(SEAL)?;
    let seal = sealed.split_off(length);
    (Sha256::digest(&sealed)[..] == seal[..]).then_some(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct InMemory(Mutex<std::collections::BTreeMap<String, Vec<u8>>>);

    impl Store for InMemory {
        fn load(&self, name: &str) -> Option<Vec<u8>> {
            self.0.lock().unwrap().get(name).cloned()
        }

        fn save(&self, name: &str, bytes: &[u8]) {
            self.0.lock().unwrap().insert(name.to_owned(), bytes.to_vec());
        }
    }

    #[test]
    fn a_run_keeps_the_choices_it_uses_and_prefers_its_own() {
        let (process, run) = (Arc::new(InMemory::default()), Arc::new(InMemory::default()));
        set_store(process.clone());
        save("a.algo", b"before the run");
        set_choices(run.clone());
        assert_eq!(load("a.algo").as_deref(), Some(&b"before the run"[..]), "and the run has it now");
        save("b.algo", b"of the run");
        save("c.cubin", b"a kernel");
        assert_eq!(run.0.lock().unwrap().keys().collect::<Vec<_>>(), ["a.algo", "b.algo"]);
        process.save("a.algo", &seal(b"of another run"));
        assert_eq!(load("a.algo").as_deref(), Some(&b"before the run"[..]));
        run.save("a.algo", b"damaged");
        assert_eq!(load("a.algo").as_deref(), Some(&b"of another run"[..]));
    }

    #[test]
    fn what_was_sealed_comes_back_and_nothing_else_does() {
        for bytes in [&b""[..], b"a kernel"] {
            let sealed = seal(bytes);
            assert_eq!(unseal(sealed.clone()).as_deref(), Some(bytes));
            for cut in 0..sealed.len() {
                assert_eq!(unseal(sealed[..cut].to_vec()), None, "cut at {cut}");
            }
            for at in 0..sealed.len() {
                let mut wrong = sealed.clone();
                wrong[at] ^= 1;
                assert_eq!(unseal(wrong), None, "a bit at {at}");
            }
        }
    }
}
