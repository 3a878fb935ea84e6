//! What can be written, and how experts are packed.

use descant_quant::mxfp4::Rounding;
use serde::Serialize;

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The adapter as it was trained.
    Peft,
    /// The adapter with one rank, alpha = rank, scaling in B, and both expert tensors.
    PeftFolded,
    /// The adapter for mlx-lm.
    MlxAdapter,
    /// The adapter for llama.cpp.
    GgufLora,
    /// The merged model in BF16, in transformers' layout.
    Bf16,
    /// The merged model in the published layout.
    Mxfp4,
    /// The merged model for llama.cpp, LM Studio and Ollama.
    Gguf,
}

impl Form {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 7] =
        [Self::Peft, Self::PeftFolded, Self::MlxAdapter, Self::GgufLora, Self::Bf16, Self::Mxfp4, Self::Gguf];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Peft => "peft",
            Self::PeftFolded => "peft-folded",
            Self::MlxAdapter => "mlx-adapter",
            Self::GgufLora => "gguf-lora",
            Self::Bf16 => "bf16",
            Self::Mxfp4 => "mxfp4",
            Self::Gguf => "gguf",
        }
    }

    /// The form with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }

    /// Whether the base's weights are part of it.
    pub fn is_merged(self) -> bool {
        matches!(self, Self::Bf16 | Self::Mxfp4 | Self::Gguf)
    }
}

/// What becomes of experts that an update reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Experts {
    /// Packed MXFP4, rounded so that what the adapter reads of the update is kept.
    Feedback,
    /// Packed MXFP4, each number rounded to the nearest.
    Nearest,
    /// Not packed.
    Bf16,
}

impl Experts {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Feedback, Self::Nearest, Self::Bf16];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Feedback => "feedback",
            Self::Nearest => "nearest",
            Self::Bf16 => "bf16",
        }
    }

    /// The rule with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }

    /// Weight of the plain error beside the one in the adapter's space; see `feedback.rs` of descant-quant.
    const STRENGTH: f64 = 1.0;

    /// How numbers are rounded; `None` where they are not packed.
    pub(crate) fn rounding(self) -> Option<Rounding> {
        match self {
            Self::Feedback => Some(Rounding::Feedback { strength: Self::STRENGTH }),
            Self::Nearest => Some(Rounding::Nearest),
            Self::Bf16 => None,
        }
    }
}

/// Which rows of a weight: GGUF and MLX keep gate and up apart, which alternate in ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Select {
    All,
    /// Gate: rows 0, 2, 4, ...
    Even,
    /// Up: rows 1, 3, 5, ...
    Odd,
}

impl Select {
    pub(crate) fn takes(self, row: usize) -> bool {
        match self {
            Self::All => true,
            Self::Even => row.is_multiple_of(2),
            Self::Odd => !row.is_multiple_of(2),
        }
    }

    /// How many of `rows`, an even number where a half is taken.
    pub(crate) fn of(self, rows: usize) -> usize {
        if self == Self::All { rows } else { rows / 2 }
    }

    /// The rows of a matrix that are taken.
    pub(crate) fn rows<T: Copy>(self, matrix: Vec<T>, width: usize) -> Vec<T> {
        if self == Self::All {
            return matrix;
        }
        let mut taken = Vec::with_capacity(matrix.len() / 2);
        let rows = matrix.chunks_exact(width).enumerate().filter(|(row, _)| self.takes(*row));
        rows.for_each(|(_, row)| taken.extend_from_slice(row));
        taken
    }
}
