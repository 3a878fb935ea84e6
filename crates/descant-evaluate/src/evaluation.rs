//! All figures of an evaluation, from samples alone: `evaluation.json`.

use descant_harmony::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::cell::{Cell, Verdicts, cells};
use crate::change::{Change, EffortLengths, Measure, SpillOver, change, effort_lengths, spill_over};
use crate::error::Result;
use crate::headline::headline;
use crate::judge::judge;
use crate::language::Detector;
use crate::loss::{Losses, loss_change};
use crate::samples::Samples;
use crate::statistics::CONFIDENCE;
use crate::suites::Suite;

/// Version of `evaluation.json`.
pub const VERSION: u32 = 2;
/// Efforts of gpt-oss, less first.
const LADDER: [&str; 3] = ["low", "medium", "high"];

/// The figures of one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Replies that were judged.
    pub replies: u64,
    /// Counts.
    pub cells: Vec<Cell>,
    /// Lengths by effort.
    pub effort: Vec<EffortLengths>,
    /// Losses on rows with a reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Losses>,
    /// New tokens by seconds of decoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
}

impl Side {
    /// The cell of this effort and question.
    pub fn cell(&self, effort: &str, asked: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.effort == effort && cell.asked == asked)
    }

    /// All efforts of a question together.
    pub fn pooled(&self, asked: &str) -> Option<Cell> {
        let mut cells = self.cells.iter().filter(|cell| cell.asked == asked);
        let mut pooled = Cell { effort: "all".into(), ..cells.next()?.clone() };
        cells.for_each(|cell| pooled.merge(cell));
        Some(pooled)
    }
}

/// A file that the figures were made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplesFile {
    /// Its path.
    pub path: String,
    /// SHA-256.
    pub sha256: String,
}

/// Where an evaluation of a run comes from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The model as settings name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// How was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Json>,
    /// SHA-256 of the resolved settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_sha256: Option<String>,
    /// SHA-256 of the chat template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_sha256: Option<String>,
    /// The samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Vec<SamplesFile>>,
}

/// The figures of one suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// 2.
    pub schema_version: u32,
    /// The suite's name, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// SHA-256 of its questions.
    pub questions_sha256: String,
    /// Efforts that were asked at.
    pub efforts: Vec<String>,
    /// Of every interval.
    pub confidence: f64,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// The base, or the only side there is.
    pub before: Side,
    /// The adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Side>,
    /// What changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Change>>,
    /// What changed where nothing was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spill_over: Option<SpillOver>,
    /// The sentences that a reader wants first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headline: Option<Vec<String>>,
}

/// The figures of every suite that was asked, and where they come from: `evaluation.json`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evaluations {
    /// Where they come from.
    pub origin: Origin,
    /// One for each suite.
    pub evaluations: Vec<Evaluation>,
}

/// Several suites in one file.
#[derive(Serialize, Deserialize)]
struct Several {
    schema_version: u32,
    #[serde(flatten)]
    origin: Origin,
    suites: Vec<Evaluation>,
}

impl Serialize for Evaluations {
    /// One suite as it is; several as a list under `suites`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.evaluations.as_slice() {
            [one] => Evaluation { origin: self.origin.clone(), ..one.clone() }.serialize(serializer),
            several => {
                let (origin, suites) = (self.origin.clone(), several.to_vec());
                Several { schema_version: VERSION, origin, suites }.serialize(serializer)
            }
        }
    }
}

impl Evaluations {
    /// Reads what was serialized.
    ///
    /// # Errors
    /// It is none of version 2.
    pub fn from_json(json: Json) -> Result<Self, serde_json::Error> {
        if json.get("suites").is_some() {
            let Several { origin, suites, .. } = serde_json::from_value(json)?;
            return Ok(Self { origin, evaluations: suites });
        }
        let one: Evaluation = serde_json::from_value(json)?;
        Ok(Self { origin: one.origin.clone(), evaluations: vec![one] })
    }

    /// The evaluation that a headline speaks of: the first that asked for languages, else the first.
    pub fn main(&self) -> Option<&Evaluation> {
        let asks = |evaluation: &&Evaluation| evaluation.before.cells.iter().any(|cell| cell.asked == "any");
        self.evaluations.iter().find(asks).or_else(|| self.evaluations.first())
    }

