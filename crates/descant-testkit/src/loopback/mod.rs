//! A model hub on this machine that misbehaves on request.
//!
//! ```text
//! home    /api/models/OWNER/NAME/revision/REV?blobs=true    the list
//!         /OWNER/NAME/resolve/COMMIT/FILE                   small files; large ones: 302 to the store
//! store   /blob/SHA256?Signature=...                        another port, so another origin: no token may come here
//! ```
//!
//! Speaks HTTP/1.1 as far as a client of a hub needs it, one request a connection, on 127.0.0.1 only, and remembers
//! every request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use descant_files::hex;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

mod answer;
mod server;
mod state;

use server::Server;
pub use state::{Fault, Seen};
use state::{File, Repository, State};

/// Files of at least this length lie in the store, as in git LFS.
const LARGE_BYTES: usize = 4096;

/// A hub that lives as long as this value.
#[derive(Debug)]
pub struct LoopbackHub {
    state: Arc<Mutex<State>>,
    home: Server,
    store: Server,
}

impl LoopbackHub {
    /// Starts a hub without repositories.
    ///
    /// # Panics
    /// The system gives no port.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let store = Server::start(Arc::clone(&state), true);
        let home = Server::start(Arc::clone(&state), false);
        state.lock().expect("no thread of the hub panics").store = store.address();
        Self { state, home, store }
    }

    /// Its address, for `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        self.home.address()
    }

    /// The address of the host that large files are on.
    pub fn store(&self) -> String {
        self.store.address()
    }

    /// Publishes files under `models/OWNER/NAME` or `datasets/OWNER/NAME`, in place of what was there. Returns the
    /// commit, which depends on names and contents alone.
    pub fn publish(&self, repo: &str, files: &[(&str, Vec<u8>)]) -> String {
        let files: BTreeMap<String, File> =
            files.iter().map(|(name, bytes)| ((*name).to_owned(), File::new(bytes.clone()))).collect();
        let mut hash = Sha1::new();
        for (name, file) in &files {
            hash.update(name);
            hash.update(&file.sha256);
        }
        let commit = hex(&hash.finalize());
        let repository = Repository { commit: commit.clone(), files, ..Repository::default() };
        self.lock().repositories.insert(repo.to_owned(), repository);
        commit
    }

    /// Publishes every file of a folder; folders in it are left out.
    ///
    /// # Panics
    /// The folder cannot be read.
    pub fn publish_folder(&self, repo: &str, folder: &std::path::Path) -> String {
        let mut files = Vec::new();
        for entry in folder.read_dir().expect("the folder is there") {
            let entry = entry.expect("the folder can be read");
            if entry.path().is_file() {
                let name = entry.file_name().into_string().expect("names of fixtures are text");
                files.push((name, std::fs::read(entry.path()).expect("fixtures can be read")));
            }
        }
        let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        self.publish(repo, &files)
    }

    /// Publishes a folder, or one file as `data/train-00000-of-00001` with its extension, as data sets on a hub are.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn publish_path(&self, repo: &str, path: &std::path::Path) -> std::io::Result<String> {
        if path.is_dir() {
            return Ok(self.publish_folder(repo, path));
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("jsonl");
        let name = format!("data/train-00000-of-00001.{extension}");
        Ok(self.publish(repo, &[(name.as_str(), std::fs::read(path)?)]))
    }

    /// Adds an entry to a list, as it will be sent.
    pub fn list_also(&self, repo: &str, entry: Value) {
        self.with(repo, |repository| repository.also.push(entry));
    }

    /// Lets a list name no sizes and no hashes, as some mirrors do.
    pub fn keep_silent(&self, repo: &str) {
        self.with(repo, |repository| repository.silent = true);
    }

    /// Lets a repository open only with this token.
    pub fn require(&self, repo: &str, token: &str) {
        self.with(repo, |repository| repository.token = Some(token.to_owned()));
    }

    /// Lets the next `times` requests whose target contains `part` meet a fault.
    pub fn fail(&self, part: &str, times: usize, fault: Fault) {
        self.lock().faults.push((part.to_owned(), times, fault));
    }

    /// Part of the target under which the content of a file is asked for: its hash when it lies in the store.
    ///
    /// # Panics
    /// There is no such file.
    pub fn target_of(&self, repo: &str, name: &str) -> String {
        let state = self.lock();
        let file = &state.repositories[repo].files[name];
        if file.is_large() { file.sha256.clone() } else { format!("/{name}") }
    }

    /// Every request so far, in the order in which they came.
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.lock().seen.clear();
    }

    /// Connections that were opened so far, with or without a request.
    pub fn connections(&self) -> usize {
        self.home.connections() + self.store.connections()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the hub panics")
    }

    fn with(&self, repo: &str, change: impl FnOnce(&mut Repository)) {
        change(self.lock().repositories.get_mut(repo).expect("it was published"));
    }
}

impl File {
    fn new(bytes: Vec<u8>) -> Self {
        let sha256 = hex(&Sha256::digest(&bytes));
        let git =
            hex(&Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(&bytes).finalize());
        Self { bytes: Arc::new(bytes), sha256, git }
    }

    fn is_large(&self) -> bool {
        self.bytes.len() >= LARGE_BYTES
    }

    /// The tag under which caches keep it.
    fn tag(&self) -> &str {
        if self.is_large() { &self.sha256 } else { &self.git }
    }

    fn pointer(&self) -> String {
        let (sha256, size) = (&self.sha256, self.bytes.len());
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n")
    }
}

impl Repository {
    fn list(&self) -> Value {
        let entry = |(name, file): (&String, &File)| {
            let size = file.bytes.len();
            if self.silent {
                return json!({"rfilename": name});
            }
            let mut entry = json!({"rfilename": name, "size": size, "blobId": file.git});
            if file.is_large() {
                entry["lfs"] =
                    json!({"sha256": file.sha256, "size": size, "pointerSize": file.pointer().len()});
            }
            entry
        };
        let siblings: Vec<Value> = self.files.iter().map(entry).chain(self.also.iter().cloned()).collect();
        json!({"id": "x", "sha": self.commit, "siblings": siblings})
    }
}
