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
  descant generate --model gpt-oss-20b --input questions.jsonl --out replies.jsonl --cards 2
  descant generate --model gpt-oss-20b --ids 200006,77944 --max-new-tokens 64 --greedy --json

--json prints {\"ids\": [new tokens only], \"stop\": REASON}, and with a PROMPT also \"text\"; several replies are printed
one a line, with \"prompt\", \"effort\", \"sample\" and \"side\".
REASON is \"stop_token\" (an id from generation_config.json, which is the last of ids), \"length\" or \"context\".
--logprobs adds \"log_probabilities\" (nats, before temperature and filters), and \"top\" with the N most likely tokens.

Each row of --input is a conversation as `descant train` reads it, or {\"prompt\": TEXT}; an existing reply is dropped.
Each row of --out is that conversation with the new reply, ready for `descant train`. Run the command again to
generate only what is missing.";

pub(crate) const CHAT_EXAMPLES: &str = "\
Examples:
  descant chat --model gpt-oss-20b
  descant chat --model gpt-oss-20b --adapter runs/first/adapter --language German
  printf 'What is 71 + 26?\\n/effort high\\nAnd 88 + 10?\\n' | descant chat --greedy

In the conversation, /help lists the commands. Ctrl-C stops a reply, Ctrl-D exits.
Arrow keys edit the line and find earlier ones, which are kept in the user's cache (descant/chat-history).
If standard input is not a terminal, each line is a message and replies are plain text.";

/// How tokens are chosen.
#[derive(Debug, Args)]
pub(crate) struct SamplingArgs {
    /// Always take the most likely token [default: sample]
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p", "seed"])]
    pub(crate) greedy: bool,
    /// Flatten (above 1) or sharpen (below 1) the distribution; 0 means --greedy
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    pub(crate) temperature: f32,
    /// Sample only from the K most likely tokens [default: all]
    #[arg(long, value_name = "K", default_value_t = 0, hide_default_value = true)]
    pub(crate) top_k: u32,
    /// Sample only from the most likely tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub(crate) top_p: f32,
    /// Sample only from tokens at least this many times as likely as the most likely one
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) min_p: f32,
    /// Above 1, make tokens that already occurred less likely
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
    /// User message; several are answered in one batch [default: none; --ids or --input instead]
    #[arg(value_name = "PROMPT", required_unless_present_any = ["ids", "input"], conflicts_with_all = ["ids", "input"])]
    pub(crate) prompts: Vec<String>,
    /// Token ids to continue, separated by commas [default: none; PROMPT instead]
    #[arg(long, value_name = "IDS", value_delimiter = ',', conflicts_with = "input")]
    pub(crate) ids: Vec<u32>,
    /// Conversations to continue, JSON lines or parquet [default: none; PROMPT instead]
    #[arg(long, value_name = "FILE", requires = "out")]
    pub(crate) input: Option<PathBuf>,
    /// File for the replies to --input, one row each; existing replies are kept [default: none]
    #[arg(long, value_name = "FILE", requires = "input")]
    pub(crate) out: Option<PathBuf>,
    /// Replace --out if it was made with other settings [default: refuse]
    #[arg(long, requires = "out")]
    pub(crate) force: bool,
    /// Developer instructions before the prompt [default: none]
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["ids", "input"])]
    pub(crate) developer: Option<String>,
    /// Language to reason in, requested as in the training set [default: none requested]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["ids", "input"])]
    pub(crate) language: Option<String>,
    /// Reasoning effort: low, medium or high; several, separated by commas, side by side [default: medium; with
    /// --input, each row's own]
    #[arg(long, value_name = "EFFORTS", value_delimiter = ',', conflicts_with = "ids")]
    pub(crate) effort: Vec<String>,
    /// Replies to each prompt, at each effort
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub(crate) n: usize,
    /// Also answer with the base [default: on with an adapter and a PROMPT]
    #[arg(long, requires = "adapter", conflicts_with = "no_compare")]
    pub(crate) compare: bool,
    /// Answer with the adapter only [default: see --compare]
    #[arg(long)]
    pub(crate) no_compare: bool,
    /// Date in the system message
    #[arg(long, default_value = "2025-08-05", conflicts_with = "ids")]
    pub(crate) date: String,
    /// Chat template to use instead of the model's own [default: the model's own]
    #[arg(long, value_name = "PATH", conflicts_with = "ids")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Maximum new tokens
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = count)]
    pub(crate) max_new_tokens: usize,
    /// Replies in a batch
    #[arg(long, value_name = "B", default_value_t = 32, value_parser = positive)]
    pub(crate) batch: usize,
    /// Spread the prompts over several GPUs of this machine, one process each: a number, `all`, or indices such as 0,3;
    /// with the device `cpu`, over so many workers [default: one; torchrun and Slurm are understood]
    #[arg(long, value_name = "CARDS", conflicts_with = "stream")]
    pub(crate) cards: Option<crate::cards::Cards>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Continue past ids that end a reply [default: stop]
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Print text as it is generated, one reply after another [default: when all replies are complete]
    #[arg(long, conflicts_with_all = ["json", "input", "ids", "logprobs"])]
    pub(crate) stream: bool,
    /// Report log-probabilities of the chosen tokens and the N most likely ones [default: none]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "0", require_equals = true)]
    #[arg(value_parser = count)]
    pub(crate) logprobs: Option<usize>,
    /// Print one JSON object for each reply [default: text]
    #[arg(long)]
    pub(crate) json: bool,
}

/// `descant chat`
#[derive(Debug, Args)]
pub(crate) struct Chat {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Developer instructions before the conversation [default: none]
    #[arg(long, value_name = "TEXT")]
    pub(crate) developer: Option<String>,
    /// Language to reason in, requested as in the training set [default: none requested]
    #[arg(long, value_name = "NAME")]
    pub(crate) language: Option<String>,
    /// Reasoning effort: low, medium or high
    #[arg(long, value_name = "EFFORT", default_value = "medium")]
    pub(crate) effort: String,
    /// Show the base's reply before each reply of the adapter [default: only on /compare]
    #[arg(long, requires = "adapter")]
    pub(crate) compare: bool,
    /// Date in the system message
    #[arg(long, default_value = "2025-08-05")]
    pub(crate) date: String,
    /// Chat template to use instead of the model's own [default: the model's own]
    #[arg(long = "chat-template", value_name = "PATH")]
    pub(crate) template: Option<PathBuf>,
    /// Maximum tokens in a reply, reasoning included
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = positive)]
    pub(crate) max_new_tokens: usize,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}
