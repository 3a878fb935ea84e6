//! The arguments, and the texts of `--help`. No behaviour.
//!
//! The help texts are the reference: `docs/cli.md` is generated from them, and a test keeps the two equal.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

mod bench;
mod data;
mod generate;
mod model;
mod status;

pub(crate) use bench::{Bench, BenchCompare, BenchGenerate, BenchStep, KernelChoice, Measured, SelfTest};
pub(crate) use data::{
    Data, DataCommand, Files, Preview, Render, Tokenizer, TokenizerBuild, TokenizerCommand,
};

pub(crate) use generate::{Chat, Generate, SamplingArgs};
pub(crate) use model::{DeviceArg, ModelArgs};

use generate::{CHAT_EXAMPLES, GENERATE_EXAMPLES};
use status::EXIT_STATUS;

const TRAIN_EXAMPLES: &str = "\
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

const PLAN_EXAMPLES: &str = "\
Examples:
  descant plan --recipe multilingual-thinking           before you download anything
  descant plan --model openai/gpt-oss-120b --card 24GB  will it fit there?
  descant plan run.toml
  descant plan run.toml --set train.micro_batch=8 --json

Reads the model's configuration, its tokenizer and the data. Loads no weights, opens no socket, writes nothing.
For a published model that is not in the cache, plan uses its built-in shape; for missing data, train.max_sequence.
Exits with status 1 when memory or disk is too small, and suggests settings that fit if there are any.";

const EVALUATE_EXAMPLES: &str = "\
Examples:
  descant evaluate run.toml --adapter runs/first/adapter --base --out measured
  descant evaluate run.toml --suite mgsm --set evaluate.prompts=110 --json > base.json
  descant evaluate run.toml --adapter runs/first/adapter --at-least 95 || echo not good enough
  descant evaluate --from measured/samples-after.jsonl --before measured/samples-before.jsonl --table
  descant evaluate --judge replies.jsonl --json > verdicts.jsonl";

const REPORT_EXAMPLES: &str = "\
Examples:
  descant report runs/first                              works during training too
  descant report runs/first runs/second --out both.html  side by side";

const SCORE_EXAMPLES: &str = "\
Examples:
  descant score --model gpt-oss-20b --input rows.jsonl --json > scores.jsonl

