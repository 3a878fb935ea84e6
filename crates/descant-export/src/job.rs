//! What is asked for, and who hears how far it is.

use std::ops::ControlFlow;
use std::path::Path;

use crate::form::{Experts, Form};

/// What to export.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The adapter's folder, PEFT's or mlx-lm's.
    pub adapter: &'a Path,
    /// The base model's folder; for adapters its configuration alone is read.
    pub model: &'a Path,
    /// What to write.
    pub form: Form,
    /// What becomes of experts that the update reaches, in `mxfp4` and `gguf`.
    pub experts: Experts,
    /// Where to.
    pub out: &'a Path,
    /// Whether an export that is there is replaced.
    pub force: bool,
    /// Whether to write although the update does not survive, or the base has to be packed again with a loss.
    pub allow_loss: bool,
}

impl<'a> Job<'a> {
    /// One that rounds experts with feedback, replaces nothing and refuses losses.
    pub fn new(adapter: &'a Path, model: &'a Path, form: Form, out: &'a Path) -> Self {
        Self { adapter, model, form, experts: Experts::Feedback, out, force: false, allow_loss: false }
    }
}

/// How far an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes that will be written.
    Planned(u64),
    /// Bytes that were written, in all.
    Written(u64),
}

/// Hears how far an export is, and may stop it.
pub type Watch<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;
