//! One file: from where the last run stopped to a verified blob.
//!
//! ```text
//! is the blob there? ── yes ──▶ done (hashed first when asked)
//!        │ no
//! lock ▶ continue with HASH.descant.incomplete ▶ request the rest by range ▶ append, hash
//!                 ▲                                    │ cut, stalled, 5xx, 429
//!                 └──────────── again ◀────────────────┘
//! whole ▶ compare length and hash ▶ sync, rename to HASH
//! ```
//!
//! A blob gets its name only if its content has the published hash. Other content is discarded and fetched once more
//! from the first byte.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use descant_files::{FileLock, Partial, RelPath};
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE};

use super::client::{Answer, Client, Failure};
use super::config::Patience;
use super::event::{Event, Watch};
use super::tries::Tries;
use crate::cache::Cache;
use crate::checksum::{Checksum, Hasher};
use crate::error::{Error, Result};
use crate::reference::Repo;
use crate::verify::POINTER;

/// Bytes taken from a connection at a time.
const CHUNK_BYTES: usize = 1 << 18;
/// A try that brought this much counts as progress.
const PROGRESS_BYTES: u64 = 1 << 20;
/// Less than this in the time of a stall is one.
const TRICKLE_BYTES: u64 = 1 << 10;
/// How often a lock that another holds is asked for.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// A file that is wanted, with everything that must be true of it.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) name: RelPath,
    pub(crate) size: u64,
    pub(crate) checksum: Checksum,
    /// Where the hub gives it.
    pub(crate) path: String,
}

/// Everything that does not change from file to file.
pub(crate) struct Fetcher<'a> {
    pub(crate) client: &'a Client,
    pub(crate) cache: &'a Cache,
    pub(crate) repo: &'a Repo,
    pub(crate) patience: &'a Patience,
    pub(crate) stop: &'a AtomicBool,
    pub(crate) watch: &'a dyn Watch,
}

