//! The arguments, and the texts of `--help`. No behaviour.
//!
//! The help texts are the reference: `docs/cli.md` is made of them, and a test keeps the two equal.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  done, and the answer is no
  2  error: arguments, settings, files, or a bug
  3  the training diverged: loss or gradient is no longer a number
  4  the device's memory is too small
  130, 143  stopped by SIGINT or SIGTERM; the same command goes on from what was saved";

const TRAIN_EXAMPLES: &str = "\
Examples:
  descant train run.toml
  descant train run.toml --set train.max_steps=200 --set run.folder=runs/longer
  descant train run.toml                    the same command again: goes on where it was stopped
  descant train run.toml --dry-run          print the settings that would hold
  cargo xtask train                         from the repository: the embedded default

Settings come in three layers: defaults, then the file, then every --set in turn.
VALUE is TOML; a bare word is a string. `descant init` writes a file that explains every key.";

const EVALUATE_EXAMPLES: &str = "\
Examples:
  descant evaluate run.toml --adapter runs/first/adapter
  descant evaluate run.toml --set evaluate.prompts=20 --json > base.json
  descant evaluate run.toml --adapter runs/first/adapter --at-least 95 || echo not good enough";

const GENERATE_EXAMPLES: &str = "\
Examples:
  descant generate --model gpt-oss-20b --adapter runs/first/adapter 'Solve 3x + 3 = 9.'
  descant generate --model gpt-oss-20b --developer 'reasoning language: German' 'What is 71 + 26?'
  descant generate --model gpt-oss-20b --ids 200006,77944 --max-new-tokens 64 --greedy --json

--json prints {\"ids\": [new tokens only], \"stop\": REASON}, and with a PROMPT also \"text\".
REASON is \"stop_token\" (an id that generation_config.json names; it is the last of ids) or \"length\".";

const SCORE_EXAMPLES: &str = "\
Examples:
  descant score --model gpt-oss-20b --input rows.jsonl --json > scores.jsonl

Each line of FILE is {\"ids\": [...]} or {\"ids\": [...], \"labels\": [...]}. Each line of the answer is
{\"loss\": L, \"logprobs\": [...]}: logprobs[i] is the natural logarithm of the probability of ids[i+1] after
ids[..=i], and loss the mean of -logprob over the positions whose next label is not -100 (all of them without
labels; null where none is left).";

const INIT_EXAMPLES: &str = "\
Examples:
  descant init
  descant init --out experiments/german.toml
  descant init --out -                      to the screen";

/// Fine-tune gpt-oss with LoRA on a frozen base, and prove what came out
#[derive(Debug, Parser)]
#[command(name = "descant", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = EXIT_STATUS, subcommand_required = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Holds for every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "General options")]
pub(crate) struct Global {
    /// When to colour; without colour nothing is lost [default: auto, which respects NO_COLOR and pipes]
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_default_value = true)]
    pub(crate) color: Color,
    /// Say only results, warnings and errors [default: off]
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more; -vv for everything. RUST_LOG chooses by module [default: off]
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Folder that the paths of the embedded default start from [default: the current one]
    #[arg(long, global = true, value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub(crate) root: PathBuf,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train an adapter, and measure the model before and after
    #[command(after_help = TRAIN_EXAMPLES, after_long_help = format!("{TRAIN_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Train(Train),
    /// Measure a model, with or without an adapter, on the held-out prompts
    #[command(after_help = EVALUATE_EXAMPLES, after_long_help = format!("{EVALUATE_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Evaluate(Evaluate),
    /// Continue one prompt, base and adapter side by side
    #[command(after_help = GENERATE_EXAMPLES, after_long_help = format!("{GENERATE_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Generate(Generate),
    /// Print the log probability of every token of given sequences
    #[command(after_help = SCORE_EXAMPLES, after_long_help = format!("{SCORE_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Score(Score),
    /// Write a settings file that explains every key
    #[command(after_help = INIT_EXAMPLES, after_long_help = format!("{INIT_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Init(Init),
}

/// Where settings come from.
#[derive(Debug, Args)]
pub(crate) struct SettingsArgs {
    /// Settings file [default: the embedded one, for the tiny model of the repository]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Change one setting; may be given many times [default: none]
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
}

/// `descant train`
#[derive(Debug, Args)]
pub(crate) struct Train {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Check and print the settings that would hold, and train nothing [default: off]
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Replace the run that is already in the folder [default: go on with it if it is the same, refuse if not]
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the summary as one JSON object [default: a table]
    #[arg(long)]
    pub(crate) json: bool,
}

/// `descant evaluate`
#[derive(Debug, Args)]
pub(crate) struct Evaluate {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Adapter directory, as PEFT and `descant train` write it [default: none, the base alone]
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    /// End with status 1 when the language asked is found in a smaller share of replies, at any effort, or English
    /// where none was asked [default: no such limit]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) at_least: Option<u8>,
    /// Print the counts as one JSON object [default: a table]
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which model.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Model directory [default: the embedded one, fixtures/tiny-gpt-oss]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// Adapter directory, as PEFT and `descant train` write it [default: none]
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    /// `cpu`, `cuda`, `cuda:N`, or `auto` for the first CUDA card where there is one
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

/// `descant generate`
#[derive(Debug, Args)]
pub(crate) struct Generate {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// What the user says [default: none; --ids instead]
    #[arg(required_unless_present = "ids", conflicts_with = "ids")]
    pub(crate) prompt: Option<String>,
    /// Token ids to continue, separated by commas [default: none; PROMPT instead]
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) ids: Vec<u32>,
    /// Instructions before the user's turn [default: none]
    #[arg(long, value_name = "TEXT", conflicts_with = "ids")]
    pub(crate) developer: Option<String>,
    /// Reasoning effort: low, medium or high
    #[arg(long, default_value = "medium", conflicts_with = "ids")]
    pub(crate) effort: String,
    /// Date that the system message shows
    #[arg(long, default_value = "2025-08-05", conflicts_with = "ids")]
    pub(crate) date: String,
    /// Longest continuation in tokens
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) max_new_tokens: usize,
    /// Take the likeliest token each time [default: sample]
    #[arg(long, conflicts_with_all = ["temperature", "top_p", "seed"])]
    pub(crate) greedy: bool,
    /// Flattens (above 1) or sharpens (below 1) the distribution that is sampled
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    pub(crate) temperature: f32,
    /// Sample only among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub(crate) top_p: f32,
    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value_t = 3407)]
    pub(crate) seed: u64,
    /// Go on after an id that ends a reply [default: stop there]
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Print one JSON object [default: text]
    #[arg(long)]
    pub(crate) json: bool,
}

/// `descant score`
#[derive(Debug, Args)]
pub(crate) struct Score {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Sequences, one JSON object a line [default: none, it must be given; - reads standard input]
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Print one JSON object a line [default: loss and perplexity a line]
    #[arg(long)]
    pub(crate) json: bool,
}

/// `descant init`
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// File to write; - for standard output
    #[arg(long, value_name = "FILE", default_value = "run.toml")]
    pub(crate) out: PathBuf,
    /// Replace the file when it exists [default: refuse]
    #[arg(long)]
    pub(crate) force: bool,
}
