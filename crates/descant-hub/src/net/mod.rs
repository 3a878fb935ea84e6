//! Fetching: ask for the list, choose, make sure there is room, fetch several files at once, verify, link.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use descant_files::RelPath;
use ureq::http::header::{CONTENT_LENGTH, ETAG, HeaderName};

use crate::cache::{Cache, Snapshot};
use crate::checksum::Checksum;
use crate::error::{Error, Result};
use crate::listing::{Listing, MAX_LISTING_BYTES, Published};
use crate::reference::{Commit, Kind, Reference, Repo};
use crate::select;

mod client;
mod config;
mod event;
mod fetch;
mod tries;

pub use config::{DEFAULT_ENDPOINT, HubConfig, Patience, Secret};
pub use event::{Event, Watch};

use client::{Client, Failure};
use fetch::{Fetcher, Wanted};
use tries::Tries;

/// Room that is left on the disk beside what is fetched.
const RESERVE_BYTES: u64 = 64 << 20;
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
const REPO_COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");

/// A hub, and the cache that its files go to.
pub struct Hub {
    client: Client,
    cache: Cache,
    config: HubConfig,
}

/// What a download did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is now.
    pub snapshot: Snapshot,
    /// Every file with length and hash, in the order of their names.
    pub files: Vec<(RelPath, u64, Checksum)>,
    /// Files that were not in the cache before.
    pub new_files: usize,
}

impl Hub {
    /// A hub. Opens no connection yet.
    ///
    /// # Errors
    /// Address, token, proxy or certificates cannot be used.
    pub fn new(config: HubConfig, cache: Cache) -> Result<Self> {
        Ok(Self { client: Client::new(&config)?, cache, config })
    }

    /// How long the hub takes to answer one request, whatever it answers.
    ///
    /// # Errors
    /// It does not answer.
    pub fn reach(&self) -> Result<Duration> {
        let begun = Instant::now();
        self.client.head("/").map_err(|failure| failure.error)?;
        Ok(begun.elapsed())
    }

    /// Brings what a run needs of a repository into the cache. Files that are there are kept; `thoroughly` hashes
    /// them first, and those that are damaged are fetched again.
    ///
    /// # Errors
    /// The hub refuses or cannot be reached, the repository is not what a run can use, the disk is too small, or a
    /// file is not what was published. What came is kept, and the next call continues there.
    pub fn download(&self, reference: &Reference, thoroughly: bool, watch: &dyn Watch) -> Result<Fetched> {
        let repo = &reference.repo;
        let stop = AtomicBool::new(false);
        let listing = self.listing(reference, &stop, watch)?;
        watch.on(&Event::Resolved { repo, commit: &listing.commit });
        let fetcher = Fetcher {
            client: &self.client,
            cache: &self.cache,
            repo,
            patience: &self.config.patience,
            stop: &stop,
            watch,
        };
        let job = Job { hub: self, reference, listing: &listing, fetcher: &fetcher, thoroughly };
        let files = job.run()?;
        let new_files = files.iter().filter(|(_, new)| *new).count();
        // Links when every blob is there, the ref when every link is: what a ref leads to is whole.
        for (file, _) in &files {
            self.cache.link(repo, &listing.commit, &file.name, &file.checksum)?;
        }
        let dir = self.cache.snapshot_dir(repo, &listing.commit);
        let snapshot = Snapshot::complete(reference, listing.commit.clone(), dir)?;
        self.cache.remember(repo, reference.revision(), &listing.commit)?;
        let mut files: Vec<_> = files.into_iter().map(|(f, _)| (f.name, f.size, f.checksum)).collect();
        files.sort();
        Ok(Fetched { snapshot, files, new_files })
    }

