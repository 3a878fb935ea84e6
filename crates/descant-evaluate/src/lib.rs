//! What a fine-tune is judged by: questions and suites, the judge of one reply, counts, intervals and claims.
//!
//! Nothing here decodes, trains, draws or prints. Replies come from whoever has a model; every figure follows from
//! `samples.jsonl` alone and can be made again from it.
//!
//! 1. [`Suite`]s hold [`Question`]s, which become [`Prompt`]s.
//! 2. [`Samples`] keep what was replied.
//! 3. [`judge`] says what one reply is: valid or which defect, ended or not, in which language, right or wrong.
//! 4. [`Evaluation`] counts verdicts, compares before with after, and says what is shown and what is not.

mod answer;
mod ask;
mod cell;
mod change;
mod chars;
mod claim;
mod error;
mod evaluation;
mod headline;
mod judge;
mod language;
mod languages;
mod latin;
mod loops;
mod loss;
mod number;
mod pieces;
mod prose;
mod question;
mod reading;
mod samples;
pub mod statistics;
mod suites;
mod threshold;

pub use answer::Answer;
pub use ask::{Prompt, missing, prompts, reply};
pub use cell::{Cell, Reasoning, Verdicts};
pub use change::{Change, Claim, EffortLengths, FEWEST, Measure, Method, Monotone, SpillOver, change};
pub use error::{Error, Result};
pub use evaluation::{Evaluation, Evaluations, Judged, Origin, SamplesFile, Side, VERSION, verdicts};
pub use headline::points;
pub use judge::{Asked, Verdict, judge};
pub use language::{Detector, Spoken, TELLS_LATIN_APART};
pub use languages::{Language, name_of};
pub use loss::{FirstToken, LossChange, Losses, Mean};
pub use pieces::{letters_weight, sentences};
pub use question::{Question, requested};
pub use reading::{Analysis, End, Reading, recipients};
pub use samples::{AskedHow, Batch, First, Header, Key, Loss, Nats, Reply, Samples, Source, Writer};
pub use suites::{NAMES as SUITES, Suite, check_ids};
pub use threshold::Threshold;
