//! One export, from the folders of a base and an adapter to a new one.
//!
//! Everything that can be refused from names, shapes and sizes is refused before the first byte is written. Then tensor
//! after tensor goes from the base through the sum to the disk, and nothing has its name until all of it is there.

use descant_model::Config;

use crate::alone::adapter_only;
use crate::error::Result;
use crate::job::{Job, Watch};
use crate::merged::merged;
use crate::report::Report;

/// Writes an export. On an error nothing is left.
///
/// # Errors
/// A folder is wrong, the form cannot hold it, the update would not survive, something stands at the target, `watch`
/// stops it, or the system refuses.
pub fn export(job: &Job<'_>, watch: &mut Watch<'_>) -> Result<Report> {
    let config = Config::from_dir(job.model)?;
    let adapter = descant_lora::read(job.adapter, &config)?;
    let name = adapter.base_model.as_deref().and_then(public_name);
    let folder = || job.model.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.or_else(folder).unwrap_or_else(|| "gpt-oss".to_owned());
    let mut report = Report::new(job.form, name);
    report.passed_over.clone_from(&adapter.passed_over);
    report.changed = adapter.sites.len();
    if job.form.is_merged() {
        merged(job, config, adapter.sites, report, watch)
    } else {
        adapter_only(job, &config, adapter, report, watch)
    }
}

/// What others can call a base by: a name of one or two parts as it is, of a path of some machine its last part.
fn public_name(name: &str) -> Option<String> {
    let is_name = !name.starts_with(['/', '.', '~']) && name.split('/').count() <= 2 && !name.contains('\\');
    let last = name.rsplit(['/', '\\']).find(|part| !part.is_empty() && !part.chars().all(|c| c == '.'));
    if is_name && !name.is_empty() { Some(name.to_owned()) } else { last.map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_machine_is_no_name() {
        let of = |name: &str| public_name(name).unwrap_or_default();
        for name in ["openai/gpt-oss-20b", "tiny-gpt-oss", "fixtures/tiny-gpt-oss"] {
            assert_eq!(of(name), name);
        }
        for path in
            ["/home/me/models/base", "./base", "../base/", "~/base", "C:\\models\\base", "a/b/base", "/base"]
        {
            assert_eq!(of(path), "base", "{path}");
        }
        assert_eq!([of(""), of("/"), of("..")], [""; 3]);
    }
}