impl Fetcher<'_> {
    /// Whether the blob is in the cache: by its length, and by its hash when `thoroughly`.
    pub(crate) fn is_present(&self, file: &Wanted, thoroughly: bool) -> Result<bool> {
        let blob = self.cache.blob(self.repo, &file.checksum);
        let Ok(metadata) = std::fs::metadata(&blob) else { return Ok(false) };
        if !metadata.is_file() || metadata.len() != file.size {
            return Ok(false);
        }
        if !thoroughly {
            return Ok(true);
        }
        match file.checksum.check_file(&blob) {
            Ok(()) => Ok(true),
            Err(Error::Checksum { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// As [`is_present`](Self::is_present), and reports when something else is there.
    pub(crate) fn look(&self, file: &Wanted, thoroughly: bool) -> Result<bool> {
        let present = self.is_present(file, thoroughly)?;
        if !present && self.cache.blob(self.repo, &file.checksum).exists() {
            self.watch.on(&Event::Damaged { file: file.name.as_str() });
        }
        Ok(present)
    }

    /// Bytes of a file that an earlier run left.
    pub(crate) fn left_over(&self, file: &Wanted) -> u64 {
        let length = std::fs::symlink_metadata(self.part(file)).map_or(0, |metadata| metadata.len());
        if length <= file.size { length } else { 0 }
    }

    fn part(&self, file: &Wanted) -> PathBuf {
        let mut name = self.cache.blob(self.repo, &file.checksum).into_os_string();
        name.push(".descant.incomplete");
        name.into()
    }

    /// Brings a blob into the cache.
    pub(crate) fn fetch(&self, file: &Wanted) -> Result<()> {
        let blob = self.cache.blob(self.repo, &file.checksum);
        descant_files::create_dirs(blob.parent().unwrap_or(Path::new(".")))?;
        let mut part = self.part(file);
        let lock = self.lock(file)?;
        if lock.is_none() {
            // Without locks two programs may write here: then each has its own file, and the last one wins.
            part.as_mut_os_string().push(format!(".{}", std::process::id()));
        }
        // Another program may have brought it while we waited; what was there before and is wrong is replaced.
        if self.is_present(file, true)? {
            self.watch.on(&Event::Received { bytes: file.size });
            self.watch.on(&Event::Finished { file: file.name.as_str() });
            return Ok(());
        }
        let mut part = Partial::open(&part)?;
        self.fill(file, &mut part)?;
        part.commit(&blob)?;
        self.watch.on(&Event::Finished { file: file.name.as_str() });
        Ok(())
    }

    /// The lock of a blob; `None` where the file system knows no locks.
    fn lock(&self, file: &Wanted) -> Result<Option<FileLock>> {
        let path = self.cache.lock(self.repo, &file.checksum);
        descant_files::create_dirs(path.parent().unwrap_or(Path::new(".")))?;
        let mut told = false;
        loop {
            match FileLock::try_acquire(&path) {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) => {}
                Err(descant_files::Error::Io { operation: "lock", .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            if !told {
                self.watch.on(&Event::Waiting { file: file.name.as_str() });
                told = true;
            }
            self.check_stop()?;
            std::thread::sleep(LOCK_PAUSE);
        }
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Fills a partial file until its content is the published one.
    fn fill(&self, file: &Wanted, part: &mut Partial) -> Result<()> {
        let name = file.name.as_str();
        if part.length() > file.size {
            part.restart()?;
        }
        self.watch.on(&Event::Begun { file: name, size: file.size, from: part.length() });
        let mut hasher = Hasher::new(&file.checksum, file.size);
        part.for_each_chunk(|chunk| hasher.update(chunk))?;
        let mut tries = Tries::new(self.patience, self.stop, self.watch, name);
        let mut spoiled = false;
        loop {
            let before = part.length();
            match self.attempt(file, part, &mut hasher) {
                Ok(()) => {
                    let finished = std::mem::replace(&mut hasher, Hasher::new(&file.checksum, file.size));
                    let Err(error) = finished.finish(name) else { return Ok(()) };
                    self.restart(part)?;
                    // The part that an earlier run left may have been the wrong one. Twice is the server's doing.
                    if std::mem::replace(&mut spoiled, true) {
                        return Err(error);
                    }
                    self.watch.on(&Event::Again { what: name, error: &error, pause: Duration::ZERO });
                }
                Err(failure) => {
                    if part.length() >= before.saturating_add(PROGRESS_BYTES) {
                        tries.progress();
                    }
                    if part.length() == 0 {
                        hasher = Hasher::new(&file.checksum, file.size);
                    }
                    tries.after(failure)?;
                }
            }
        }
    }

    fn restart(&self, part: &mut Partial) -> Result<()> {
        self.watch.on(&Event::Lost { bytes: part.length() });
        Ok(part.restart()?)
    }

    /// One request for what is missing.
    fn attempt(&self, file: &Wanted, part: &mut Partial, hasher: &mut Hasher) -> Result<(), Failure> {
        if part.length() == file.size {
            return Ok(());
        }
        let answer = self.client.get(&file.path, part.length())?;
        if answer.status == 416 {
            // The server has a shorter file; asking from the beginning shows which.
            let error = Error::Status { url: answer.url, status: 416 };
            self.restart(part)?;
            return Err(Failure::again(error));
        }
        if let Some(failure) = self.client.refusal(&self.repo.to_string(), &answer) {
            return Err(failure);
        }
        if part.length() > 0 && !continues(&answer, part.length(), file.size) {
            // It ignored the range or sent another one: what comes is from the first byte, or useless.
            self.restart(part)?;
            *hasher = Hasher::new(&file.checksum, file.size);
            if answer.status == 206 {
                return Err(Failure::again(Error::Transport {
                    url: answer.url,
                    reason: "the server sent another range".into(),
                }));
            }
        }
        check_announced(file, part, &answer)?;
        self.receive(file, part, hasher, answer)
    }

    /// Appends what comes until the file is whole.
    fn receive(
        &self,
        file: &Wanted,
        part: &mut Partial,
        hasher: &mut Hasher,
        answer: Answer,
    ) -> Result<(), Failure> {
        let url = answer.url.clone();
        let broken = |reason: String| Failure::again(Error::Transport { url: url.clone(), reason });
        let mut reader = answer.into_reader();
        let mut chunk = vec![0; CHUNK_BYTES];
        let (mut window, mut in_window) = (Instant::now(), 0_u64);
        loop {
            self.check_stop()?;
            let n = match reader.read(&mut chunk) {
                Ok(0) if part.length() == file.size => return Ok(()),
                Ok(0) => {
                    return Err(broken(format!(
                        "the connection ended after {} of {} bytes",
                        part.length(),
                        file.size
                    )));
                }
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(broken(describe(&e))),
            };
            let bytes = &chunk[..n];
            if part.length() == 0 && bytes.starts_with(POINTER) {
                return Err(Error::Pointer { file: file.name.as_str().to_owned() }.into());
            }
            if part.length() + n as u64 > file.size {
                let (name, actual) = (file.name.as_str().to_owned(), part.length() + n as u64);
                self.restart(part)?;
                return Err(Failure::again(Error::Length { file: name, expected: file.size, actual }));
            }
            part.append(bytes)?;
            hasher.update(bytes);
            self.watch.on(&Event::Received { bytes: n as u64 });
            in_window += n as u64;
            if window.elapsed() >= self.patience.stall {
                if in_window < TRICKLE_BYTES {
                    return Err(broken("almost no data received in time".into()));
                }
                (window, in_window) = (Instant::now(), 0);
            }
        }
    }
}

/// Compares the announced length with the one the list gave.
fn check_announced(file: &Wanted, part: &Partial, answer: &Answer) -> Result<(), Failure> {
    let announced = answer.header(&CONTENT_LENGTH).and_then(|text| text.trim().parse::<u64>().ok());
    let expected = file.size - part.length();
    match announced {
        Some(actual) if actual != expected => {
            let file = file.name.as_str().to_owned();
            Err(Failure::again(Error::Length { file, expected, actual }))
        }
        _ => Ok(()),
    }
}

/// Whether an answer continues at byte `from` of a file of `size` bytes.
fn continues(answer: &Answer, from: u64, size: u64) -> bool {
    let range = answer.header(&CONTENT_RANGE).unwrap_or_default();
    let start = range.strip_prefix("bytes ").and_then(|rest| rest.split_once('-'));
    let whole = range.rsplit_once('/').map(|(_, whole)| whole);
    answer.status == 206
        && start.is_some_and(|(start, _)| start.parse() == Ok(from))
        && whole.is_some_and(|whole| whole == "*" || whole.parse() == Ok(size))
}

/// A broken connection, as text.
fn describe(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
        Some(ureq::Error::Timeout(_)) => "no data received in time".to_owned(),
        _ if error.kind() == std::io::ErrorKind::TimedOut => "no data received in time".to_owned(),
        _ if error.kind() == std::io::ErrorKind::UnexpectedEof => "the connection was cut".to_owned(),
        _ => error.to_string(),
    }
}