Each line of FILE is {\"ids\": [...]} or {\"ids\": [...], \"labels\": [...]}. Each line of the answer is
{\"loss\": L, \"logprobs\": [...]}: logprobs[i] is the natural logarithm of the probability of ids[i+1] after
ids[..=i]; loss is the mean of -logprob over the positions whose next label is not -100 (over all positions if there
are not labels; null if none remain).";

const EXPORT_EXAMPLES: &str = "\
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

const INIT_EXAMPLES: &str = "\
Examples:
  descant init
  descant init --out experiments/german.toml
  descant init --out -                      print to standard output
  descant init --recipe multilingual-thinking
  descant init --schema --out run.schema.json

Editors with TOML support complete and check run.toml if its first line is `#:schema run.schema.json`.";

const DOWNLOAD_EXAMPLES: &str = "\
Examples:
  descant download                          openai/gpt-oss-20b
  descant download openai/gpt-oss-120b unsloth/gpt-oss-20b-BF16
  descant download datasets/HuggingFaceH4/Multilingual-Thinking
  descant download --recipe multilingual-thinking
  descant download openai/gpt-oss-20b@COMMIT --verify
  descant download ./my-model               check whether a directory is complete

Fetches only what a run needs, into the cache that the Python libraries use, and prints the folder.
An interrupted download resumes. Every file is checked against its published hash.

Environment: HF_HUB_CACHE, HF_HOME, HF_TOKEN, HF_TOKEN_PATH, HF_ENDPOINT, HF_HUB_OFFLINE; HTTPS_PROXY, NO_PROXY,
SSL_CERT_FILE. The token is sent only to the hub and never printed.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  descant doctor
  descant doctor --json --offline
  descant doctor --model openai/gpt-oss-20b    load it and check its loss

Each line is one check: ok, - (optional) or NO (a run will fail), followed by what to do.
Exits with status 1 if any line says NO. The token is never printed.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  descant completions bash > ~/.local/share/bash-completion/completions/descant
  descant completions zsh > ~/.zfunc/_descant
  descant completions fish > ~/.config/fish/completions/descant.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  descant man --out ~/.local/share/man/man1";

/// Fine-tune gpt-oss with LoRA on a frozen 4-bit base, and measure the result
#[derive(Debug, Parser)]
#[command(name = "descant", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = EXIT_STATUS, subcommand_required = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "General options")]
pub(crate) struct Global {
    /// When to use colour; no information depends on it [default: auto, which respects NO_COLOR and pipes]
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_default_value = true)]
    pub(crate) color: Color,
    /// Print only results, warnings and errors [default: off]
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print more; -vv for everything. RUST_LOG selects by module [default: off]
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Print timestamped lines instead of a progress bar, and do not wrap [default: on if output is not a terminal]
    #[arg(long, global = true)]
    pub(crate) plain: bool,
    /// Folder that paths in the embedded settings are relative to [default: the current folder]
    #[arg(long, global = true, value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub(crate) root: PathBuf,
    /// How hints call this program; `cargo xtask` names itself here
    #[arg(long, global = true, value_name = "TEXT", default_value = "descant", hide = true)]
    pub(crate) called_as: String,
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
    /// Show what a run will need before it starts: memory, steps, tokens, disk, time
    #[command(after_help = PLAN_EXAMPLES, after_long_help = format!("{PLAN_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Plan(Plan),
    /// Measure a model, with or without an adapter, on the held-out prompts
    #[command(after_help = EVALUATE_EXAMPLES, after_long_help = format!("{EVALUATE_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Evaluate(Evaluate),
    /// Rebuild a run's report from its files, or compare several runs side by side
    #[command(after_help = REPORT_EXAMPLES, after_long_help = format!("{REPORT_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Report(Report),
    /// Answer prompts with base and adapter side by side, or answer the rows of a file
    #[command(after_help = GENERATE_EXAMPLES, after_long_help = format!("{GENERATE_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Generate(Generate),
    /// Talk to a model in the terminal
    #[command(after_help = CHAT_EXAMPLES, after_long_help = format!("{CHAT_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Chat(Chat),
    /// Print the log probability of every token of given sequences
    #[command(after_help = SCORE_EXAMPLES, after_long_help = format!("{SCORE_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Score(Score),
    /// Inspect a data set: what the model sees, and which tokens are trained
    #[command(after_help = data::EXAMPLES, after_long_help = format!("{}\n\n{EXIT_STATUS}", data::EXAMPLES))]
    Data(Data),
    /// Write the gpt-oss tokenizer without a download
    #[command(after_help = data::TOKENIZER_EXAMPLES)]
    #[command(after_long_help = format!("{}\n\n{EXIT_STATUS}", data::TOKENIZER_EXAMPLES))]
    Tokenizer(Tokenizer),
    /// Write an adapter or a merged model in the format another program reads, and verify it
    #[command(after_help = EXPORT_EXAMPLES, after_long_help = format!("{EXPORT_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Export(Export),
    /// Write a settings file that explains every key
    #[command(after_help = INIT_EXAMPLES, after_long_help = format!("{INIT_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Init(Init),
    /// Time training steps or generation, and report memory and the device's measured rates
    #[command(after_help = bench::EXAMPLES, after_long_help = format!("{}\n\n{EXIT_STATUS}", bench::EXAMPLES))]
    Bench(Bench),
    /// Download models and data sets from a hub into the shared cache, or verify cached files
    #[command(after_help = DOWNLOAD_EXAMPLES, after_long_help = format!("{DOWNLOAD_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Download(Download),
    /// Check this machine (GPUs, libraries, memory, disk, caches, network) and say how to fix what is missing
    #[command(after_help = DOCTOR_EXAMPLES, after_long_help = format!("{DOCTOR_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Doctor(Doctor),
    /// Print the completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    #[command(after_long_help = format!("{COMPLETIONS_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Completions(Completions),
    /// Write a man page for each command
    #[command(after_help = MAN_EXAMPLES, after_long_help = format!("{MAN_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Man(ManPages),
}

/// A path, or nothing if the flag was given without one.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a parser of arguments")]
fn any_path(text: &str) -> Result<PathBuf, String> {
    Ok(text.into())
}

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
    /// Memory limit, CUDA context included, such as 12GB or 14.5GiB; short for --set memory.limit=LIMIT [default: from
    /// the settings: all of it]
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

/// `descant evaluate`
#[derive(Debug, Args)]
pub(crate) struct Evaluate {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Adapter directory, as written by PEFT or `descant train` [default: none, base only]
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    /// Also evaluate the base, and compare [default: one side only]
    #[arg(long)]
    pub(crate) base: bool,
    /// Questions to ask instead of those in the settings: tutorial, mgsm, general, survives, or a file; can be
    /// repeated. With --from, where the questions are [default: as in the settings or samples]
    #[arg(long, value_name = "NAME")]
    pub(crate) suite: Vec<String>,
    /// Spread the questions over several GPUs of this machine, one process each: a number, `all`, or indices such as
    /// 0,3; with the device `cpu`, over so many workers [default: one; torchrun and Slurm are understood]
    #[arg(long, value_name = "CARDS", conflicts_with_all = ["from", "judge"])]
    pub(crate) cards: Option<crate::cards::Cards>,
    /// Ask only questions with this tag [default: all]
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// Keep replies and figures in this folder; running the command again asks only what is missing [default: keep
    /// nothing]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Exit with status 1 if a measure is below a limit; can be repeated: hit, answer, valid, present, ended, right,
    /// right-given-reasoning (at each effort), spill-over (at most), right-change (low end of its interval, in points);
    /// a bare number means hit [default: no limit]
    #[arg(long, value_name = "MEASURE=PERCENT", allow_hyphen_values = true)]
    pub(crate) at_least: Vec<String>,
    /// Recompute every figure from saved replies, without model or settings [default: ask the model]
    #[arg(long, value_name = "SAMPLES", conflicts_with_all = ["adapter", "base", "judge"])]
    pub(crate) from: Option<PathBuf>,
    /// Replies of the base to compare with [default: none, one side only]
    #[arg(long, value_name = "SAMPLES", requires = "from")]
    pub(crate) before: Option<PathBuf>,
    /// Folder of the model that replied, for its tokenizer [default: the one named in the samples, else the built-in
    /// one]
    #[arg(long, value_name = "DIR", requires = "from")]
    pub(crate) model: Option<PathBuf>,
    /// Judge each line of a file, {"id", "prompt", "reply", "asked"?, "answer"?, "tools"?}, without a model [default:
    /// ask the model]
    #[arg(long, value_name = "FILE")]
    pub(crate) judge: Option<PathBuf>,
    /// Print every count as a table [default: requested and detected languages]
    #[arg(long)]
    pub(crate) table: bool,
    /// Print all figures as one JSON object; with --judge, one line each [default: text]
    #[arg(long)]
    pub(crate) json: bool,
}

