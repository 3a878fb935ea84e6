//! The arguments, and the texts of `--help`. No behaviour.
//!
//! The help texts are the reference: `docs/cli.md` is made of them, and a test keeps the two equal.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

mod data;
mod generate;
mod model;
mod status;

pub(crate) use data::{
    Data, DataCommand, Files, Preview, Render, Tokenizer, TokenizerBuild, TokenizerCommand,
};

pub(crate) use generate::{Chat, Generate, SamplingArgs};
pub(crate) use model::ModelArgs;

use generate::{CHAT_EXAMPLES, GENERATE_EXAMPLES};
use model::{count, positive, several};
use status::EXIT_STATUS;

const TRAIN_EXAMPLES: &str = "\
Examples:
  descant train run.toml
  descant train run.toml --set train.max_steps=200 --set run.folder=runs/longer
  descant train run.toml                    the same command again: resumes where it was stopped
  descant train run.toml --dry-run          print the resolved settings
  descant train --recipe multilingual-thinking
  cargo xtask train                         from the repository: the embedded default

Settings come in three layers: defaults, then the file, then every --set in turn.
VALUE is TOML; a bare word is a string. `descant init` writes a file that explains every key.";

const PLAN_EXAMPLES: &str = "\
Examples:
  descant plan --recipe multilingual-thinking           before anything is downloaded
  descant plan --model openai/gpt-oss-120b --card 24GB  will it fit there?
  descant plan run.toml
  descant plan run.toml --set train.micro_batch=8 --json

Reads the model's configuration and tokenizer, and the data; loads no weights, opens no socket, writes nothing.
A published model that is not here is planned by its built-in shape, data that is not here by train.max_sequence.
Ends with status 1 when memory or disk do not suffice, with settings that fit where there are some.";

const EVALUATE_EXAMPLES: &str = "\
Examples:
  descant evaluate run.toml --adapter runs/first/adapter --base --out measured
  descant evaluate run.toml --suite mgsm --set evaluate.prompts=110 --json > base.json
  descant evaluate run.toml --adapter runs/first/adapter --at-least 95 || echo not good enough
  descant evaluate --from measured/samples-after.jsonl --before measured/samples-before.jsonl --table
  descant evaluate --judge replies.jsonl --json > verdicts.jsonl";

const REPORT_EXAMPLES: &str = "\
Examples:
  descant report runs/first                              also while it is training
  descant report runs/first runs/second --out both.html  side by side";

const SCORE_EXAMPLES: &str = "\
Examples:
  descant score --model gpt-oss-20b --input rows.jsonl --json > scores.jsonl

