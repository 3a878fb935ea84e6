//! As `weights.rs` of descant-model, as far as packed checkpoints need it.

#[path = "../../../../descant-model/src/weights/bitsandbytes.rs"]
mod bitsandbytes;
#[path = "../../../../descant-model/src/weights/floats.rs"]
mod floats;
#[path = "../../../../descant-model/src/weights/nf4_matrix.rs"]
mod nf4_matrix;
#[path = "../../../../descant-model/src/weights/stored.rs"]
mod stored;

use std::path::Path;

use bitsandbytes::{Made, Taken, Unpacker};
pub use nf4_matrix::unpack_nf4;
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
    // Kept packed as for a card first: whatever comes of it, also where parts are missing that are read together, the
    // unpacked tensors are what counts.
    let _ = pass(dir, config, true);
    pass(dir, config, false)
}

fn pass(dir: &Path, config: &Config, keep: bool) -> Result<Vec<Unpacked>> {
    let mut all = Vec::new();
    let mut unpacker = Unpacker::new(config, keep);
    visit_tensors(dir, |path, name, view, bytes| {
        let Taken::Made(made) = unpacker.take(path, name, &view, bytes)? else { return Ok(()) };
        for made in made {
            match made {
                Made::Unpacked(whole) => {
                    let bytes = whole.view().data().len();
                    all.push((whole.name, whole.dtype, whole.shape, bytes));
                }
                Made::Kept(kept) => {
                    let numbers: usize = kept.shape.iter().product();
                    assert_eq!(kept.stacked().blocks_len() * 2, numbers, "{}", kept.part.name());
                }
            }
        }
        Ok(())
    })?;
    unpacker.finish(dir)?;
    Ok(all)
}
