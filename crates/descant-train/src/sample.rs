//! What the loop learns from: tokens, and how much each one counts.

use std::borrow::Cow;
use std::fmt::Debug;

use crate::error::{Error, Result};

/// One training sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Number of the row it comes from, as its reader numbers rows; for messages only.
    pub row: usize,
    /// Token ids.
    pub ids: Vec<u32>,
    /// Weight of the loss of predicting each token; 0 where it is not trained. The first token is never predicted.
    pub weights: Vec<f32>,
    /// Index of the first token of the analysis body, where the choice of language falls.
    pub first_analysis: Option<usize>,
}

impl Sample {
    /// Checks that tokens and weights belong together.
    ///
    /// # Errors
    /// Names the row and what is wrong.
    pub fn check(&self) -> Result<()> {
        let bad = |reason: String| Err(Error::Sample { row: self.row, reason });
        if self.ids.len() != self.weights.len() {
            return bad(format!("{} tokens but {} weights", self.ids.len(), self.weights.len()));
        }
        if let Some(weight) = self.weights.iter().find(|w| !w.is_finite() || **w < 0.0) {
            return bad(format!("a loss weight is {weight}; expected 0 or more"));
        }
        Ok(())
    }

    /// The tokens that carry loss: position of the token before, the token, its weight.
    pub(crate) fn targets(&self) -> impl Iterator<Item = Target> {
        (1..self.ids.len()).filter(|&i| self.weights[i] > 0.0).map(|i| Target {
            row: i - 1,
            id: self.ids[i],
            weight: self.weights[i],
            is_first_analysis: self.first_analysis == Some(i),
        })
    }
}

/// The samples of a run, wherever they are kept: of a million, only those of a step need to be in memory.
///
/// Lengths are asked for much more often than samples, and must cost nothing.
pub trait Samples: Debug + Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// Tokens of one; `at` is below [`count`](Self::count), here and below.
    fn tokens(&self, at: usize) -> usize;

    /// Tokens of one that carry loss, without a first token, which is never predicted.
    fn trained(&self, at: usize) -> usize;

    /// The number of its row, for messages.
    fn row(&self, at: usize) -> usize;

    /// One of them.
    ///
    /// # Errors
    /// It cannot be read.
    fn get(&self, at: usize) -> Result<Cow<'_, Sample>>;
}

/// Samples in memory.
impl<T: AsRef<[Sample]> + Debug + Sync> Samples for T {
    fn count(&self) -> usize {
        self.as_ref().len()
    }

    fn tokens(&self, at: usize) -> usize {
        self.as_ref()[at].ids.len()
    }

    fn trained(&self, at: usize) -> usize {
        self.as_ref()[at].targets().count()
    }

    fn row(&self, at: usize) -> usize {
        self.as_ref()[at].row
    }

    fn get(&self, at: usize) -> Result<Cow<'_, Sample>> {
        Ok(Cow::Borrowed(&self.as_ref()[at]))
    }
}

/// A token that carries loss.
pub(crate) struct Target {
    /// Position it is predicted from.
    pub(crate) row: usize,
    pub(crate) id: u32,
    pub(crate) weight: f32,
    pub(crate) is_first_analysis: bool,
}