    fn listing(&self, reference: &Reference, stop: &AtomicBool, watch: &dyn Watch) -> Result<Listing> {
        let repo = &reference.repo;
        let revision = encoded(reference.revision(), false);
        let path = format!("/api/{}/{}/revision/{revision}?blobs=true", repo.kind().plural(), repo.id());
        let bad = |reason| Error::Listing { repo: repo.to_string(), reason };
        let what = repo.to_string();
        let tries = Tries::new(&self.config.patience, stop, watch, &what);
        let bytes = tries.run(|| self.small(&repo.to_string(), &path, MAX_LISTING_BYTES))?;
        let listing = Listing::parse(&bytes).map_err(bad)?;
        if Commit::parse(reference.revision()).is_some_and(|asked| asked != listing.commit) {
            return Err(bad(format!("it is of commit {}, another one was asked for", listing.commit)));
        }
        Ok(listing)
    }

    /// An answer that is read whole.
    fn small(&self, repo: &str, path: &str, limit: u64) -> Result<Vec<u8>, Failure> {
        use std::io::Read as _;
        let answer = self.client.get(path, 0)?;
        if let Some(failure) = self.client.refusal(repo, &answer) {
            return Err(failure);
        }
        let url = answer.url.clone();
        let mut bytes = Vec::new();
        let read = answer.into_reader().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|e| Failure::again(Error::Transport { url: url.clone(), reason: e.to_string() }))?;
        if bytes.len() as u64 > limit {
            return Err(
                Error::Transport { url, reason: format!("the answer is longer than {limit} bytes") }.into()
            );
        }
        Ok(bytes)
    }
}

/// One download.
struct Job<'a> {
    hub: &'a Hub,
    reference: &'a Reference,
    listing: &'a Listing,
    fetcher: &'a Fetcher<'a>,
    thoroughly: bool,
}

