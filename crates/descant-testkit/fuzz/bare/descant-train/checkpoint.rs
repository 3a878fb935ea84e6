//! As `checkpoint.rs` of descant-train, as far as the manifest needs it.

#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../../../../descant-train/src/checkpoint/defect.rs"]
mod defect;
#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../../../../descant-train/src/checkpoint/form.rs"]
mod form;
#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../../../../descant-train/src/checkpoint/manifest.rs"]
mod manifest;

pub use defect::Defect;
pub use form::{FORMAT, Identity, KEEP_AT_LEAST, LogLengths};

/// Reads a manifest and asks it what a reader of checkpoints asks.
///
/// # Errors
/// It is none.
pub fn read_manifest(bytes: &[u8]) -> Result<u64, Defect> {
    let manifest = manifest::Manifest::parse(bytes)?;
    let here = vec![("a".to_owned(), "b".to_owned())];
    let _ = (manifest.check("state.json", b"{}"), manifest.differences(&here));
    // What was read is what is written.
    assert_eq!(manifest::Manifest::parse(&manifest.to_bytes())?, manifest);
    Ok(manifest.step ^ manifest.logs.len() as u64)
}
