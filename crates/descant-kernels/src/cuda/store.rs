//! Where compiled kernels and chosen algorithms outlive the process.
//!
//! This crate writes no files: the binary hands in a [`Store`] over a folder of its own. Without one everything
//! is compiled and chosen once a process. What comes back from a store is checked and never trusted.

use std::cell::RefCell;
#[cfg(feature = "cuda")]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use sha2::{Digest as _, Sha256};

/// Named small pieces of bytes. Names are plain file names.
pub trait Store: Send + Sync {
    /// What was saved under `name`, or `None`: absence and failure are the same, the piece is made again.
    fn load(&self, name: &str) -> Option<Vec<u8>>;
    /// Keeps `bytes` under `name`, completely or not at all, in place of what is there. A failure costs time on the next
    /// start and no more.
    fn save(&self, name: &str, bytes: &[u8]);
    /// Keeps `bytes` under `name` unless something is there, and returns what is there then: all who publish at the same
    /// time get the bytes of the first. `None` where nothing could be kept.
    fn publish(&self, name: &str, bytes: &[u8]) -> Option<Vec<u8>>;
}

/// The cache of this process. Kernels and the algorithms that nobody keeps for a run of his own are the same for all
/// that it computes, as the cards are.
static STORE: OnceLock<Arc<dyn Store>> = OnceLock::new();

thread_local! {
    /// The choices of the run that this thread computes; what it queues takes them along.
    static CHOICES: RefCell<Option<Choices>> = const { RefCell::new(None) };
}

/// Sets the store of this process; the first call wins.
pub fn set_store(store: Arc<dyn Store>) {
    let _ = STORE.set(store);
}

/// The algorithms that one run computes with: they decide its last bits, so it keeps them and looks here first,
/// whatever became of the store of the process.
#[derive(Clone)]
#[cfg_attr(
    not(any(feature = "cuda", test)),
    expect(dead_code, reason = "only a card has algorithms to choose from")
)]
pub struct Choices {
    store: Arc<dyn Store>,
    #[cfg(feature = "cuda")]
    id: usize,
}

impl Choices {
    /// Kept in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        #[cfg(feature = "cuda")]
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        Self {
            store,
            #[cfg(feature = "cuda")]
            id: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Tells runs of a process apart; never 0.
    #[cfg(feature = "cuda")]
    pub(crate) fn id(&self) -> usize {
        self.id
    }

    /// What this thread queues computes with these, until the result is dropped.
    #[must_use = "the choices end with the result"]
    pub fn enter(self) -> Entered {
        Entered { before: CHOICES.replace(Some(self)) }
    }

    /// Those of this thread.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn of_thread() -> Option<Self> {
        CHOICES.with_borrow(Clone::clone)
    }
}

/// Gives a thread back the choices that it had before.
pub struct Entered {
    before: Option<Choices>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CHOICES.set(self.before.take());
    }
}

/// The algorithm of this name: the run's own, then that of the process, which becomes the run's unless another process
/// of the run was first.
#[cfg(any(feature = "cuda", test))]
pub(crate) fn load_choice(run: Option<&Choices>, name: &str) -> Option<Vec<u8>> {
    if let Some(found) = run.and_then(|run| unseal(run.store.load(name)?)) {
        return Some(found);
    }
    let found = load(name)?;
    Some(run.map_or_else(|| found.clone(), |run| publish(&*run.store, name, &found)))
}

/// Keeps an algorithm that was chosen, and returns the one to compute with: where several processes choose at the same
/// time, and time tells them different ones, all get what the first of them has kept.
#[cfg(any(feature = "cuda", test))]
pub(crate) fn publish_choice(run: Option<&Choices>, name: &str, bytes: &[u8]) -> Vec<u8> {
    let stores = STORE.get().into_iter().chain(run.map(|run| &run.store));
    stores.fold(bytes.to_vec(), |bytes, store| publish(&**store, name, &bytes))
}

#[cfg(any(feature = "cuda", test))]
fn publish(store: &dyn Store, name: &str, bytes: &[u8]) -> Vec<u8> {
    let sealed = seal(bytes);
    let Some(kept) = store.publish(name, &sealed) else { return bytes.to_vec() };
    unseal(kept).unwrap_or_else(|| {
        // Damaged: nobody reads it, and it would be in everybody's way.
        store.save(name, &sealed);
        bytes.to_vec()
    })
}

