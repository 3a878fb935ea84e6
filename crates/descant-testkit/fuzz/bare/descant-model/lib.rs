//! Of descant-model what reads bytes from outside, as it is, without the tensors: so that fuzzing builds no burn.

#[path = "../../../../descant-model/src/config.rs"]
mod config;
#[path = "../../../../descant-model/src/error.rs"]
mod error;
#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../../../../descant-model/src/layouts.rs"]
mod layouts;
#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../../../../descant-model/src/names.rs"]
mod names;
#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../../../../descant-model/src/plain.rs"]
mod plain;
#[path = "../../../../descant-model/src/rope.rs"]
mod rope;
#[path = "../../../../descant-model/src/shards.rs"]
mod shards;
#[path = "../../../../descant-model/src/site.rs"]
mod site;
mod weights;

pub use config::{Config, LayerType, MAX_CONFIG_BYTES};
pub use error::{Error, Result};
pub use layouts::*;
pub use names::*;
pub use rope::{Rope, Yarn};
pub use shards::{TensorPlace, identity_files, tensor_places};
pub use descant_kernels::SiteKind;
pub use site::Site;
pub use weights::{Unpacked, unpack_nf4, unpacked};

/// Every tensor of a directory, as the loading of weights sees it: its name and how long it is.
///
/// # Errors
/// As the loading of weights.
pub fn tensors(dir: &std::path::Path) -> Result<Vec<(String, usize)>> {
    let mut all = Vec::new();
    shards::visit_tensors(dir, |_, name, view, _| {
        all.push((name.to_owned(), view.data().len()));
        Ok(())
    })?;
    Ok(all)
}
