//! What an export says of itself: `export.json`, and what the command line shows.

use descant_lora::peft::PublicName;
use serde::Serialize;

use crate::form::{Experts, Form};
use crate::survival::Survival;

/// Version of `export.json`.
const SCHEMA_VERSION: u32 = 1;

/// An export, and what survived.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Version of this format.
    pub schema_version: u32,
    /// What was written.
    pub form: Form,
    /// How experts that the update reaches were written; only for merged models.
    pub experts: Option<Experts>,
    /// In which numbers training multiplied with experts, where the adapter says so.
    pub trained_experts: Option<String>,
    /// The base model's name: a repository's of a hub, else a folder's; never a path.
    pub base_model: String,
    /// The commit of it, where the adapter or its place in a hub's cache says one.
    pub base_revision: Option<String>,
    /// The files, with their sizes.
    pub files: Vec<FileRow>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Tensors written.
    pub tensors: usize,
    /// Weights that the update reaches, of the base's.
    pub changed: usize,
    /// The rank; only for adapters.
    pub rank: Option<usize>,
    /// Targets of the adapter that match nothing in this model.
    pub passed_over: Vec<String>,
    /// Tensors that no update reaches and that lost digits to a narrower type.
    pub rounded: Vec<String>,
    /// What is left of the updates together.
    pub survival: Option<Survival>,
    /// What is left of the updates to packed experts together.
    pub experts_survival: Option<Survival>,
    /// The weight with the largest error in the adapter's own space.
    pub worst: Option<String>,
    /// What became of each weight that was changed or packed again.
    pub weights: Vec<WeightRow>,
    /// How the export compares with base and adapter on rows of text.
    pub proof: Option<Proof>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileRow {
    /// Its name in the folder.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
}

/// A weight that was changed or packed again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightRow {
    /// Its name in transformers' layout.
    pub tensor: String,
    /// What is left of the update; `None` where it was only packed.
    #[serde(flatten)]
    pub survival: Option<Survival>,
    /// Where it was only packed: error in shares of the weight.
    pub repacked_error: Option<f64>,
}

/// An export, read back, beside base and adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    /// The name of the rows' file, without its folder.
    pub rows_of: String,
    /// Rows that were compared.
    pub rows: usize,
    /// Tokens that were compared.
    pub tokens: usize,
    /// Mean over the tokens of the divergence of the export from base and adapter, in nats.
    pub kl: f64,
    /// Share of the tokens at which both find the same next one likeliest.
    pub top1: f64,
    /// Loss of the base alone.
    pub loss_base: f64,
    /// Loss of base and adapter.
    pub loss_adapter: f64,
    /// Loss of the export.
    pub loss_export: f64,
    /// Of the loss that the adapter gains, the share that the export has; `None` where it gains nothing.
    pub gain_kept: Option<f64>,
    /// Whether that is good enough.
    pub passed: bool,
    /// Why not.
    pub reason: Option<String>,
}

impl Report {
    pub(crate) fn new(form: Form, base: PublicName) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            form,
            experts: None,
            trained_experts: None,
            base_model: base.name,
            base_revision: base.revision,
            files: Vec::new(),
            bytes: 0,
            tensors: 0,
            changed: 0,
            rank: None,
            passed_over: Vec::new(),
            rounded: Vec::new(),
            survival: None,
            experts_survival: None,
            worst: None,
            weights: Vec::new(),
            proof: None,
        }
    }

    pub(crate) fn wrote(&mut self, name: &str, bytes: u64) {
        self.files.push(FileRow { name: name.to_owned(), bytes });
        self.bytes += bytes;
    }

    /// The text of `export.json`.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("numbers and texts are JSON");
        text.push('\n');
        text
    }
}
