//! The arguments of `descant export`. No behaviour.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use descant_export::{Experts, Form};

use super::model::DeviceArg;

pub(super) const EXPORT_EXAMPLES: &str = "\
Examples:
  descant export --adapter runs/first/adapter --to peft-folded --out german-lora
  descant export --adapter runs/first/adapter --to gguf --out german.gguf
  descant export --adapter runs/first/adapter --to mxfp4 --out german --prove
  descant export --adapter runs/first/adapter --model gpt-oss-20b --to bf16 --out german-bf16

Formats, and the programs that read them (docs/export.md has the command for each):
  peft         the adapter as trained: PEFT, recent vLLM
  peft-folded  one rank, scaling folded into B, both expert tensors: any vLLM, mistral.rs
  mlx-adapter  mlx-lm
  gguf-lora    llama.cpp's --lora
  bf16         merged, rounded once: transformers, vLLM, SGLang
  mxfp4        merged, published layout: the same programs, MLX and Ollama; a third of the size
  gguf         merged: llama.cpp, LM Studio, Ollama; --out NAME.gguf names the file itself

An export is complete or absent, and export.json reports how much of the update survived.
With --prove the exit status is 1 if the export differs from base + adapter, or keeps
less than 95 % of the loss improvement.";

/// `descant export`
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Adapter directory, as written by PEFT, Unsloth, mlx-lm or `descant train` [default: none, required]
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: PathBuf,
    /// Model directory, or a cached repository as hf://OWNER/NAME [default: the base of the run that the adapter
    /// belongs to, else the embedded model, fixtures/tiny-gpt-oss]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// Format to write [default: none, required]
    #[arg(long, value_name = "FORM", value_parser = forms())]
    pub(crate) to: Form,
    /// New folder; for gguf and gguf-lora, NAME.gguf names the file itself [default: none, required]
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,
    /// How mxfp4 and gguf write experts that the adapter changes [default: feedback]
    #[arg(long, value_name = "RULE", value_parser = rules())]
    pub(crate) experts: Option<Experts>,
    /// Write the export even if the update does not survive, or if packing experts that were never MXFP4 loses
    /// precision
    /// [default: refuse]
    #[arg(long)]
    pub(crate) allow_loss: bool,
    /// Replace an existing export [default: refuse]
    #[arg(long)]
    pub(crate) force: bool,
    /// Read the export back and compare it with base + adapter on the rows of FILE, or on the held-out rows of the
    /// adapter's run [default: compare nothing]
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "")]
    #[arg(value_parser = any_path)]
    pub(crate) prove: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArg,
    /// Memory limit of --prove, CUDA context included, such as 12GB or 14.5GiB; `max` is all of it [default: memory.limit
    /// of the adapter's run, else all of it]
    #[arg(long, value_name = "LIMIT", requires = "prove")]
    pub(crate) memory: Option<crate::settings::Limit>,
    /// Print export.json [default: a table]
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `descant export` writes, with what help says of each.
fn forms() -> impl TypedValueParser<Value = Form> {
    let help = |form| match form {
        Form::Peft => "The adapter as trained",
        Form::PeftFolded => "One rank, alpha = rank, scaling folded into B, both expert tensors",
        Form::MlxAdapter => "The adapter for mlx-lm",
        Form::GgufLora => "The adapter for llama.cpp",
        Form::Bf16 => "Merged, BF16, in the layout of transformers",
        Form::Mxfp4 => "Merged, in the published layout",
        Form::Gguf => "Merged, for llama.cpp, LM Studio and Ollama",
    };
    let values = Form::ALL.map(|form| PossibleValue::new(form.name()).help(help(form)));
    PossibleValuesParser::new(values)
        .map(|name| Form::from_name(&name).expect("the parser takes these names alone"))
}

/// How experts that an adapter changes are written.
fn rules() -> impl TypedValueParser<Value = Experts> {
    let help = |rule| match rule {
        Experts::Feedback => "MXFP4, rounded with error feedback so that the update survives",
        Experts::Nearest => "MXFP4, each value rounded to the nearest: small updates are lost",
        Experts::Bf16 => "BF16; gguf only",
    };
    let values = Experts::ALL.map(|rule| PossibleValue::new(rule.name()).help(help(rule)));
    PossibleValuesParser::new(values)
        .map(|name| Experts::from_name(&name).expect("the parser takes these names alone"))
}

/// A path, or nothing if the flag was given without one.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a parser of arguments")]
fn any_path(text: &str) -> Result<PathBuf, String> {
    Ok(text.into())
}
