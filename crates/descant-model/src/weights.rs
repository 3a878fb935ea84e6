//! The weights of a gpt-oss checkpoint, from its files to a device.
//!
//! ```text
//! files ─▶ bitsandbytes.rs (that layout alone) ─▶ place.rs ─▶ arrived.rs ─▶ layers.rs
//!          names of the unpacked layout           one tensor   what is there  layers of it
//! ```
//!
//! Every tensor of the files is accounted for: one that is missing, extra, misshapen or mistyped is an error. Names and
//! shapes are those of `names.rs`. MXFP4 stays packed, and on a card NF4 does; `formats.rs` says what came and what did
//! not stay as it came. On the CPU everything else becomes f32; on a GPU the matrices become bf16, which is what is
//! published, and only what is small and summed (norms, sinks, biases of router and experts) is f32.

use std::path::Path;

use burn::tensor::Device;
use descant_kernels::Workspace;
use descant_quant::Packing;

use crate::config::Config;
use crate::error::Result;
use crate::placement::Placement;
use crate::shards::{left_over_index, visit_tensors};

mod arrived;
mod bitsandbytes;
mod expected;
mod floats;
mod formats;
mod layers;
mod nf4_matrix;
mod place;
mod stored;
mod types;

use bitsandbytes::{Made, Taken, Unpacker};
pub use expected::weight_bytes;
pub use formats::Formats;
pub use nf4_matrix::unpack_nf4;
use place::Placing;
pub(crate) use types::{Embedding, LayerWeights, Linear, Weights};

impl Weights {
    /// Reads the shards of `dir`.
    pub(crate) fn load(
        dir: &Path,
        config: &Config,
        device: &Device,
        workspace: &Workspace,
        placement: Placement,
    ) -> Result<Self> {
        if let Some(left_over) = left_over_index(dir)? {
            tracing::warn!("{left_over}");
        }
        let mut placing = Placing::new(dir, config, device, placement)?;
        let on_card = !descant_kernels::is_cpu(device);
        let mut unpacker = (config.packing == Packing::Nf4).then(|| Unpacker::new(config, on_card));
        visit_tensors(dir, |path, name, view, bytes| {
            let taken = match &mut unpacker {
                Some(unpacker) => unpacker.take(path, name, &view, bytes)?,
                None => Taken::Other,
            };
            match taken {
                Taken::Other => placing.tensor(path, name, &view, false),
                Taken::Made(made) => made.into_iter().try_for_each(|made| match made {
                    Made::Unpacked(whole) => {
                        placing.tensor(path, &whole.name, &whole.view(), whole.was_packed)
                    }
                    Made::Kept(kept) => placing.kept(path, &kept),
                }),
            }
        })?;
        let unpacked = unpacker.map(|unpacker| unpacker.finish(dir)).transpose()?;
        let (arrived, formats) = placing.finish(unpacked.unwrap_or_default())?;
        layers::assembled(arrived, formats, workspace, device, placement)
    }
}