/// What the process has kept under `name`, if it is whole.
pub fn load(name: &str) -> Option<Vec<u8>> {
    unseal(STORE.get()?.load(name)?)
}

/// Keeps `bytes` under `name`, if the process has a store.
pub fn save(name: &str, bytes: &[u8]) {
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
    struct InMemory(std::sync::Mutex<std::collections::BTreeMap<String, Vec<u8>>>);

    impl Store for InMemory {
        fn load(&self, name: &str) -> Option<Vec<u8>> {
            self.0.lock().unwrap().get(name).cloned()
        }

        fn save(&self, name: &str, bytes: &[u8]) {
            self.0.lock().unwrap().insert(name.to_owned(), bytes.to_vec());
        }

        fn publish(&self, name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
            let mut pieces = self.0.lock().unwrap();
            Some(pieces.entry(name.to_owned()).or_insert_with(|| bytes.to_vec()).clone())
        }
    }

    #[test]
    fn a_run_keeps_the_choices_it_uses_and_no_other_run_sees_them() {
        let (process, one, other) =
            (Arc::new(InMemory::default()), Arc::new(InMemory::default()), Arc::new(InMemory::default()));
        set_store(process.clone());
        assert_eq!(publish_choice(None, "a.algo", b"before the run"), b"before the run");
        let (run, second) = (Choices::new(one.clone()), Choices::new(other.clone()));
        assert_eq!(load_choice(Some(&run), "a.algo").as_deref(), Some(&b"before the run"[..]));
        assert_eq!(publish_choice(Some(&run), "b.algo", b"of the run"), b"of the run");
        save("c.cubin", b"a kernel");
        assert_eq!(one.0.lock().unwrap().keys().collect::<Vec<_>>(), ["a.algo", "b.algo"]);
        process.save("a.algo", &seal(b"of another process"));
        assert_eq!(load_choice(Some(&run), "a.algo").as_deref(), Some(&b"before the run"[..]));
        assert_eq!(load_choice(Some(&second), "a.algo").as_deref(), Some(&b"of another process"[..]));
        one.save("a.algo", b"damaged");
        assert_eq!(load_choice(Some(&run), "a.algo").as_deref(), Some(&b"of another process"[..]));
        assert_eq!(one.load("a.algo"), Some(seal(b"of another process")), "what is damaged is replaced");
    }

    #[test]
    fn processes_of_one_run_that_choose_at_the_same_time_compute_with_the_choice_of_the_first() {
        // Two processes of one run, on hosts with caches of their own: what they share is the run's folder. Neither has
        // found a choice, and each has timed another.
        let run: Arc<InMemory> = Arc::default();
        let (first, second) = (Choices::new(run.clone()), Choices::new(run.clone()));
        assert_eq!((load_choice(Some(&first), "c.algo"), load_choice(Some(&second), "c.algo")), (None, None));
        let all = [(&first, b"one"), (&second, b"two"), (&first, b"six")]
            .map(|(rank, timed)| publish(&*rank.store, "c.algo", timed));
        assert_eq!(all, [b"one", b"one", b"one"]);
        assert_eq!(load_choice(Some(&second), "c.algo").as_deref(), Some(&b"one"[..]));
        // What a process knew before is not what the run computes with, either.
        set_store(Arc::new(InMemory::default()));
        save("d.algo", b"of this host");
        run.save("d.algo", &seal(b"of the run"));
        assert_eq!(publish_choice(Some(&first), "d.algo", b"timed"), b"of the run");
        assert_eq!(load_choice(Some(&second), "d.algo").as_deref(), Some(&b"of the run"[..]));
    }

    #[test]
    fn choices_are_a_threads_own_and_end_with_their_guard() {
        let is_set = || Choices::of_thread().is_some();
        let outer = Choices::new(Arc::new(InMemory::default())).enter();
        let inner = Choices::new(Arc::new(InMemory::default())).enter();
        assert!(is_set() && !std::thread::spawn(is_set).join().unwrap());
        drop(inner);
        assert!(is_set());
        drop(outer);
        assert!(!is_set());
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
