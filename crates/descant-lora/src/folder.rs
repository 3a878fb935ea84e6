//! An adapter's folder, whoever wrote it: PEFT's form, or mlx-lm's.

use std::path::Path;

use descant_model::Config;

use crate::mlx;
use crate::peft::{self, Result, Sites};

/// Whose form a folder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// PEFT's, which Unsloth and this program write too.
    Peft,
    /// mlx-lm's.
    Mlx,
}

/// What an adapter's folder holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Folder {
    /// Whose form it has.
    pub writer: Writer,
    /// The model it was trained on, as it says itself; mlx-lm's does not.
    pub base_model: Option<String>,
    /// The commit of it, where the folder says one.
    pub revision: Option<String>,
    /// Its factors.
    pub sites: Sites,
    /// Targets that are usual for other models and match nothing in this one.
    pub passed_over: Vec<String>,
    /// In which numbers training multiplied with experts, where the folder says so.
    pub experts: Option<String>,
}

/// Reads the adapter in `dir` for `model`.
///
/// # Errors
/// As [`peft::load`] or [`mlx::load`].
pub fn read(dir: &Path, model: &Config) -> Result<Folder> {
    if mlx::is_mlx(dir) {
        let sites = mlx::load(dir, model)?;
        return Ok(Folder {
            writer: Writer::Mlx,
            base_model: None,
            revision: None,
            sites,
            passed_over: Vec::new(),
            experts: None,
        });
    }
    let peft::Adapter { config, sites, passed_over, experts } = peft::load(dir, model)?;
    let (base_model, revision) = (config.base_model, config.revision);
    Ok(Folder { writer: Writer::Peft, base_model, revision, sites, passed_over, experts })
}
