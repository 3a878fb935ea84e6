//! The arguments of `descant evaluate`, `descant report` and `descant score`. No behaviour.

use std::path::PathBuf;

use clap::Args;

use super::model::ModelArgs;
use super::train::SettingsArgs;

pub(super) const EVALUATE_EXAMPLES: &str = "\
Examples:
  descant evaluate run.toml --adapter runs/first/adapter --base --out measured
  descant evaluate run.toml --suite mgsm --set evaluate.prompts=110 --json > base.json
  descant evaluate run.toml --adapter runs/first/adapter --at-least 95 || echo not good enough
  descant evaluate --from measured/samples-after.jsonl --before measured/samples-before.jsonl --table
  descant evaluate --judge replies.jsonl --json > verdicts.jsonl";

pub(super) const REPORT_EXAMPLES: &str = "\
Examples:
  descant report runs/first                              works during training too
  descant report runs/first runs/second --out both.html  side by side";

pub(super) const SCORE_EXAMPLES: &str = "\
Examples:
  descant score --model gpt-oss-20b --input rows.jsonl --json > scores.jsonl

Each line of FILE is {\"ids\": [...]} or {\"ids\": [...], \"labels\": [...]}. Each line of the answer is
{\"loss\": L, \"logprobs\": [...]}: logprobs[i] is the natural logarithm of the probability of ids[i+1] after
ids[..=i]; loss is the mean of -logprob over the positions whose next label is not -100 (over all positions if there
are not labels; null if none remain).";

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