impl Job<'_> {
    /// Fetches what is needed; returns for each file whether it is new.
    fn run(&self) -> Result<Vec<(Wanted, bool)>> {
        let incompatible = |reason| Error::Incompatible { what: self.reference.repo.to_string(), reason };
        let names = self.listing.files.keys().map(String::as_str);
        if self.reference.repo.kind() == Kind::Dataset {
            let names = match &self.reference.file {
                Some(file) => vec![file.clone()],
                None => select::rows(names).map_err(incompatible)?,
            };
            return self.fetch_all(names.into_iter().map(|name| self.wanted(name)).collect::<Result<_>>()?);
        }
        let names = select::model(|name| self.listing.files.contains_key(name)).map_err(incompatible)?;
        // The small files show whether the large ones are worth fetching, and which they are.
        let tells = |name: &RelPath| [select::CONFIG, select::INDEX].contains(&name.as_str());
        let (first, mut later): (Vec<_>, Vec<_>) = names.into_iter().partition(tells);
        let first: Vec<Wanted> = first.into_iter().map(|name| self.wanted(name)).collect::<Result<_>>()?;
        if let Some(large) = first.iter().find(|file| file.size > select::MAX_JSON_BYTES) {
            return Err(incompatible(format!("{} has {} bytes", large.name, large.size)));
        }
        let mut done = Vec::new();
        for file in first {
            let new = !self.fetcher.look(&file, self.thoroughly)?;
            if new {
                self.fetcher.fetch(&file)?;
            }
            let blob = self.hub.cache.blob(&self.reference.repo, &file.checksum);
            let bytes = descant_files::read_bounded(&blob, select::MAX_JSON_BYTES)?;
            if file.name.as_str() == select::CONFIG {
                select::check_config(&bytes).map_err(incompatible)?;
            } else {
                later.extend(select::shards(&bytes).map_err(incompatible)?);
            }
            done.push((file, new));
        }
        let later = later.into_iter().map(|name| self.wanted(name)).collect::<Result<_>>()?;
        done.extend(self.fetch_all(later)?);
        Ok(done)
    }

    /// What must be true of a file: from the list, or where the list is silent, from the file's own headers.
    fn wanted(&self, name: RelPath) -> Result<Wanted> {
        let repo = &self.reference.repo;
        let published = self.listing.files.get(name.as_str()).ok_or_else(|| Error::Incompatible {
            what: repo.to_string(),
            reason: format!("it has no {name}"),
        })?;
        let prefix = if repo.kind() == Kind::Dataset { "/datasets" } else { "" };
        let file = encoded(name.as_str(), true);
        let path = format!("{prefix}/{}/resolve/{}/{file}", repo.id(), self.listing.commit);
        let (size, checksum) = match published {
            Published { size: Some(size), checksum: Some(checksum) } => (*size, checksum.clone()),
            _ => self.ask(&name, &path)?,
        };
        Ok(Wanted { name, size, checksum, path })
    }

    fn ask(&self, name: &RelPath, path: &str) -> Result<(u64, Checksum)> {
        let (repo, fetcher) = (self.reference.repo.to_string(), self.fetcher);
        let bad = |reason: &str| Error::Listing { repo: repo.clone(), reason: format!("{name}: {reason}") };
        let tries = Tries::new(fetcher.patience, fetcher.stop, fetcher.watch, name.as_str());
        tries.run(|| {
            let answer = fetcher.client.head(path)?;
            if !(300..400).contains(&answer.status)
                && let Some(failure) = fetcher.client.refusal(&repo, &answer)
            {
                return Err(failure);
            }
            if answer.header(&REPO_COMMIT).is_some_and(|commit| commit != self.listing.commit.as_str()) {
                return Err(bad("it is of another commit").into());
            }
            let tag = answer.header(&LINKED_ETAG).or(answer.header(&ETAG));
            let checksum = tag.and_then(Checksum::parse).ok_or_else(|| bad("the server names no hash"))?;
            let length = answer.header(&LINKED_SIZE).or(answer.header(&CONTENT_LENGTH));
            let size = length.and_then(|text| text.trim().parse().ok());
            Ok((size.ok_or_else(|| bad("the server names no length"))?, checksum))
        })
    }

    fn fetch_all(&self, files: Vec<Wanted>) -> Result<Vec<(Wanted, bool)>> {
        let fetcher = self.fetcher;
        let mut here = Vec::new();
        for file in &files {
            here.push(fetcher.look(file, self.thoroughly)?);
        }
        let bytes = files.iter().map(|file| file.size).sum();
        let missing: Vec<&Wanted> =
            files.iter().zip(&here).filter(|(_, here)| !**here).map(|(f, _)| f).collect();
        let to_come: u64 = missing.iter().map(|file| file.size - fetcher.left_over(file)).sum();
        let cache = self.hub.cache.root();
        let count = files.len();
        fetcher.watch.on(&Event::Planned { files: count, bytes, present: bytes - to_come, cache });
        check_space(cache, to_come)?;
        self.in_parallel(&missing)?;
        Ok(files.into_iter().zip(here).map(|(file, here)| (file, !here)).collect())
    }

    /// Several at once, the largest first. The first failure stops the others where they are.
    fn in_parallel(&self, files: &[&Wanted]) -> Result<()> {
        let mut queue = files.to_vec();
        queue.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            while let Some(file) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                let Err(error) = self.fetcher.fetch(file) else { continue };
                let mut first = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if !matches!(error, Error::Stopped) {
                    first.get_or_insert(error);
                }
                self.fetcher.stop.store(true, Ordering::Relaxed);
                return;
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.hub.config.connections.clamp(1, queue.len().max(1)) {
                scope.spawn(work);
            }
        });
        let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        failed.map_or(Ok(()), Err)
    }
}

fn check_space(cache: &Path, to_come: u64) -> Result<()> {
    let needed = to_come.saturating_add(RESERVE_BYTES);
    match descant_files::free_bytes(cache)? {
        Some(free) if to_come > 0 && free < needed => {
            Err(Error::Space { path: cache.to_owned(), needed, free })
        }
        _ => Ok(()),
    }
}

/// A text as part of an URL's path; `/` stays itself in names of files.
fn encoded(text: &str, keep_slash: bool) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slash && byte == b'/') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes all text");
        }
        out
    })
}

/// Where a repository is spoken of on the web.
pub fn page(config: &HubConfig, repo: &Repo) -> String {
    format!("{}/{repo}", client::shown(config.endpoint.trim_end_matches('/')))
}
