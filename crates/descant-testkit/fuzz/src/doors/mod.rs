//! The doors by name, each with inputs to begin from.

mod exports;
mod files;
mod models;
mod numbers;
mod packed;
mod runs;
mod texts;

use std::path::{Path, PathBuf};

/// What is done with an input.
pub(crate) type Door = Box<dyn Fn(&[u8]) + Send + Sync>;
/// A door and its seeds.
pub(crate) type Opened = (Door, Vec<Vec<u8>>);

/// The door of this name.
pub(crate) fn open(name: &str) -> Option<Opened> {
    Some(match name {
        "names" => files::names(),
        "config" => models::config(),
        "shard" => models::shard(),
        "nf4" => packed::nf4(),
        "index" => models::index(),
        "tokenizer" => texts::tokenizer(),
        "template" => texts::template(),
        "rows" => texts::rows(),
        "array" => texts::array(),
        "prepared" => texts::prepared(),
        "parquet" => texts::parquet(),
        "conversation" => texts::conversation(),
        "ids" => texts::ids(),
        "packing" => numbers::packing(),
        "mxfp4" => numbers::mxfp4(),
        "adapter-config" => models::adapter_config(),
        "adapter" => models::adapter(),
        "gguf" => exports::gguf(),
        "export" => exports::export(),
        "checkpoint" => runs::checkpoint(),
        "settings" => runs::settings(),
        "listing" => runs::listing(),
        // Not in the list: a fault on purpose, to show that faults are found.
        "planted" => files::planted(),
        _ => return None,
    })
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fixtures")
}

fn fixture(name: &str) -> Vec<u8> {
    let path = fixtures().join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Writes without asking for the disk: a file that lives for one input.
fn put(path: &Path, bytes: &[u8]) {
    let written =
        std::fs::File::create(path).and_then(|mut file| std::io::Write::write_all(&mut file, bytes));
    written.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// A folder for the files of this process, in memory where there is a place for that.
fn folder() -> PathBuf {
    descant_testkit::scratch().keep()
}
