//! A folder for tests that write durably many times.

use std::path::Path;

use tempfile::TempDir;

/// A folder that is gone when dropped: in memory where the system has a place for that.
///
/// Durable writes wait for the disk. On a busy one that is most of the time of a test that makes thousands of them,
/// and proves nothing: what is lost with the power is shown by faults on purpose, not by waiting.
///
/// # Panics
/// There is no place for a folder.
pub fn scratch() -> TempDir {
    let in_memory = Path::new("/dev/shm");
    let made = in_memory.is_dir().then(|| tempfile::tempdir_in(in_memory)).and_then(Result::ok);
    made.unwrap_or_else(|| tempfile::tempdir().expect("the system has a place for temporary files"))
}
