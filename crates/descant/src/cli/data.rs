//! The arguments of `descant data` and `descant tokenizer`. No behaviour.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use descant_harmony::read::{Format, OnBadRow};
use descant_harmony::{Date, MaskPolicy, ViewPolicy};
use serde::de::DeserializeOwned;

use super::status::EXIT_STATUS;

pub(super) const EXAMPLES: &str = "\
Examples:
  descant data preview train.jsonl.gz --rows 5
  descant data render --model gpt-oss-20b --input rows.jsonl --json > rendered.jsonl";

const PREVIEW_EXAMPLES: &str = "\
Examples:
  descant data preview train.parquet
  descant data preview train.jsonl --model gpt-oss-20b --mask final_only --rows 1 --from 17
  descant data preview train.jsonl --on-bad-row fail
  descant data preview train.jsonl --json > account.json

Trained tokens are marked with a bar (▌) and, in colour, in green. The exit status is 1 if there is a bad row.
FILE is parquet, JSONL or a JSON array (plain, gzip, zstd), or a folder of them. The format is detected from the keys:
messages (Hugging Face, OpenAI), conversations (ShareGPT), instruction + output (Alpaca), prompt + completion, or text
(rendered Harmony). docs/data.md lists every accepted spelling. Unused keys are counted and shown.";

const RENDER_EXAMPLES: &str = "\
Examples:
  descant data render --model gpt-oss-20b --input rows.jsonl --json
  descant data render --model gpt-oss-20b --input rows.jsonl --date 2025-08-13 --template-exact --json

--json prints an object a row: {\"id\", \"text\", \"ids\", \"messages\": [{\"role\", \"channel\", \"start\", \"body\", \"end\"}],
\"mask\": [1 where a token is trained]}, or {\"id\", \"error\"} for a rejected row. `id` is the row's own id, else its line.
`start` is a message's <|start|>, `body` its first token after <|message|>, `end` one past its closing token.
Keys that are used: messages (or another known format), tools, add_generation_prompt, template_kwargs,
reasoning_effort, model_identity, current_date.";

pub(super) const TOKENIZER_EXAMPLES: &str = "\
Examples:
  descant tokenizer build --out gpt-oss-tokenizer
  descant data render --model gpt-oss-tokenizer --input rows.jsonl --json";

/// `descant data`
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Data {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

/// What to look at.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Show conversations with their trained tokens marked, lengths, channels, languages and bad rows
    #[command(after_help = PREVIEW_EXAMPLES, after_long_help = format!("{PREVIEW_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Preview(Preview),
    /// Print the text, ids, messages and mask of every row
    #[command(after_help = RENDER_EXAMPLES, after_long_help = format!("{RENDER_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Render(Render),
}

/// Model, template and rows, as both commands take them.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// Model directory, or a cached hf://OWNER/NAME; only its tokenizer and chat template are read [default: the
    /// embedded model, fixtures/tiny-gpt-oss, if it is here, else the built-in tokenizer and template of gpt-oss]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// Chat template to use instead of the model's own [default: the model's own, else the built-in one of gpt-oss]
    #[arg(long, value_name = "PATH")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Format of the rows: messages, sharegpt, alpaca, prompt_completion or text [default: that of the first good row]
    #[arg(long, value_name = "FORMAT", value_parser = word::<Format>)]
    pub(crate) format: Option<Format>,
    /// Date in the system message of rows that give none
    #[arg(long, value_name = "D", default_value = "2025-08-05")]
    pub(crate) date: Date,
    /// Which tokens are trained: assistant, final_only or everything
    #[arg(long, value_name = "POLICY", default_value = "assistant", value_parser = word::<MaskPolicy>)]
    pub(crate) mask: MaskPolicy,
    /// What to do with a bad row: `skip` reports it and continues, `fail` stops
    #[arg(long, value_name = "DO", default_value = "skip", value_parser = word::<OnBadRow>)]
    pub(crate) on_bad_row: OnBadRow,
}

/// `descant data preview`
#[derive(Debug, Args)]
pub(crate) struct Preview {
    /// The data set: a file, a folder of files, or a cached hf://datasets/OWNER/NAME
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) files: Files,
    /// Rows to show, each with all its turns
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) rows: usize,
    /// First row to show
    #[arg(long, value_name = "ROW", default_value_t = 1)]
    pub(crate) from: u64,
    /// What is one training example: all_turns (each assistant message after its prompt as served), last_turn or
    /// whole_row
    #[arg(long, value_name = "VIEWS", default_value = "all_turns", value_parser = word::<ViewPolicy>)]
    pub(crate) views: ViewPolicy,
    /// Reasoning effort of rows that give none
    #[arg(long, default_value = "medium")]
    pub(crate) effort: String,
    /// Skip and count conversations longer than this [default: no limit]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_sequence: Option<usize>,
    /// Print the counts as one JSON object [default: conversations and tables]
    #[arg(long)]
    pub(crate) json: bool,
}

/// `descant data render`
#[derive(Debug, Args)]
pub(crate) struct Render {
    #[command(flatten)]
    pub(crate) files: Files,
    /// The rows: a file, or a cached hf://datasets/OWNER/NAME [default: none, required]
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Pass rows to the template unchanged, and let special tokens in content become control tokens, as transformers
    /// does [default: drop nulls, normalize names, never turn content into control tokens]
    #[arg(long)]
    pub(crate) template_exact: bool,
    /// Print one JSON object a row [default: the texts]
    #[arg(long)]
    pub(crate) json: bool,
}

/// `descant tokenizer`
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Tokenizer {
    #[command(subcommand)]
    pub(crate) command: TokenizerCommand,
}

/// What to make.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenizerCommand {
    /// Write tokenizer.json, tokenizer_config.json, special_tokens_map.json and chat_template.jinja as published
    #[command(after_help = TOKENIZER_EXAMPLES, after_long_help = format!("{TOKENIZER_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Build(TokenizerBuild),
}

/// `descant tokenizer build`
#[derive(Debug, Args)]
pub(crate) struct TokenizerBuild {
    /// Folder to write to; created if missing [default: none, required]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Replace existing files that differ [default: refuse]
    #[arg(long)]
    pub(crate) force: bool,
}

/// One of the words that the settings know too.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}
