//! The report and the curves for TensorBoard, written at every save, so that a long run can be looked at while it goes on.

use std::path::{Path, PathBuf};

use descant_train::checkpoint::LogLengths;
use descant_train::{Event, Observer};

use crate::report::{EVENTS, RunFiles, event_file, render};

/// Writes the page of a run.
pub(crate) struct Pages {
    folder: PathBuf,
}

impl Pages {
    /// Of this folder.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }
}

impl Observer for Pages {
    fn on(&mut self, _event: &Event<'_>) {}

    /// Called before a checkpoint, when the logs are on the disk. A page that cannot be made must not end a run.
    fn logs(&mut self) -> descant_train::Result<LogLengths> {
        if let Err(error) = RunFiles::read(&self.folder).and_then(|run| write(&run)) {
            tracing::warn!("the page of {} was not written: {error:#}", self.folder.display());
        }
        Ok(LogLengths::new())
    }
}

/// Writes what is made of a run's files: the page, and the curves.
pub(crate) fn write(run: &RunFiles) -> anyhow::Result<()> {
    descant_files::write_atomic(&run.folder.join("report.html"), render(run).as_bytes())?;
    let events = run.folder.join(EVENTS);
    if let Some(folder) = events.parent() {
        descant_files::create_dirs(folder)?;
    }
    descant_files::write_atomic(&events, &event_file(&run.steps, &run.timings))?;
    Ok(())
}
