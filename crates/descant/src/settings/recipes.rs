//! Recipes: settings of known runs that ship with the binary, and the files that they need beside a hub's.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};

use super::DEFAULT_TOML;
use crate::failure::Hinted;

/// A run that is known by name.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its settings, commented.
    pub(crate) toml: &'static str,
    /// Files that its settings name, each with the path that they name it by.
    files: &'static [(&'static str, &'static str)],
}

/// All of them.
const RECIPES: [Recipe; 2] = [
    Recipe { name: "tiny", toml: DEFAULT_TOML, files: &[] },
    Recipe {
        name: "multilingual-thinking",
        toml: include_str!("../../../../recipes/multilingual-thinking/run.toml"),
        files: &[(
            "recipes/multilingual-thinking/held-out.jsonl",
            include_str!("../../../../recipes/multilingual-thinking/held-out.jsonl"),
        )],
    },
];

impl Recipe {
    /// The recipe of this name.
    pub(crate) fn find(name: &str) -> Result<&'static Self> {
        RECIPES.iter().find(|recipe| recipe.name == name).ok_or_else(|| {
            let known = RECIPES.iter().map(|recipe| recipe.name).collect::<Vec<_>>().join(", ");
            Hinted::new(anyhow!("no recipe `{name}`"), format!("there is: {known}")).into()
        })
    }

    /// The text of the file that its settings name by this path, where it brings it.
    pub(crate) fn text(&self, path: &Path) -> Option<&'static str> {
        self.files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| *text)
    }

    /// Writes those of its files that are not there; the paths are from the current folder, as all paths of settings.
    /// A file that somebody changed stays as it is. Tells which were written.
    pub(crate) fn lay_out(&self) -> Result<Vec<&'static str>> {
        let mut written = Vec::new();
        for (name, text) in self.files {
            let path = Path::new(name);
            if path.exists() {
                continue;
            }
            if let Some(folder) = path.parent() {
                descant_files::create_dirs(folder)?;
            }
            descant_files::write_atomic(path, text.as_bytes()).with_context(|| format!("write {name}"))?;
            written.push(*name);
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::resolve_text;

    #[test]
    fn the_tutorials_run_is_the_tutorials() {
        let recipe = Recipe::find("multilingual-thinking").unwrap();
        let settings = resolve_text(recipe.name, recipe.toml, &[]).unwrap().settings;
        settings.validate().unwrap();
        assert_eq!(settings.model.path, Path::new("hf://openai/gpt-oss-20b"));
        assert_eq!(settings.data.path, Path::new("hf://datasets/HuggingFaceH4/Multilingual-Thinking"));
        assert_eq!(settings.data.mask, descant_harmony::MaskPolicy::Assistant);
        let train = &settings.train;
        assert_eq!(train.micro_batch, descant_train::MicroBatch::Auto);
        assert_eq!((train.max_steps, train.units()), (60, 16));
        assert_eq!((train.warmup_steps, train.max_sequence, train.seed), (5, 4096, 3407));
        assert!((train.learning_rate - 2e-4).abs() < 1e-12 && (train.weight_decay - 0.01).abs() < 1e-9);
        assert_eq!(train.schedule, descant_train::Schedule::Linear);
        assert_eq!((settings.lora.r, settings.lora.targets.len()), (8, 4));
        assert!((settings.lora.alpha - 16.0).abs() < 1e-9);
        assert!(recipe.toml.lines().all(|line| line.len() <= 120));
    }

    #[test]
    fn every_file_that_a_recipe_names_is_one_of_its_files() {
        for recipe in &RECIPES {
            let settings = resolve_text(recipe.name, recipe.toml, &[]).unwrap().settings;
            let held_out = settings.data.held_out.unwrap();
            // The tiny model's are in the repository, and nowhere else.
            let there = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(&held_out).is_file();
            let own = recipe.files.iter().any(|(name, _)| Path::new(name) == held_out);
            assert!(own || (recipe.name == "tiny" && there), "{}", recipe.name);
        }
        assert!(Recipe::find("nothing").unwrap_err().to_string().contains("no recipe `nothing`"));
    }
}