Each line of FILE is {\"ids\": [...]} or {\"ids\": [...], \"labels\": [...]}. Each line of the answer is
{\"loss\": L, \"logprobs\": [...]}: logprobs[i] is the natural logarithm of the probability of ids[i+1] after
ids[..=i], and loss the mean of -logprob over the positions whose next label is not -100 (all of them without
labels; null where none is left).";

const BENCH_EXAMPLES: &str = "\
Examples:
  descant bench step --batch 2 --sequence 128                              the embedded model on the CPU
  descant bench step --model gpt-oss-20b --device cuda --batch 4 --sequence 4096 --json
  descant bench step --model gpt-oss-20b --device cuda --accumulate 4 --sequence 1024 --memory 14.5GiB
  descant bench generate --model gpt-oss-20b --device cuda --batch 32 --context 1024 --rank 8

A step is forward, backward, clipping and the optimizer on random ids, every position a label. The table of
operators (CUDA only) is from one more step with their times recorded; a floor is the least time that an
operator's operations and bytes take at the rates measured in the same process.";

const EXPORT_EXAMPLES: &str = "\
Examples:
  descant export --adapter runs/first/adapter --to peft-folded --out german-lora
  descant export --adapter runs/first/adapter --to gguf --out german.gguf
  descant export --adapter runs/first/adapter --to mxfp4 --out german --prove
  descant export --adapter runs/first/adapter --model gpt-oss-20b --to bf16 --out german-bf16

Forms, and who reads them (docs/export.md has the command for each):
  peft         the adapter as it was trained: PEFT, newest vLLM
  peft-folded  one rank, scaling in B, both expert tensors: every vLLM, mistral.rs
  mlx-adapter  mlx-lm
  gguf-lora    llama.cpp's --lora
  bf16         merged, one rounding: transformers, vLLM, SGLang
  mxfp4        merged, the published layout: as bf16, and MLX, Ollama; a third of the size
  gguf         merged: llama.cpp, LM Studio, Ollama; --out NAME.gguf is the file itself

Everything is written whole or not at all, and export.json says what survived.
With --prove the status is 1 where the export differs from base and adapter, or
less than 95 % of the gained loss is kept.";

const INIT_EXAMPLES: &str = "\
Examples:
  descant init
  descant init --out experiments/german.toml
  descant init --out -                      to the screen
  descant init --recipe multilingual-thinking
  descant init --schema --out run.schema.json

Editors that know TOML complete and check run.toml when its first line is `#:schema run.schema.json`.";

const DOWNLOAD_EXAMPLES: &str = "\
Examples:
  descant download                          openai/gpt-oss-20b
  descant download openai/gpt-oss-120b unsloth/gpt-oss-20b-BF16
  descant download datasets/HuggingFaceH4/Multilingual-Thinking
  descant download --recipe multilingual-thinking
  descant download openai/gpt-oss-20b@COMMIT --verify
  descant download ./my-model               look whether a directory is complete

Only what a run needs is fetched. Files go to the cache that the Python libraries use; its folder is printed.
An interrupted download resumes where it stopped. Every file is compared with its published hash.

Environment: HF_HUB_CACHE, HF_HOME, HF_TOKEN, HF_TOKEN_PATH, HF_ENDPOINT, HF_HUB_OFFLINE; HTTPS_PROXY, NO_PROXY,
SSL_CERT_FILE. A token is sent to the hub alone, and never shown.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  descant doctor
  descant doctor --json --offline
  descant doctor --model openai/gpt-oss-20b --device cuda    load it, and look at its own loss

Each line is a thing that was looked at: ok, - (works without it) or NO (a run will fail), and below it what to do.
Ends with status 1 when a line says NO. The token is never shown.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  descant completions bash > ~/.local/share/bash-completion/completions/descant
  descant completions zsh > ~/.zfunc/_descant
  descant completions fish > ~/.config/fish/completions/descant.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  descant man --out ~/.local/share/man/man1";

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
    /// Lines with a clock in place of a line that is redrawn, and no wrapping [default: where there is no terminal]
    #[arg(long, global = true)]
    pub(crate) plain: bool,
    /// Folder that the paths of the embedded default start from [default: the current one]
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
    /// Say what a run would need, before it begins: memory, steps, tokens, disk, time
    #[command(after_help = PLAN_EXAMPLES, after_long_help = format!("{PLAN_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Plan(Plan),
    /// Measure a model, with or without an adapter, on the held-out prompts
    #[command(after_help = EVALUATE_EXAMPLES, after_long_help = format!("{EVALUATE_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Evaluate(Evaluate),
    /// Make a run's page again from its files, or set several runs side by side
    #[command(after_help = REPORT_EXAMPLES, after_long_help = format!("{REPORT_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Report(Report),
    /// Answer prompts, base and adapter side by side; or the rows of a file
    #[command(after_help = GENERATE_EXAMPLES, after_long_help = format!("{GENERATE_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Generate(Generate),
    /// Talk to a model in the terminal
    #[command(after_help = CHAT_EXAMPLES, after_long_help = format!("{CHAT_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Chat(Chat),
    /// Print the log probability of every token of given sequences
    #[command(after_help = SCORE_EXAMPLES, after_long_help = format!("{SCORE_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Score(Score),
    /// Look at a data set: what a model would be shown, and which of it is trained
    #[command(after_help = data::EXAMPLES, after_long_help = format!("{}\n\n{EXIT_STATUS}", data::EXAMPLES))]
    Data(Data),
    /// Make the tokenizer of gpt-oss without a download
    #[command(after_help = data::TOKENIZER_EXAMPLES)]
    #[command(after_long_help = format!("{}\n\n{EXIT_STATUS}", data::TOKENIZER_EXAMPLES))]
    Tokenizer(Tokenizer),
    /// Write an adapter, or base and adapter merged, in the form another program reads, and prove it
    #[command(after_help = EXPORT_EXAMPLES, after_long_help = format!("{EXPORT_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Export(Export),
    /// Write a settings file that explains every key
    #[command(after_help = INIT_EXAMPLES, after_long_help = format!("{INIT_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Init(Init),
    /// Time training steps or generation, with the memory they take and the device's own rates beside them
    #[command(after_help = BENCH_EXAMPLES, after_long_help = format!("{BENCH_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Bench(Bench),
    /// Fetch models and data sets of a hub into the shared cache, or verify what is there
    #[command(after_help = DOWNLOAD_EXAMPLES, after_long_help = format!("{DOWNLOAD_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Download(Download),
    /// Look at this machine: cards, libraries, memory, disk, caches, network; and what to do where something is missing
    #[command(after_help = DOCTOR_EXAMPLES, after_long_help = format!("{DOCTOR_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Doctor(Doctor),
    /// Print what a shell needs to complete commands and options
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    #[command(after_long_help = format!("{COMPLETIONS_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Completions(Completions),
    /// Write manual pages, one for each command
    #[command(after_help = MAN_EXAMPLES, after_long_help = format!("{MAN_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Man(ManPages),
}

/// `descant bench`
#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) what: Measured,
}

