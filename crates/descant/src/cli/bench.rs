//! The arguments of `descant bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::model::{DeviceArg, count, positive, several};
use super::status::EXIT_STATUS;

pub(super) const EXAMPLES: &str = "\
Examples:
  descant bench step --batch 2 --sequence 128 --device cpu                 the embedded model
  descant bench step --model gpt-oss-20b --batch 4 --sequence 4096 --json
  descant bench step --model gpt-oss-20b --accumulate 4 --sequence 1024 --memory 14.5GiB
  descant bench step --model gpt-oss-20b --cards 2 --accumulate 8 --sequence 4096
  descant bench generate --model gpt-oss-20b --batch 32 --context 1024 --rank 8
  descant bench --self-test                                                check this GPU
  descant bench compare kept.jsonl new.jsonl                               name what got slower

A step is forward, backward, clipping and optimizer on random ids; every position has a label. The operator table
(CUDA only) comes from one more step that records their times. A floor is the minimum time for an operator's
operations and bytes at the rates measured in the same process.";

/// `descant bench`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) self_test: SelfTest,
    #[command(subcommand)]
    pub(crate) what: Option<Measured>,
}

/// `descant bench --self-test`
#[derive(Debug, Args)]
pub(crate) struct SelfTest {
    /// Check this GPU, in five minutes at most and with no download: operators and training steps against the CPU, the
    /// same bits twice, rates against the GPU's own products; ends with a block of text to paste into an issue [default:
    /// measure what a command names]
    #[arg(long = "self-test", required = true)]
    wanted: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArg,
    /// Kernels to test: those that the GPU's table chooses, or the portable ones, which every GPU since Ampere can run
    #[arg(long, value_enum, default_value_t = KernelChoice::Auto)]
    pub(crate) kernels: KernelChoice,
    /// Print one JSON object [default: a block of text]
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `descant bench` measures.
#[derive(Debug, Subcommand)]
pub(crate) enum Measured {
    /// Time training steps
    #[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"))]
    Step(BenchStep),
    /// Time generation: time to first token, tokens a second, and the share of the memory-bandwidth limit
    #[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"))]
    Generate(BenchGenerate),
    /// Compare two files of rows that --json printed, and name what got slower; no GPU is needed
    #[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"))]
    Compare(BenchCompare),
}

/// `descant bench compare`
#[derive(Debug, Args)]
pub(crate) struct BenchCompare {
    /// The rows that were kept, one JSON object a line
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,
    /// The new rows
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,
    /// Differences up to this are noise, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0, value_parser = percent)]
    pub(crate) slower: f64,
}

/// A share that noise may have.
fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..100.0).contains(&share) => Ok(share),
        _ => Err("expected a number of percent from 0 to below 100".to_owned()),
    }
}

/// What both measure, and where.
#[derive(Debug, Args)]
pub(crate) struct BenchOn {
    /// Model directory [default: the embedded one, fixtures/tiny-gpt-oss]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArg,
    /// GPU memory limit, CUDA context included: bytes, or such as 14.5GiB; `max` is all of it
    #[arg(long, value_name = "LIMIT", default_value = "max")]
    pub(crate) memory: crate::settings::Limit,
    /// Print one JSON object [default: a table]
    #[arg(long)]
    pub(crate) json: bool,
}

/// `descant bench generate`
#[derive(Debug, Args)]
pub(crate) struct BenchGenerate {
    #[command(flatten)]
    pub(crate) on: BenchOn,
    /// Prompts at once
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = positive)]
    pub(crate) batch: usize,
    /// Prompts in all; one that ends makes room for the next [default: as many as at once]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) prompts: Option<usize>,
    /// Tokens in each prompt
    #[arg(long, value_name = "T", default_value_t = 64, value_parser = positive)]
    pub(crate) context: usize,
    /// New tokens for each prompt
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = several)]
    pub(crate) new: usize,
    /// Apply this adapter [default: base only]
    #[arg(long, value_name = "DIR", conflicts_with = "rank")]
    pub(crate) adapter: Option<PathBuf>,
    /// Apply an untrained adapter of this rank on attention; it costs as much as a trained one [default: none]
    #[arg(long, value_name = "R", value_parser = positive)]
    pub(crate) rank: Option<usize>,
    /// Put that adapter on router and experts too [default: attention only]
    #[arg(long, requires = "rank")]
    pub(crate) experts: bool,
}

/// Which kernels a GPU runs
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KernelChoice {
    /// By compute capability
    Auto,
    /// For every GPU since Ampere
    Portable,
}

impl KernelChoice {
    /// Has what this thread queues from here on take them.
    pub(crate) fn take(self) {
        #[cfg(feature = "cuda")]
        descant_kernels::cuda::portable_kernels(self == Self::Portable);
        let _ = self;
    }

    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Portable => "portable",
        }
    }
}

/// `descant bench step`
#[derive(Debug, Args)]
pub(crate) struct BenchStep {
    #[command(flatten)]
    pub(crate) on: BenchOn,
    /// Sequences in a micro-batch
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = positive)]
    pub(crate) batch: usize,
    /// Tokens in each sequence
    #[arg(long, value_name = "T", default_value_t = 1024, value_parser = positive)]
    pub(crate) sequence: usize,
    /// Micro-batches in one optimizer step
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub(crate) accumulate: usize,
    /// Train the experts too [default: attention only]
    #[arg(long)]
    pub(crate) experts: bool,
    /// Multiply with the experts' frozen weights in fp8, as train.experts = "fp8" does, and measure how far such a step is
    /// from one in bf16; a Hopper GPU [default: bf16]
    #[arg(long)]
    pub(crate) fp8: bool,
    /// Measure the same step on one card, then shared by several: a number, `all`, or indices such as 0,3; with the
    /// device `cpu`, by so many workers. The micro-batches of --accumulate are dealt to them [default: one]
    #[arg(long, value_name = "CARDS")]
    pub(crate) cards: Option<crate::cards::Cards>,
    /// Stream weights from host memory as if the bus had this many bytes a second, such as 25GB [default: the real bus]
    #[arg(long, value_name = "RATE", value_parser = crate::settings::bytes)]
    pub(crate) bus: Option<u64>,
    /// Kernels to use: those that the GPU's table chooses, or the portable ones, which every GPU since Ampere can run
    #[arg(long, value_name = "KERNELS", value_enum, default_value_t = KernelChoice::Auto)]
    pub(crate) kernels: KernelChoice,
    /// Activations to keep from forward to backward: auto, minimal, balanced, all, or a number of bytes
    #[arg(long, value_name = "POLICY", default_value = "auto")]
    pub(crate) keep: descant_kernels::Keep,
    /// Timed steps
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = positive)]
    pub(crate) steps: usize,
    /// Untimed steps before them
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count)]
    pub(crate) warmup: usize,
}
