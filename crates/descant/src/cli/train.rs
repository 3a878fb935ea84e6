//! The arguments of `descant train` and `descant plan`, and where their settings come from. No behaviour.

use std::path::PathBuf;

use clap::Args;

pub(super) const TRAIN_EXAMPLES: &str = "\
Examples:
  descant train run.toml
  descant train run.toml --set train.max_steps=200 --set run.folder=runs/longer
  descant train run.toml                    run it again to resume a stopped run
  descant train run.toml --dry-run          print the resolved settings
  descant train --recipe multilingual-thinking
  descant train run.toml --cards 2          the same run on two GPUs (docs/cluster.md)
  cargo xtask train                         from the repository: the embedded default

Settings are resolved in three layers: defaults, the file, then each --set in order.
VALUE is TOML; a bare word is a string. `descant init` writes a file that explains every key.";

pub(super) const PLAN_EXAMPLES: &str = "\
Examples:
  descant plan --recipe multilingual-thinking           before you download anything
  descant plan --model openai/gpt-oss-120b --card 24GB  will it fit there?
  descant plan run.toml
  descant plan run.toml --set train.micro_batch=8 --json

Reads the model's configuration, its tokenizer and the data. Loads no weights, opens no socket, writes nothing.
For a published model that is not in the cache, plan uses its built-in shape; for missing data, train.max_sequence.
Exits with status 1 when memory or disk is too small, and suggests settings that fit if there are any.";

/// Where settings come from.
#[derive(Debug, Args)]
pub(crate) struct SettingsArgs {
    /// Settings file [default: the embedded settings, for the tiny model of the repository]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Change one setting; can be repeated [default: none]
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Chat template to use instead of the model's own; short for --set model.chat_template=PATH [default: the model's
    /// own]
    #[arg(long, value_name = "PATH")]
    pub(crate) chat_template: Option<PathBuf>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`; short for --set model.device=DEVICE [default: from the settings: auto]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Memory limit, CUDA context included, such as 12GB or 14.5GiB; `max` is all of it. Short for
    /// --set memory.limit=LIMIT [default: from the settings: all of it]
    #[arg(long, value_name = "LIMIT")]
    pub(crate) memory: Option<String>,
}

/// `descant train`
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line are independent of each other")]
pub(crate) struct Train {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Run a recipe instead of a settings file: tiny or multilingual-thinking [default: none]
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    pub(crate) recipe: Option<String>,
    /// Use several GPUs of this machine, one process each: a number, `all`, or indices such as 0,3. The result is the
    /// same for any number. With the device `cpu`, so many worker processes [default: one; torchrun and Slurm are
    /// understood]
    #[arg(long, value_name = "CARDS")]
    pub(crate) cards: Option<crate::cards::Cards>,
    /// Use only the cache and open no socket to a network [default: HF_HUB_OFFLINE, or off]
    #[arg(long)]
    pub(crate) offline: bool,
    /// Check and print the resolved settings, then exit [default: off]
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Replace the run in the folder [default: resume it if it is the same run, else refuse]
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the summary as one JSON object [default: a table]
    #[arg(long)]
    pub(crate) json: bool,
    /// Print every count of the evaluation as a table [default: key figures only]
    #[arg(long)]
    pub(crate) table: bool,
    /// An option of other commands and trainers.
    #[arg(long = "model", hide = true, value_parser = |value: &str| setting("model.path", value))]
    _model: Option<String>,
    /// Another one.
    #[arg(long = "data", hide = true, value_parser = |value: &str| setting("data.path", value))]
    _data: Option<String>,
}

/// Says how a setting is given that has no option.
fn setting(key: &str, value: &str) -> Result<String, String> {
    Err(format!("it is a setting: write --set {key}={value}"))
}

/// `descant plan`
#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Plan a recipe instead of a settings file: tiny or multilingual-thinking [default: none]
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    pub(crate) recipe: Option<String>,
    /// Plan this model: a repository such as openai/gpt-oss-120b, or a folder. Without a settings file, use the
    /// settings of `descant init` and no data [default: the model in the settings]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Plan for a CUDA GPU that is not here: its name, such as "RTX 3060", or its memory, such as 24GB
    /// [default: the device in the settings]
    #[arg(long, value_name = "CARD", value_parser = crate::gpus::wanted, conflicts_with = "device")]
    pub(crate) card: Option<crate::gpus::Wanted>,
    /// Print one JSON object [default: a table]
    #[arg(long)]
    pub(crate) json: bool,
}
