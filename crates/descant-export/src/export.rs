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
    let name = adapter.base_model.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| {
        job.model.file_name().map_or_else(|| "gpt-oss".to_owned(), |name| name.to_string_lossy().into_owned())
    });
    let mut report = Report::new(job.form, name);
    report.passed_over.clone_from(&adapter.passed_over);
    report.changed = adapter.sites.len();
    if job.form.is_merged() {
        merged(job, config, adapter.sites, report, watch)
    } else {
        adapter_only(job, &config, adapter, report, watch)
    }
}
