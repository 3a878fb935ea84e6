//! One export, from the folders of a base and an adapter to a new one.
//!
//! Everything that can be refused from names, shapes and sizes is refused before the first byte is written. Then tensor
//! after tensor goes from the base through the sum to the disk, and nothing has its name until all of it is there.

use std::path::Path;

use descant_lora::peft::PublicName;
use descant_model::Config;

use crate::alone::adapter_only;
use crate::error::Result;
use crate::job::{Job, Watch};
use crate::merged::merged;
use crate::report::Report;

/// Writes an export. On an error nothing is left.
///
/// # Errors
/// A folder is wrong, the form cannot hold it, the update would not survive, something is at the target, `watch`
/// stops it, or the system refuses.
pub fn export(job: &Job<'_>, watch: &mut Watch<'_>) -> Result<Report> {
    let config = Config::from_dir(job.model)?;
    let adapter = descant_lora::read(job.adapter, &config)?;
    let base = base_name(adapter.base_model.as_deref(), adapter.revision.as_deref(), job.model);
    let mut report = Report::new(job.form, base);
    report.passed_over.clone_from(&adapter.passed_over);
    report.trained_experts.clone_from(&adapter.experts);
    report.changed = adapter.sites.len();
    if job.form.is_merged() {
        merged(job, config, adapter.sites, report, watch)
    } else {
        adapter_only(job, &config, adapter, report, watch)
    }
}

/// What the export calls its base: the repository that the adapter names or that the model was fetched from, else the
/// folder that the adapter or the model names. Never a path.
fn base_name(said: Option<&str>, revision: Option<&str>, model: &Path) -> PublicName {
    let said = said.and_then(PublicName::of).map(|mut said| {
        said.revision = said.revision.or_else(|| revision.map(str::to_owned));
        said
    });
    let model =
        PublicName::of(&std::path::absolute(model).unwrap_or_else(|_| model.to_owned()).to_string_lossy());
    let hub = [&said, &model].into_iter().flatten().find(|name| name.is_of_hub());
    let found = hub.or(said.as_ref()).or(model.as_ref()).cloned();
    found.unwrap_or_else(|| PublicName { name: "gpt-oss".to_owned(), revision: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_goes_before_a_folder_and_the_adapters_word_before_the_models_place() {
        let of = |said: Option<&str>, model: &str| {
            let name = base_name(said, Some("pinned"), Path::new(model));
            (name.name, name.revision.unwrap_or_default())
        };
        let named = |name: &str, revision: &str| (name.to_owned(), revision.to_owned());
        let cached = "/c/models--openai--gpt-oss-20b/snapshots/c0ffee";
        assert_eq!(of(Some("me/mine"), cached), named("me/mine", "pinned"));
        assert_eq!(of(Some("/home/me/base"), cached), named("openai/gpt-oss-20b", "c0ffee"));
        assert_eq!(of(Some(cached), "/home/me/base"), named("openai/gpt-oss-20b", "c0ffee"));
        assert_eq!(of(Some("/home/me/theirs"), "/home/me/base"), named("theirs", "pinned"));
        assert_eq!(of(None, "/home/me/base"), named("base", ""));
        assert_eq!(of(Some(".."), "/"), named("gpt-oss", ""));
    }
}
