//! From files of samples to figures: judges the replies, and writes `evaluation.json`.

use anyhow::Result;
use descant_evaluate::{
    Detector, Evaluation, Evaluations, Judged, Language, Origin, Samples, SamplesFile, Suite, Verdicts,
    verdicts,
};
use descant_harmony::Tokenizer;

use crate::report::{Sample, outcome, samples_of};

/// Samples of one or two sides, judged.
pub(crate) struct Figures {
    /// Of each suite.
    pub(crate) evaluations: Evaluations,
    /// What was asked.
    pub(crate) suites: Vec<Suite>,
    before: Samples,
    after: Option<Samples>,
}

impl Figures {
    /// Judges what was replied to these suites. `settings_sha256` is of the resolved settings, where there are some.
    pub(crate) fn new(
        suites: Vec<Suite>,
        before: Samples,
        after: Option<Samples>,
        tokenizer: &Tokenizer,
        settings_sha256: Option<&str>,
    ) -> Result<Self> {
        let languages: Vec<Language> =
            before.header.settings.languages.iter().filter_map(|code| Language::from_code(code)).collect();
        let detector = Detector::new(&languages);
        let judge = |suite: &Suite, samples: &Samples| verdicts(suite, samples, tokenizer, &detector);
        let mut all = Vec::new();
        for suite in &suites {
            let (was, now): (Verdicts, Option<Verdicts>) =
                (judge(suite, &before)?, after.as_ref().map(|samples| judge(suite, samples)).transpose()?);
            let after = after.as_ref().zip(now.as_ref());
            let after = after.map(|(samples, verdicts)| Judged { samples, verdicts });
            let mut evaluation = Evaluation::new(suite, Judged { samples: &before, verdicts: &was }, after);
            evaluation.suite = (suites.len() > 1).then(|| suite.name.clone());
            all.push(evaluation);
        }
        let known = (!before.header.model.is_empty()).then_some(&before.header);
        let file = |samples: &Samples| SamplesFile {
            path: samples
                .path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            sha256: samples.sha256.clone(),
        };
        let origin = known.map_or_else(Origin::default, |header| Origin {
            model: Some(header.model.clone()),
            adapter: after.as_ref().unwrap_or(&before).header.adapter.clone(),
            settings: serde_json::to_value(&header.settings).ok(),
            settings_sha256: settings_sha256.map(str::to_owned),
            template_sha256: Some(header.template_sha256.clone()),
            samples: Some([Some(&before), after.as_ref()].into_iter().flatten().map(file).collect()),
        });
        Ok(Self { evaluations: Evaluations { origin, evaluations: all }, suites, before, after })
    }

    /// The latest side in a few words.
    pub(crate) fn outcome(&self) -> String {
        let replies = self.evaluations.replies_each();
        self.evaluations.main().map(|main| outcome(main, replies)).unwrap_or_default()
    }

    /// The first questions of each effort that asked for a language, with the replies of both sides; of a suite that
    /// asks for none, the first of all. Never chosen.
    pub(crate) fn samples(&self, most: usize) -> Vec<Sample> {
        samples_of(&self.suites, &self.before, self.after.as_ref(), most)
    }
}