/// What `descant bench` measures.
#[derive(Debug, Subcommand)]
pub(crate) enum Measured {
    /// Time training steps
    #[command(after_help = BENCH_EXAMPLES, after_long_help = format!("{BENCH_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Step(BenchStep),
    /// Time generation, with the time to the first token and the share of what the bytes of a step allow
    #[command(after_help = BENCH_EXAMPLES, after_long_help = format!("{BENCH_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Generate(BenchGenerate),
}

/// `descant bench generate`
#[derive(Debug, Args)]
pub(crate) struct BenchGenerate {
    /// Model directory [default: the embedded one, fixtures/tiny-gpt-oss]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// `cpu`, `cuda`, `cuda:N`, or `auto` for the first CUDA card where there is one
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// Prompts that are continued at once
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = positive)]
    pub(crate) batch: usize,
    /// Tokens of a prompt
    #[arg(long, value_name = "T", default_value_t = 64, value_parser = positive)]
    pub(crate) context: usize,
    /// New tokens of each
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = several)]
    pub(crate) new: usize,
    /// Take part in every step with this adapter [default: the base alone]
    #[arg(long, value_name = "DIR", conflicts_with = "rank")]
    pub(crate) adapter: Option<PathBuf>,
    /// Take part with an untrained adapter of this rank on attention, which costs what a trained one does [default:
    /// none]
    #[arg(long, value_name = "R", value_parser = positive)]
    pub(crate) rank: Option<usize>,
    /// Let that adapter have router and experts too [default: attention alone]
    #[arg(long, requires = "rank")]
    pub(crate) experts: bool,
    /// Most memory of the card to use, context included, as 14.5GiB or a number of bytes [default: all of it]
    #[arg(long, value_name = "LIMIT", value_parser = crate::settings::bytes)]
    pub(crate) memory: Option<u64>,
    /// Print one JSON object [default: a table]
    #[arg(long)]
    pub(crate) json: bool,
}

/// `descant bench step`
#[derive(Debug, Args)]
pub(crate) struct BenchStep {
    /// Model directory [default: the embedded one, fixtures/tiny-gpt-oss]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// `cpu`, `cuda`, `cuda:N`, or `auto` for the first CUDA card where there is one
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// Sequences that go through the model at once
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = positive)]
    pub(crate) batch: usize,
    /// Tokens of a sequence
    #[arg(long, value_name = "T", default_value_t = 1024, value_parser = positive)]
    pub(crate) sequence: usize,
    /// Batches whose gradients make one optimizer step
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub(crate) accumulate: usize,
    /// Train the experts too [default: attention alone]
    #[arg(long)]
    pub(crate) experts: bool,
    /// Most memory of the card to use, context included, as 14.5GiB or a number of bytes [default: all of it]
    #[arg(long, value_name = "LIMIT", value_parser = crate::settings::bytes)]
    pub(crate) memory: Option<u64>,
    /// Let weights that lie on the host come as over a bus of so many bytes a second, as 25GB [default: the bus that is
    /// here]
    #[arg(long, value_name = "RATE", value_parser = crate::settings::bytes)]
    pub(crate) bus: Option<u64>,
    /// What to keep from forward to backward: auto, minimal, balanced, all, or a number of bytes
    #[arg(long, value_name = "POLICY", default_value = "auto")]
    pub(crate) keep: descant_kernels::Keep,
    /// Timed steps
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = positive)]
    pub(crate) steps: usize,
    /// Steps before them
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count)]
    pub(crate) warmup: usize,
    /// Print one JSON object [default: a table]
    #[arg(long)]
    pub(crate) json: bool,
}

