//! `descant report`: makes a run's page again from its files, and sets several runs side by side.

use anyhow::{Context as _, Result, anyhow};

use crate::cli::Report;
use crate::failure::Exit;
use crate::report::{RunFiles, render, side_by_side};
use crate::talk::Talk;

/// Reads, renders, writes.
pub(crate) fn run(args: &Report, talk: Talk) -> Result<Exit> {
    let runs = args.runs.iter().map(|folder| RunFiles::read(folder)).collect::<Result<Vec<_>>>()?;
    let (path, html) = match runs.as_slice() {
        [] => return Err(anyhow!("no run was named")),
        [run] => {
            let path = args.out.clone().unwrap_or_else(|| run.folder.join("report.html"));
            (path, render(run))
        }
        several => {
            let path = args.out.clone().unwrap_or_else(|| "report.html".into());
            (path, side_by_side(several))
        }
    };
    descant_files::write_atomic(&path, html.as_bytes())
        .with_context(|| format!("write {}", path.display()))?;
    talk.item("report", path.display());
    Ok(Exit::Success)
}
