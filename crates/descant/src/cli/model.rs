//! Arguments that several commands share: model, adapter, device, memory; and parsers for bounded numbers.

use std::path::PathBuf;

use clap::Args;

/// Most of anything that is counted here: products of two of them stay far within 64 bits.
const MOST: usize = 1 << 24;

pub(super) fn positive(text: &str) -> Result<usize, String> {
    count(text).ok().filter(|number| *number > 0).ok_or_else(|| format!("expected a number from 1 to {MOST}"))
}

/// The first new token comes with the prompt: a rate needs another.
pub(super) fn several(text: &str) -> Result<usize, String> {
    count(text).ok().filter(|number| *number > 1).ok_or_else(|| format!("expected a number from 2 to {MOST}"))
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| *number <= MOST)
        .ok_or_else(|| format!("expected a number from 0 to {MOST}"))
}

/// Where a model is computed.
#[derive(Debug, Args)]
pub(crate) struct DeviceArg {
    /// Device for the model: `auto` for the first CUDA GPU if this build has CUDA and finds one, else the CPU; or `cpu`,
    /// `cuda`, `cuda:N`
    #[arg(id = "device", long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) name: String,
}

/// Which model.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Model directory, or a cached repository as hf://OWNER/NAME [default: the embedded model, fixtures/tiny-gpt-oss]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// Adapter directory, as written by PEFT or `descant train` [default: none]
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArg,
    /// Memory limit, CUDA context included, such as 12GB or 14.5GiB; `max` is all of it
    #[arg(long, value_name = "LIMIT", default_value = "max")]
    pub(crate) memory: crate::settings::Limit,
}
