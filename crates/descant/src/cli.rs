//! The commands, and the options of all of them; the arguments of each are in `cli/`. No behaviour.
//!
//! The help texts are the reference: `docs/cli.md` is generated from them, and a test keeps the two equal.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod bench;
mod data;
mod evaluate;
mod export;
mod generate;
mod model;
mod setup;
mod status;
mod train;

pub(crate) use bench::{Bench, BenchCompare, BenchGenerate, BenchStep, KernelChoice, Measured, SelfTest};
pub(crate) use data::{
    Data, DataCommand, Files, Preview, Render, Tokenizer, TokenizerBuild, TokenizerCommand,
};
pub(crate) use evaluate::{Evaluate, Report, Score};
pub(crate) use export::Export;
pub(crate) use generate::{Chat, Generate, SamplingArgs};
pub(crate) use model::ModelArgs;
pub(crate) use setup::{Completions, Doctor, Download, Init, ManPages};
pub(crate) use train::{Plan, SettingsArgs, Train};

use evaluate::{EVALUATE_EXAMPLES, REPORT_EXAMPLES, SCORE_EXAMPLES};
use export::EXPORT_EXAMPLES;
use generate::{CHAT_EXAMPLES, GENERATE_EXAMPLES};
use setup::{COMPLETIONS_EXAMPLES, DOCTOR_EXAMPLES, DOWNLOAD_EXAMPLES, INIT_EXAMPLES, MAN_EXAMPLES};
use status::EXIT_STATUS;
use train::{PLAN_EXAMPLES, TRAIN_EXAMPLES};

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
