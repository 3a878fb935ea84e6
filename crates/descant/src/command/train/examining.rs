//! The questions of a run, before and after its steps, and where the replies go.

use std::path::Path;

use anyhow::Result;
use descant_evaluate::Samples;
use descant_lora::LoraAdapters;
use descant_model::{Bare, GptOss};
use descant_train::{Event, Observer};
use descant_workers::Group;

use crate::command::examination::{Answering, Examination};
use crate::command::figures::Figures;
use crate::run_folder::{AFTER, BEFORE, EVALUATION, RunFolder};
use crate::settings::Resolved;

/// The questions of a run, and where its replies go.
pub(super) struct Examining<'a> {
    pub(super) examination: &'a Examination<'a>,
    pub(super) resolved: &'a Resolved,
    pub(super) folder: &'a RunFolder,
    /// Those who answer too.
    pub(super) group: Option<&'a Group>,
}

impl Examining<'_> {
    fn figures(&self, before: Samples, after: Option<Samples>) -> Result<Figures> {
        let suites = self.examination.suites.clone();
        Figures::new(suites, before, after, self.examination.tokenizer(), Some(&self.resolved.sha256))
    }

    /// What the base replies; an earlier process of the run may have asked already.
    pub(super) fn before(&self, model: &GptOss, observer: &mut dyn Observer) -> Result<Samples> {
        let base = Answering { model, overlay: &Bare, adapter: None };
        let before =
            self.examination.ask("before", Some(&self.folder.join(BEFORE)), &base, self.group, observer)?;
        let figures = self.figures(before.clone(), None)?;
        // For whoever looks at the run before its end.
        self.folder.write_json(EVALUATION, &figures.evaluations)?;
        observer.on(&Event::Note { label: "before", text: &figures.outcome() });
        Ok(before)
    }

    /// What the adapter replies, and all figures.
    pub(super) fn after(
        &self,
        before: Samples,
        model: &GptOss,
        adapters: &LoraAdapters,
        saved: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Figures> {
        let answering = Answering { model, overlay: adapters, adapter: Some(saved) };
        let after = self.examination.ask(
            "after",
            Some(&self.folder.join(AFTER)),
            &answering,
            self.group,
            observer,
        )?;
        let figures = self.figures(before, Some(after))?;
        observer.on(&Event::Note { label: "after", text: &figures.outcome() });
        Ok(figures)
    }
}
