//! What is published under known names: the shapes of models and the sizes of data sets, so that a run can be planned
//! with nothing in the cache and no network.
//!
//! Shapes are the published `config.json` files, kept under `fixtures/configs`. Nothing here is used to train: a run
//! reads what it fetched.

use anyhow::{Result, anyhow};
use descant_hub::{Kind, Repo};
use descant_model::{Config, Packing, weight_bytes};

const SMALL: &[u8] = include_bytes!("../../../fixtures/configs/gpt-oss-20b.json");
const LARGE: &[u8] = include_bytes!("../../../fixtures/configs/gpt-oss-120b.json");

/// Models: the repository, the shape, how its matrices are packed.
const MODELS: [(&str, &[u8], Packing); 8] = [
    ("openai/gpt-oss-20b", SMALL, Packing::Mxfp4),
    ("openai/gpt-oss-120b", LARGE, Packing::Mxfp4),
    ("openai/gpt-oss-safeguard-20b", SMALL, Packing::Mxfp4),
    ("openai/gpt-oss-safeguard-120b", LARGE, Packing::Mxfp4),
    ("unsloth/gpt-oss-20b-BF16", SMALL, Packing::Plain),
    ("unsloth/gpt-oss-120b-BF16", LARGE, Packing::Plain),
    ("unsloth/gpt-oss-20b-unsloth-bnb-4bit", SMALL, Packing::Nf4),
    ("unsloth/gpt-oss-120b-unsloth-bnb-4bit", LARGE, Packing::Nf4),
];

/// A data set, as its own card describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataSet {
    repo: &'static str,
    /// Rows of the training split.
    pub(crate) rows: u64,
    /// Bytes of text that a conversation has once.
    text_bytes: u64,
    /// Bytes of its files.
    pub(crate) download: u64,
    /// Where these numbers are from.
    pub(crate) source: &'static str,
}

/// The card states 8,900,623 bytes, in which every text is there twice: in columns of its own and in `messages`.
const DATA: [DataSet; 1] = [DataSet {
    repo: "HuggingFaceH4/Multilingual-Thinking",
    rows: 1000,
    text_bytes: 8_900_623 / 2,
    download: 5_290_171,
    source: "the data set's card at revision d57770a",
}];

/// Bytes of text that a token of gpt-oss covers, in English and its neighbours.
const BYTES_A_TOKEN: u64 = 4;
/// Tokens of a conversation that are not its text: the system message, roles and channels.
const TOKENS_AROUND: u64 = 70;

impl DataSet {
    /// The data set of this repository, if it is known.
    pub(crate) fn find(repo: &Repo) -> Option<&'static Self> {
        let known = DATA.iter().find(|known| known.repo == repo.id());
        known.filter(|_| repo.kind() == Kind::Dataset)
    }

    /// Tokens of a row on the average, estimated from its bytes.
    pub(crate) fn tokens_a_row(&self) -> u64 {
        self.text_bytes / self.rows / BYTES_A_TOKEN + TOKENS_AROUND
    }
}

/// The shape of a published model.
pub(crate) fn config(repo: &Repo) -> Option<Config> {
    let (_, text, packing) =
        MODELS.iter().find(|(name, ..)| repo.kind() == Kind::Model && *name == repo.id())?;
    let config = Config::from_slice(text).expect("a test reads every published shape");
    Some(Config { packing: *packing, ..config })
}

/// Bytes of its weights as they are fetched; the small files beside them are 30 MB.
pub(crate) fn download(config: &Config) -> u64 {
    weight_bytes(config, true)
}

/// The error for a model whose shape nobody knows here.
pub(crate) fn unknown(repo: &Repo) -> anyhow::Error {
    let names: Vec<&str> = MODELS.iter().map(|(name, ..)| *name).collect();
    let error = anyhow!("{repo} is not in the cache, and its shape is not built in");
    let hint = format!("`descant download {repo}` fetches it; built in are {}", names.join(", "));
    crate::failure::Hinted::new(error, hint).into()
}

/// The setting that `--model NAME` means: a folder where there is one, else a repository of a hub.
pub(crate) fn model_setting(given: &str) -> Result<String> {
    let is_folder = std::path::Path::new(given).is_dir();
    if !is_folder && !descant_hub::Reference::is_meant(given) && crate::words::is_hub_name(given) {
        return Ok(format!("hf://{given}"));
    }
    let owner = MODELS.iter().find(|(name, ..)| name.strip_prefix("openai/") == Some(given));
    if let (false, Some((name, ..))) = (is_folder, owner) {
        let error = anyhow!("folder {given} does not exist");
        return Err(
            crate::failure::Hinted::new(error, format!("the published model is --model {name}")).into()
        );
    }
    Ok(given.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(id: &str) -> Repo {
        Repo::new(Kind::Model, id).unwrap()
    }

    #[test]
    fn every_shape_is_read_and_its_download_is_what_is_published() {
        for (name, _, packing) in MODELS {
            assert_eq!(config(&repo(name)).unwrap().packing, packing, "{name}");
        }
        // `total_size` of the published index of shards.
        let bytes = download(&config(&repo("openai/gpt-oss-20b")).unwrap());
        assert!((13_760_000_000..13_764_000_000).contains(&bytes), "{bytes}");
        assert_eq!(config(&repo("openai/gpt-4")), None);
        let data = Repo::new(Kind::Dataset, "openai/gpt-oss-20b").unwrap();
        assert_eq!(config(&data), None, "a data set of that name is another thing");
        assert!(unknown(&repo("a/b")).to_string().contains("its shape is not built in"));
    }

    #[test]
    fn a_name_is_a_folder_first_then_a_repository() {
        assert_eq!(model_setting("openai/gpt-oss-120b").unwrap(), "hf://openai/gpt-oss-120b");
        assert_eq!(model_setting("hf://openai/gpt-oss-120b").unwrap(), "hf://openai/gpt-oss-120b");
        // This crate's own folder is the current one.
        assert_eq!(model_setting("src/command").unwrap(), "src/command");
        assert!(model_setting("gpt-oss-20b").is_err());
        assert_eq!(model_setting("./gpt-oss-20b").unwrap(), "./gpt-oss-20b");
    }

    #[test]
    fn a_row_of_the_recipe_has_about_eleven_hundred_tokens() {
        let data = Repo::new(Kind::Dataset, "HuggingFaceH4/Multilingual-Thinking").unwrap();
        assert_eq!(DataSet::find(&data).unwrap().tokens_a_row(), 1182);
    }
}