/// A path, or nothing where a flag may stand without one.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a parser of arguments")]
fn any_path(text: &str) -> Result<PathBuf, String> {
    Ok(text.into())
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
    /// Chat template in place of the model's own; short for --set model.chat_template=PATH [default: the model's own]
    #[arg(long, value_name = "PATH")]
    pub(crate) chat_template: Option<PathBuf>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`; short for --set model.device=DEVICE [default: the settings', auto]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Most memory to use, on a card with the driver's own, as 12GB or 14.5GiB; short for --set memory.limit=LIMIT
    /// [default: the settings', all of it]
    #[arg(long, value_name = "LIMIT")]
    pub(crate) memory: Option<String>,
}

/// `descant train`
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line are independent of each other")]
pub(crate) struct Train {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Run a recipe in place of a settings file [default: none; there are tiny, multilingual-thinking]
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    pub(crate) recipe: Option<String>,
    /// Open no socket, take what the cache has [default: HF_HUB_OFFLINE, or off]
    #[arg(long)]
    pub(crate) offline: bool,
    /// Check and print the resolved settings, and train nothing [default: off]
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Replace the run that is already in the folder [default: resume it if it is the same, refuse if not]
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the summary as one JSON object [default: a table]
    #[arg(long)]
    pub(crate) json: bool,
    /// Print every count of the measurement as a table, beside the key figures [default: the key figures alone]
    #[arg(long)]
    pub(crate) table: bool,
}

/// `descant plan`
#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Plan a recipe in place of a settings file [default: none; there are tiny, multilingual-thinking]
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    pub(crate) recipe: Option<String>,
    /// Plan this model, a repository as openai/gpt-oss-120b or a folder; alone with the settings of `descant init` and
    /// no data [default: the settings' model]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Plan for a CUDA card of so much memory, as 24GB, that need not be here [default: the device of the settings]
    #[arg(long, value_name = "MEMORY", value_parser = crate::settings::bytes, conflicts_with = "device")]
    pub(crate) card: Option<u64>,
    /// Print one JSON object [default: a table]
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
    /// Also ask the base, and compare [default: one side alone]
    #[arg(long)]
    pub(crate) base: bool,
    /// Ask these instead of the settings' questions: tutorial, mgsm, general, survives, or a file; several times. With
    /// --from, where the questions are [default: what settings or samples name]
    #[arg(long, value_name = "NAME")]
    pub(crate) suite: Vec<String>,
    /// Ask only questions with this tag [default: all]
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// Keep replies and figures in this folder; the same command again asks only what is missing [default: nothing is
    /// kept]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// End with status 1 when a measure is below a limit, several times: hit, answer, valid, present, ended, right,
    /// right-given-reasoning (at each effort), spill-over (at most), right-change (low end of its interval, in points);
    /// a number alone is hit [default: no such limit]
    #[arg(long, value_name = "MEASURE=PERCENT", allow_hyphen_values = true)]
    pub(crate) at_least: Vec<String>,
    /// Make every figure again from kept replies, without model and settings [default: ask]
    #[arg(long, value_name = "SAMPLES", conflicts_with_all = ["adapter", "base", "judge"])]
    pub(crate) from: Option<PathBuf>,
    /// Replies of the base to compare with [default: none, one side alone]
    #[arg(long, value_name = "SAMPLES", requires = "from")]
    pub(crate) before: Option<PathBuf>,
    /// Folder of the model that replied, for its tokenizer [default: what the samples name, or the built-in one]
    #[arg(long, value_name = "DIR", requires = "from")]
    pub(crate) model: Option<PathBuf>,
    /// Judge each line of a file, {"id", "prompt", "reply", "asked"?, "answer"?, "tools"?}, without a model [default: ask]
    #[arg(long, value_name = "FILE")]
    pub(crate) judge: Option<PathBuf>,
    /// Print every count as a table [default: languages asked and found]
    #[arg(long)]
    pub(crate) table: bool,
    /// Print all figures as one JSON object; with --judge, a line each [default: text]
    #[arg(long)]
    pub(crate) json: bool,
}

/// `descant report`
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Folders of runs
    #[arg(value_name = "DIR", required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// The page [default: report.html in the run's folder; for several runs, here]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
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

/// `descant export`
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Adapter directory, as PEFT, Unsloth, mlx-lm and `descant train` write it [default: none, it must be given]
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: PathBuf,
    /// Model directory, or a repository in the cache as hf://OWNER/NAME [default: the one of the run that the
    /// adapter lies in; the embedded one, fixtures/tiny-gpt-oss, where it lies in none]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// What to write [default: none, it must be given]
    #[arg(long, value_name = "FORM")]
    pub(crate) to: To,
    /// New folder; for gguf and gguf-lora NAME.gguf is the file itself [default: none, it must be given]
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,
    /// How mxfp4 and gguf write experts that the adapter changes [default: feedback]
    #[arg(long, value_name = "RULE")]
    pub(crate) experts: Option<ExpertRule>,
    /// Write although the update does not survive, or experts that were never MXFP4 lose by being packed
    /// [default: refuse]
    #[arg(long)]
    pub(crate) allow_loss: bool,
    /// Replace the export that is already there [default: refuse]
    #[arg(long)]
    pub(crate) force: bool,
    /// Read the export back and compare it with base and adapter on the rows of FILE, or the held-out rows of the
    /// run that the adapter lies in [default: none, nothing is compared]
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "")]
    #[arg(value_parser = any_path)]
    pub(crate) prove: Option<PathBuf>,
    /// Where --prove computes: `cpu`, `cuda`, `cuda:N`, or `auto`
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// Print the account as one JSON object [default: a table]
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `descant export` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum To {
    /// The adapter as it was trained.
    Peft,
    /// One rank, alpha = rank, scaling in B, both expert tensors.
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
    /// MXFP4, rounded so that what the adapter reads of its update is kept.
    Feedback,
    /// MXFP4, each number rounded to the nearest: small updates are lost.
    Nearest,
    /// BF16; in gguf only.
    Bf16,
}

/// `descant init`
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Write the settings of a recipe (tiny, multilingual-thinking), and the files that they name [default: those of a run
    /// on gpt-oss-20b, every key explained]
    #[arg(long, value_name = "NAME")]
    pub(crate) recipe: Option<String>,
    /// Write the JSON schema of all settings instead, for editors [default: settings]
    #[arg(long, conflicts_with = "recipe")]
    pub(crate) schema: bool,
    /// File to write; - for standard output [default: run.toml; with --schema standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Replace the file when it exists [default: refuse]
    #[arg(long)]
    pub(crate) force: bool,
}

/// `descant download`
#[derive(Debug, Args)]
pub(crate) struct Download {
    /// Repositories as OWNER/NAME or datasets/OWNER/NAME, with @REVISION behind the name where one is meant; or
    /// directories to look at [default: openai/gpt-oss-20b]
    #[arg(value_name = "REPO")]
    pub(crate) repositories: Vec<String>,
    /// Fetch what a recipe needs [default: none; there is multilingual-thinking]
    #[arg(long, value_name = "NAME")]
    pub(crate) recipe: Option<String>,
    /// Hash what is in the cache already, and fetch again what is damaged; with --offline only look, and end with
    /// status 1 when something is [default: trust its length]
    #[arg(long)]
    pub(crate) verify: bool,
    /// Open no socket [default: HF_HUB_OFFLINE, or off]
    #[arg(long)]
    pub(crate) offline: bool,
    /// Print one JSON object [default: a path a line]
    #[arg(long)]
    pub(crate) json: bool,
}

/// `descant doctor`
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Also load this model, a folder or a repository in the cache as openai/gpt-oss-20b, and look at its own loss on
    /// four short conversations: 4 nats or more mean that its weights are not read as they are meant [default: none]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Where --model computes: `cpu`, `cuda`, `cuda:N`, or `auto` for the first CUDA card where there is one
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// Most memory for --model, on a card with the driver's own, as 12GB or 14.5GiB [default: all of it]
    #[arg(long, value_name = "LIMIT", value_parser = crate::settings::bytes)]
    pub(crate) memory: Option<u64>,
    /// Open no socket [default: HF_HUB_OFFLINE, or off]
    #[arg(long)]
    pub(crate) offline: bool,
    /// Print one JSON object [default: a line for each thing]
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
    /// Folder to write descant.1, descant-train.1 and the others into; pages that are there are replaced [default: none,
    /// it must be given]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}