/// `descant report`
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Run folders
    #[arg(value_name = "DIR", required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// HTML file to write [default: report.html in the run's folder; for several runs, in the current folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// `descant score`
#[derive(Debug, Args)]
pub(crate) struct Score {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Sequences, one JSON object a line; - reads standard input [default: none, required]
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Print one JSON object a line [default: loss and perplexity, one line a sequence]
    #[arg(long)]
    pub(crate) json: bool,
}

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
    #[arg(long, value_name = "FORM")]
    pub(crate) to: To,
    /// New folder; for gguf and gguf-lora, NAME.gguf names the file itself [default: none, required]
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,
    /// How mxfp4 and gguf write experts that the adapter changes [default: feedback]
    #[arg(long, value_name = "RULE")]
    pub(crate) experts: Option<ExpertRule>,
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
    /// Print export.json [default: a table]
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `descant export` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum To {
    /// The adapter as trained.
    Peft,
    /// One rank, alpha = rank, scaling folded into B, both expert tensors.
    PeftFolded,
    /// The adapter for mlx-lm.
    MlxAdapter,
    /// The adapter for llama.cpp.
    GgufLora,
    /// Merged, BF16, in the layout of transformers.
    Bf16,
    /// Merged, in the published layout.
    Mxfp4,
    /// Merged, for llama.cpp, LM Studio and Ollama.
    Gguf,
}

/// How experts that an adapter changes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExpertRule {
    /// MXFP4, rounded with error feedback so that the update survives.
    Feedback,
    /// MXFP4, each value rounded to the nearest: small updates are lost.
    Nearest,
    /// BF16; gguf only.
    Bf16,
}

/// `descant init`
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Write the settings of a recipe (tiny, multilingual-thinking) and the files they refer to [default: settings for
    /// gpt-oss-20b, with every key explained]
    #[arg(long, value_name = "NAME")]
    pub(crate) recipe: Option<String>,
    /// Write the JSON schema of the settings, for editors [default: settings]
    #[arg(long, conflicts_with = "recipe")]
    pub(crate) schema: bool,
    /// File to write; - for standard output [default: run.toml; with --schema standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Replace an existing file [default: refuse]
    #[arg(long)]
    pub(crate) force: bool,
}

/// `descant download`
#[derive(Debug, Args)]
pub(crate) struct Download {
    /// Repositories as OWNER/NAME or datasets/OWNER/NAME, also with @REVISION, or directories to check [default:
    /// openai/gpt-oss-20b]
    #[arg(value_name = "REPO")]
    pub(crate) repositories: Vec<String>,
    /// Download what a recipe needs: multilingual-thinking [default: none]
    #[arg(long, value_name = "NAME")]
    pub(crate) recipe: Option<String>,
    /// Hash cached files and fetch damaged ones again; with --offline only check, and exit with status 1 if any is
    /// damaged [default: compare lengths only]
    #[arg(long)]
    pub(crate) verify: bool,
    /// Open no socket [default: HF_HUB_OFFLINE, or off]
    #[arg(long)]
    pub(crate) offline: bool,
    /// Print one JSON object [default: one path a line]
    #[arg(long)]
    pub(crate) json: bool,
}

/// `descant doctor`
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Also load this model (a folder, or a cached repository such as openai/gpt-oss-20b) and check its loss on four
    /// short conversations: 4 nats a token or more means that the weights are not read correctly [default: none]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArg,
    /// Memory limit for --model, CUDA context included, such as 12GB or 14.5GiB [default: all of it]
    #[arg(long, value_name = "LIMIT", value_parser = crate::settings::bytes)]
    pub(crate) memory: Option<u64>,
    /// Open no socket [default: HF_HUB_OFFLINE, or off]
    #[arg(long)]
    pub(crate) offline: bool,
    /// Print one JSON object [default: one line a check]
    #[arg(long)]
    pub(crate) json: bool,
}

/// `descant completions`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// `descant man`
#[derive(Debug, Args)]
pub(crate) struct ManPages {
    /// Folder for descant.1, descant-train.1 and the other pages; existing pages are replaced [default: none, required]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}