    /// Replies to each prompt.
    pub fn replies_each(&self) -> u64 {
        let settings = self.origin.settings.as_ref();
        settings.and_then(|settings| settings.get("replies")?.as_u64()).unwrap_or(1)
    }
}

/// The verdicts on the replies to a suite.
///
/// # Errors
/// A reply without ids cannot be tokenized.
pub fn verdicts(
    suite: &Suite,
    samples: &Samples,
    tokenizer: &Tokenizer,
    detector: &Detector,
) -> Result<Verdicts> {
    let mut verdicts = Verdicts::new();
    for question in &suite.questions {
        // Keys begin with the question's id, so its replies lie together.
        let from = crate::samples::Key {
            question: question.id.clone(),
            effort: String::new(),
            asked: false,
            sample: 0,
        };
        for (key, reply) in samples.replies.range(from..).take_while(|(key, _)| key.question == question.id) {
            let verdict = judge(&reply.ids(tokenizer)?, question.judged_by(key.asked), tokenizer, detector);
            verdicts.insert(key.clone(), verdict);
        }
    }
    Ok(verdicts)
}

/// One side: samples, and the verdicts on them.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// The samples.
    pub samples: &'a Samples,
    /// The verdicts on the suite's part of them.
    pub verdicts: &'a Verdicts,
}

impl Judged<'_> {
    fn side(&self, suite: &Suite, efforts: &[String]) -> Side {
        let losses = self.losses(suite);
        Side {
            replies: self.verdicts.len() as u64,
            cells: cells(self.verdicts, efforts),
            effort: [false, true]
                .into_iter()
                .filter_map(|asked| effort_lengths(self.verdicts, asked, efforts))
                .collect(),
            loss: Losses::of(&losses),
            tokens_per_second: self.samples.tokens_per_second(),
        }
    }

    /// Losses on the suite's rows.
    fn losses(&self, suite: &Suite) -> std::collections::BTreeMap<String, crate::samples::Loss> {
        let ours = |(id, _): &(&String, &crate::samples::Loss)| suite.question(id).is_some();
        self.samples.losses.iter().filter(ours).map(|(id, loss)| (id.clone(), loss.clone())).collect()
    }
}

impl Evaluation {
    /// The figures of one side, or of two and what changed between them.
    pub fn new(suite: &Suite, before: Judged<'_>, after: Option<Judged<'_>>) -> Self {
        let asked_at = |effort: &&str| before.verdicts.keys().any(|key| key.effort == **effort);
        let efforts: Vec<String> = LADDER.iter().filter(|e| asked_at(e)).map(|e| (*e).to_owned()).collect();
        let mut evaluation = Self {
            schema_version: VERSION,
            suite: None,
            questions_sha256: suite.sha256.clone(),
            before: before.side(suite, &efforts),
            confidence: CONFIDENCE,
            origin: Origin::default(),
            after: None,
            changes: None,
            spill_over: None,
            headline: None,
            efforts,
        };
        let Some(after) = after else { return evaluation };
        let mut side = after.side(suite, &evaluation.efforts);
        if let Some(loss) = &mut side.loss {
            loss.change = loss_change(&before.losses(suite), &after.losses(suite));
        }
        let measures = || Measure::ALL.into_iter();
        let changes: Vec<Change> = [true, false]
            .into_iter()
            .flat_map(|asked| measures().map(move |measure| (asked, measure)))
            .filter(|(asked, measure)| *asked || *measure != Measure::Hit)
            .filter_map(|(asked, measure)| change(before.verdicts, after.verdicts, asked, measure, None))
            .collect();
        let spill_over = spill_over(before.verdicts, after.verdicts);
        evaluation.headline = Some(headline(&changes, spill_over.as_ref()));
        evaluation.after = Some(side);
        evaluation.changes = Some(changes);
        evaluation.spill_over = spill_over;
        evaluation
    }

    /// The change of a measure, over all efforts.
    pub fn change(&self, measure: Measure, asked: bool) -> Option<&Change> {
        self.changes.iter().flatten().find(|change| change.measure == measure && change.asked == asked)
    }

    /// The side that a reader wants to know of: the adapter's where there is one.
    pub fn latest(&self) -> &Side {
        self.after.as_ref().unwrap_or(&self.before)
    }
}
