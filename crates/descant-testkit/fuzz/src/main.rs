//! One binary with every door; `DESCANT_DOOR` says which. `cargo xtask fuzz` builds and runs it.
//!
//! A finding is a panic that nobody caught, a broken promise (`assert!` in a door), heap out of proportion, or a
//! timeout, which libFuzzer watches. Panics that a library call is guarded against are none.

#![no_main]

mod doors;
/// What the settings need of the binary's `failure.rs`.
mod failure {
    /// An error with advice, of which only the error is of interest here.
    #[derive(Debug)]
    pub(crate) struct Hinted(anyhow::Error);

    impl Hinted {
        pub(crate) fn new(error: impl Into<anyhow::Error>, _hint: impl Into<String>) -> Self {
            Self(error.into())
        }
    }

    impl std::fmt::Display for Hinted {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }

    impl std::error::Error for Hinted {}
}
#[allow(dead_code, unused_imports, reason = "the binary's own, of which a part is used here")]
#[path = "../../../descant/src/settings/mod.rs"]
mod settings;
#[allow(dead_code, reason = "as above")]
#[path = "../../../descant/src/words.rs"]
mod words;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::OnceLock;

use descant_testkit::heap::{Counting, Whose, peak_of};
use doors::Door;

#[global_allocator]
static HEAP: Counting = Counting;

static DOOR: OnceLock<Door> = OnceLock::new();

thread_local! {
    /// What the last panic said and where it was.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Chooses the door, and gives its seeds to the corpus before libFuzzer reads that.
fn begin() {
    std::panic::set_hook(Box::new(|panic| LAST.set(panic.to_string().replace('\n', " "))));
    let name = std::env::var("DESCANT_DOOR").unwrap_or_default();
    let Some((door, seeds)) = doors::open(&name) else {
        eprintln!("DESCANT_DOOR is `{name}`; expected a name in doors.txt");
        std::process::exit(2);
    };
    if let Some(corpus) = std::env::var_os("DESCANT_CORPUS") {
        for (at, seed) in seeds.iter().enumerate() {
            let path = Path::new(&corpus).join(format!("seed-{at}"));
            if let Err(error) = descant_files::write_atomic(&path, seed) {
                eprintln!("{error}");
                std::process::exit(2);
            }
        }
    }
    let _ = DOOR.set(door);
}

libfuzzer_sys::fuzz_target!(init: begin(), |data: &[u8]| {
    let door = DOOR.get().expect("begin() comes first");
    let (result, heap) = peak_of(Whose::Thread, || catch_unwind(AssertUnwindSafe(|| door(data))));
    if result.is_err() {
        LAST.with_borrow(|last| eprintln!("finding: {last}"));
        std::process::abort();
    }
    if heap > (64 << 20) + 4 * data.len() {
        eprintln!("finding: {heap} bytes of heap for {} of input", data.len());
        std::process::abort();
    }
});
