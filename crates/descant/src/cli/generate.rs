//! The arguments of `descant generate` and `descant chat`.

use std::path::PathBuf;

use clap::Args;

use super::model::{ModelArgs, count, positive};

pub(crate) const GENERATE_EXAMPLES: &str = "\
Examples:
  descant generate --model gpt-oss-20b --adapter runs/first/adapter 'Solve 3x + 3 = 9.'
  descant generate --model gpt-oss-20b --effort low,medium,high 'What is 71 + 26?' 'Compute 88 + 10.'
  descant generate --model gpt-oss-20b --stream --language German 'What is 71 + 26?'
  descant generate --model gpt-oss-20b --input questions.jsonl --out replies.jsonl --n 4
  descant generate --model gpt-oss-20b --ids 200006,77944 --max-new-tokens 64 --greedy --json

--json prints {\"ids\": [new tokens only], \"stop\": REASON}, and with a PROMPT also \"text\"; where there is more than one
reply, a line each with its \"prompt\", \"effort\", \"sample\" and \"side\".
REASON is \"stop_token\" (an id that generation_config.json names; it is the last of ids), \"length\" or \"context\".
--logprobs adds \"log_probabilities\" (nats, before temperature and filters), and \"top\" with the likeliest N.

Each row of --input is what `descant train` reads, or {\"prompt\": TEXT}; a reply that it already has is left out. Each
row of --out is that conversation with the reply, for `descant train` to read. The same command again asks what is
missing.";

pub(crate) const CHAT_EXAMPLES: &str = "\
Examples:
  descant chat --model gpt-oss-20b
  descant chat --model gpt-oss-20b --adapter runs/first/adapter --language German
  printf 'What is 71 + 26?\\n/effort high\\nAnd 88 + 10?\\n' | descant chat --greedy

In the conversation, /help lists what can be typed beside messages. Ctrl-C stops a reply, Ctrl-D ends the program.
Where standard input is no terminal, each line is a message, and replies are plain text. A build with the feature
`editing` keeps what was typed in the user's cache for the arrow keys (descant/chat-history).";

/// How tokens are chosen.
#[derive(Debug, Args)]
pub(crate) struct SamplingArgs {
    /// Take the likeliest token each time [default: sample]
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p", "seed"])]
    pub(crate) greedy: bool,
    /// Flattens (above 1) or sharpens (below 1) the distribution that is sampled; 0 is --greedy
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    pub(crate) temperature: f32,
    /// Sample only among the K likeliest tokens [default: all]
    #[arg(long, value_name = "K", default_value_t = 0, hide_default_value = true)]
    pub(crate) top_k: u32,
    /// Sample only among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub(crate) top_p: f32,
    /// Sample only among tokens at least this many times as likely as the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) min_p: f32,
    /// Above 1, tokens that were there already become less likely
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    pub(crate) repetition_penalty: f32,
    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value_t = 3407)]
    pub(crate) seed: u64,
}

/// `descant generate`
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line are independent of each other")]
pub(crate) struct Generate {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// What the user says; several are asked together [default: none; --ids or --input instead]
    #[arg(value_name = "PROMPT", required_unless_present_any = ["ids", "input"], conflicts_with_all = ["ids", "input"])]
    pub(crate) prompts: Vec<String>,
    /// Token ids to continue, separated by commas [default: none; PROMPT instead]
    #[arg(long, value_name = "IDS", value_delimiter = ',', conflicts_with = "input")]
    pub(crate) ids: Vec<u32>,
    /// Conversations to continue, JSON lines or parquet [default: none; PROMPT instead]
    #[arg(long, value_name = "FILE", requires = "out")]
    pub(crate) input: Option<PathBuf>,
    /// Where the replies to --input go, a row each; what is there already is not asked again [default: none]
    #[arg(long, value_name = "FILE", requires = "input")]
    pub(crate) out: Option<PathBuf>,
    /// Replace --out where it was made in another way [default: refuse]
    #[arg(long, requires = "out")]
    pub(crate) force: bool,
    /// Instructions before the user's turn [default: none]
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["ids", "input"])]
    pub(crate) developer: Option<String>,
    /// Language to reason in, asked for as in the training set [default: not asked for]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["ids", "input"])]
    pub(crate) language: Option<String>,
    /// Reasoning effort: low, medium or high; several, separated by commas, side by side [default: medium; with
    /// --input, each row's own]
    #[arg(long, value_name = "EFFORTS", value_delimiter = ',', conflicts_with = "ids")]
    pub(crate) effort: Vec<String>,
    /// Replies to each prompt, at each effort
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub(crate) n: usize,
    /// Also ask the base [default: with an adapter and a PROMPT]
    #[arg(long, requires = "adapter", conflicts_with = "no_compare")]
    pub(crate) compare: bool,
    /// Ask only the adapter [default: see --compare]
    #[arg(long)]
    pub(crate) no_compare: bool,
    /// Date that the system message shows
    #[arg(long, default_value = "2025-08-05", conflicts_with = "ids")]
    pub(crate) date: String,
    /// Chat template in place of the model's own [default: the model's own]
    #[arg(long, value_name = "PATH", conflicts_with = "ids")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Longest continuation in tokens
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = count)]
    pub(crate) max_new_tokens: usize,
    /// Replies that are made at once
    #[arg(long, value_name = "B", default_value_t = 32, value_parser = positive)]
    pub(crate) batch: usize,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Go on after an id that ends a reply [default: stop there]
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Show text as it comes, one reply after the other [default: when all is there]
    #[arg(long, conflicts_with_all = ["json", "input", "ids", "logprobs"])]
    pub(crate) stream: bool,
    /// Report log-probabilities of the chosen tokens, and of the N likeliest [default: none]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "0", require_equals = true)]
    #[arg(value_parser = count)]
    pub(crate) logprobs: Option<usize>,
    /// Print one JSON object a reply [default: text]
    #[arg(long)]
    pub(crate) json: bool,
}

/// `descant chat`
#[derive(Debug, Args)]
pub(crate) struct Chat {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Instructions that stand before the conversation [default: none]
    #[arg(long, value_name = "TEXT")]
    pub(crate) developer: Option<String>,
    /// Language to reason in, asked for as in the training set [default: not asked for]
    #[arg(long, value_name = "NAME")]
    pub(crate) language: Option<String>,
    /// Reasoning effort: low, medium or high
    #[arg(long, value_name = "EFFORT", default_value = "medium")]
    pub(crate) effort: String,
    /// Show the base's reply before the adapter's each time [default: on /compare]
    #[arg(long, requires = "adapter")]
    pub(crate) compare: bool,
    /// Date that the system message shows
    #[arg(long, default_value = "2025-08-05")]
    pub(crate) date: String,
    /// Chat template in place of the model's own [default: the model's own]
    #[arg(long = "chat-template", value_name = "PATH")]
    pub(crate) template: Option<PathBuf>,
    /// Longest reply in tokens, reasoning included
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = positive)]
    pub(crate) max_new_tokens: usize,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}
