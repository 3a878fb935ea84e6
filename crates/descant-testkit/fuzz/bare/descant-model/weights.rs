//! As `weights.rs` of descant-model, as far as packed checkpoints need it.

#[path = "../../../../descant-model/src/weights/bitsandbytes.rs"]
mod bitsandbytes;
#[path = "../../../../descant-model/src/weights/floats.rs"]
mod floats;

use std::path::Path;

pub use bitsandbytes::unpack_nf4;
use bitsandbytes::{Taken, Unpacker};
use floats::floats;
use safetensors::Dtype;

use crate::config::Config;
use crate::error::Result;
use crate::shards::visit_tensors;

/// A tensor that came out of packed ones: its name, type and shape, and how many bytes it has.
pub type Unpacked = (String, Dtype, Vec<usize>, usize);

/// Unpacks the checkpoint of a directory.
///
/// # Errors
/// As the loading of weights, which then holds what comes out against the configuration.
pub fn unpacked(dir: &Path, config: &Config) -> Result<Vec<Unpacked>> {
    let (mut unpacker, mut all) = (Unpacker::new(config), Vec::new());
    visit_tensors(dir, |path, name, view| {
        if let Taken::Whole(whole) = unpacker.take(path, name, &view)? {
            all.push((whole.name, whole.dtype, whole.shape, whole.bytes.len()));
        }
        Ok(())
    })?;
    unpacker.finish(dir)?;
    Ok(all)
}
