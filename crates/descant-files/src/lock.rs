//! One writer a folder: a [`FileLock`] whose file says who holds it.
//!
//! The system lets the lock go when the process ends, however it ends; so a lock is never stale on one machine, and no
//! process id is guessed from. Some network file systems grant such a lock to two machines at once: that is why a
//! holder's name that was not erased and is of another machine refuses too. A `FileLock` alone is for files that
//! programs of others lock as well, where nothing may be written into the file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::share::FileLock;

/// Longest text of a lock file that is read.
const MAX_HOLDER_BYTES: u64 = 1024;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    held: FileLock,
    /// The process that held it before and ended without releasing it.
    pub left_by: Option<String>,
}

impl Lock {
    /// Takes the lock at `path`, whose file is made where there is none.
    ///
    /// # Errors
    /// [`Error::Locked`] where another holds it; the system refuses.
    pub fn take(path: &Path) -> Result<Self> {
        let io = |operation, source| Error::Io { operation, path: path.to_owned(), source };
        let locked = |holder: String| Error::Locked { path: path.to_owned(), holder };
        let Some(held) = FileLock::try_acquire(path)? else { return Err(held_elsewhere(path)) };
        let holder = holder(&held.file);
        let host = host();
        if holder.split_once(" on ").is_some_and(|(_, rest)| rest.split(" since ").next() != Some(&host)) {
            return Err(locked(holder));
        }
        let left_by = (!holder.is_empty()).then_some(holder);
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let text = format!("process {} on {host} since {}\n", std::process::id(), utc(seconds));
        let mut file = &held.file;
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(text.as_bytes()))
            .map_err(|e| io("write", e))?;
        Ok(Self { held, left_by })
    }
}

impl Lock {
    /// Whether [`take`](Self::take) would find another at work, without leaving a trace. It may be different a moment
    /// later.
    ///
    /// # Errors
    /// [`Error::Locked`] where another holds it; the system refuses.
    pub fn look(path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        FileLock::try_acquire(path)?.map_or_else(|| Err(held_elsewhere(path)), |_| Ok(()))
    }
}

fn held_elsewhere(path: &Path) -> Error {
    let holder = File::open(path).map(|file| holder(&file)).unwrap_or_default();
    let holder = if holder.is_empty() { "another process".to_owned() } else { holder };
    Error::Locked { path: path.to_owned(), holder }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file stays: whoever waits for it must not wait for a file that is gone.
        let _ = self.held.file.set_len(0);
    }
}

/// The name in a lock's file. What is there may be half of one, or none.
fn holder(file: &File) -> String {
    let mut name = String::new();
    let _ = file.take(MAX_HOLDER_BYTES).read_to_string(&mut name);
    name.trim().chars().filter(|c| !c.is_control()).collect()
}

/// This machine's name, if a file has it.
fn host() -> String {
    let from = |path: &str| std::fs::read_to_string(PathBuf::from(path)).ok();
    let name = from("/proc/sys/kernel/hostname").or_else(|| from("/etc/hostname")).unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "this machine".to_owned() } else { name.to_owned() }
}

/// A moment for people, as `2026-11-25 11:46:18 UTC`, from seconds since 1970.
///
/// Counts days in eras of 400 years that begin on 1 March, so that a leap day is a year's last.
fn utc(seconds: u64) -> String {
    const DAYS_OF_ERA: u64 = 146_097;
    /// From 1 March of the year 0 to 1 January 1970.
    const DAYS_BEFORE: u64 = 719_468;
    let (days, second) = (seconds / 86_400 + DAYS_BEFORE, seconds % 86_400);
    let (era, day) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
    let year = (day - day / 1460 + day / 36_524 - day / (DAYS_OF_ERA - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months of five have 153 days, from March as from August.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let year = era * 400 + year + next;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_as_people_tell_them() {
        for (seconds, told) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_799, "2000-02-29 23:59:59 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_795_607_178, "2026-11-25 11:46:18 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), told);
        }
    }

    #[test]
    fn a_second_holder_is_refused_by_name_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take(&path).unwrap();
        assert_eq!(first.left_by, None);
        assert!(Lock::look(&path).is_err());
        let error = Lock::take(&path).unwrap_err();
        assert!(
            matches!(&error, Error::Locked { holder, .. } if holder.contains(&std::process::id().to_string())),
            "{error}"
        );
        drop(first);
        assert!(Lock::look(&path).is_ok());
        assert_eq!(Lock::take(&path).unwrap().left_by, None, "a holder that lets go leaves no name");
    }

    #[test]
    fn a_name_that_was_left_is_told_and_one_of_another_machine_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let leave = |text: String| crate::write_atomic(&path, text.as_bytes()).unwrap();
        leave(format!("process 1 on {} since 5\n", host()));
        assert_eq!(
            Lock::take(&path).unwrap().left_by.as_deref(),
            Some(format!("process 1 on {} since 5", host()).as_str())
        );
        leave("process 1 on elsewhere since 5\n".to_owned());
        assert!(
            matches!(Lock::take(&path), Err(Error::Locked { holder, .. }) if holder.contains("elsewhere"))
        );
        leave("\u{0}half a na".to_owned());
        assert_eq!(Lock::take(&path).unwrap().left_by.as_deref(), Some("half a na"));
    }
}
