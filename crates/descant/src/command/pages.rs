//! The report and the curves for TensorBoard, written at every save, so that a long run can be looked at while it
//! continues.

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

    /// Called before a checkpoint, when the logs are on the disk. A page that cannot be made must not end a run; a disk
    /// that takes none would not take the checkpoint either.
    fn logs(&mut self) -> descant_train::Result<LogLengths> {
        match RunFiles::read(&self.folder) {
            Ok(run) => write(&run)?,
            Err(error) => tracing::warn!("no page of {} can be made: {error:#}", self.folder.display()),
        }
        Ok(LogLengths::new())
    }
}

/// Writes what is made of a run's files: the page, and the curves.
///
/// # Errors
/// The disk refuses.
pub(crate) fn write(run: &RunFiles) -> descant_files::Result<()> {
    descant_files::write_atomic(&run.folder.join("report.html"), render(run).as_bytes())?;
    let events = run.folder.join(EVENTS);
    if let Some(folder) = events.parent() {
        descant_files::create_dirs(folder)?;
    }
    descant_files::write_atomic(&events, &event_file(&run.steps, &run.timings))
}
