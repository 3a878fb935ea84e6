//! The arguments of the commands before a first run: `descant init`, `download`, `doctor`, `completions` and `man`. No
//! behaviour.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::model::DeviceArg;

pub(super) const INIT_EXAMPLES: &str = "\
Examples:
  descant init
  descant init --out experiments/german.toml
  descant init --out -                      print to standard output
  descant init --recipe multilingual-thinking
  descant init --schema --out run.schema.json

Editors with TOML support complete and check run.toml if its first line is `#:schema run.schema.json`.";

pub(super) const DOWNLOAD_EXAMPLES: &str = "\
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

pub(super) const DOCTOR_EXAMPLES: &str = "\
Examples:
  descant doctor
  descant doctor --json --offline
  descant doctor --model openai/gpt-oss-20b    load it and check its loss

Each line is one check: ok, - (optional) or NO (a run will fail), followed by what to do.
Exits with status 1 if any line says NO. The token is never printed.";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  descant completions bash > ~/.local/share/bash-completion/completions/descant
  descant completions zsh > ~/.zfunc/_descant
  descant completions fish > ~/.config/fish/completions/descant.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  descant man --out ~/.local/share/man/man1";

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
    /// Memory limit for --model, CUDA context included, such as 12GB or 14.5GiB; `max` is all of it
    #[arg(long, value_name = "LIMIT", default_value = "max")]
    pub(crate) memory: crate::settings::Limit,
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
