//! A hub with a small model in shards and a data set, and a client that has little patience.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use descant_hub::{Cache, Error, Event, Fetched, Hub, HubConfig, Patience, Reference, Secret, Watch};
use descant_testkit::loopback::LoopbackHub;
use tempfile::TempDir;

pub(crate) const MODEL: &str = "models/openai/gpt-oss-20b";
pub(crate) const ROWS: &str = "datasets/HuggingFaceH4/Multilingual-Thinking";
pub(crate) const SHARD: &str = "model-00001-of-00002.safetensors";
pub(crate) const SHARD_BYTES: usize = 100_000;

/// Hub, cache and folder of one test.
pub(crate) struct World {
    pub(crate) hub: LoopbackHub,
    pub(crate) dir: TempDir,
    pub(crate) commit: String,
}

/// Bytes that no two places share, so that a wrong range is a wrong content.
pub(crate) fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 16) as u8
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn model_files() -> Vec<(&'static str, Vec<u8>)> {
    let index = format!(r#"{{"weight_map": {{"a": "{SHARD}", "b": "model-00002-of-00002.safetensors"}}}}"#);
    vec![
        ("README.md", b"# card".to_vec()),
        ("chat_template.jinja", b"{{ messages }}".to_vec()),
        ("config.json", br#"{"model_type": "gpt_oss"}"#.to_vec()),
        ("generation_config.json", b"{}".to_vec()),
        ("metal/model.bin", noise(9, 8000)),
        (SHARD, noise(1, SHARD_BYTES)),
        ("model-00002-of-00002.safetensors", noise(2, 60_000)),
        ("model.safetensors.index.json", index.into_bytes()),
        ("original/model.safetensors", noise(8, 9000)),
        ("tokenizer.json", noise(3, 5000)),
    ]
}

impl World {
    pub(crate) fn new() -> Self {
        let hub = LoopbackHub::start();
        let commit = hub.publish(MODEL, &model_files());
        let rows = [("README.md", b"# rows".to_vec()), ("data/train-00000-of-00001.parquet", noise(4, 7000))];
        hub.publish(ROWS, &rows);
        Self { hub, dir: tempfile::tempdir().unwrap(), commit }
    }

    pub(crate) fn cache(&self) -> Cache {
        Cache::new(self.dir.path().join("hub"))
    }

    pub(crate) fn config(&self) -> HubConfig {
        HubConfig {
            endpoint: self.hub.endpoint(),
            patience: Patience {
                stall: Duration::from_millis(300),
                tries: 4,
                pause: Duration::from_millis(2),
                ..Patience::default()
            },
            ..HubConfig::default()
        }
    }

    pub(crate) fn with_token(&self, token: &str) -> HubConfig {
        HubConfig { token: Secret::new(token), ..self.config() }
    }

    pub(crate) fn download(&self) -> Result<Fetched, Error> {
        self.download_with(self.config(), "hf://openai/gpt-oss-20b", &())
    }

    pub(crate) fn download_with(
        &self,
        config: HubConfig,
        reference: &str,
        watch: &dyn Watch,
    ) -> Result<Fetched, Error> {
        Hub::new(config, self.cache())?.download(&Reference::parse(reference)?, false, watch)
    }

    /// Everything below the test's folder, with the bytes of regular files.
    pub(crate) fn tree(&self) -> Vec<(String, Vec<u8>)> {
        tree(self.dir.path())
    }

    /// Blobs that have their name and not the content it promises.
    pub(crate) fn bad_blobs(&self) -> Vec<String> {
        let good: Vec<Vec<u8>> = model_files().into_iter().map(|(_, bytes)| bytes).collect();
        let blobs = self.tree().into_iter().filter(|(name, _)| name.contains("/blobs/"));
        let finished = blobs.filter(|(name, _)| !name.ends_with(".incomplete"));
        finished.filter(|(_, bytes)| !good.contains(bytes)).map(|(name, _)| name).collect()
    }
}

fn tree(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            match path.symlink_metadata().unwrap() {
                metadata if metadata.is_dir() => folders.push(path),
                metadata if metadata.is_file() => found.push((name, std::fs::read(path).unwrap())),
                _ => found.push((name, Vec::new())),
            }
        }
    }
    found.sort();
    found
}

/// Remembers every event as text.
#[derive(Default)]
pub(crate) struct Notes(Mutex<Vec<String>>);

impl Watch for Notes {
    fn on(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

impl Notes {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, kind: &str) -> usize {
        self.all().iter().filter(|event| event.starts_with(kind)).count()
    }
}

/// An error with everything behind it.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
