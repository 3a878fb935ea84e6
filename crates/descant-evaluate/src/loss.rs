//! The loss on held-out rows: by channel, and of the token that chooses the language.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::change::Claim;
use crate::samples::{Loss, Nats};
use crate::statistics::{bootstrap, sum};

/// A channel's mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// Sum over all rows, by their tokens.
    pub mean_nats: f64,
    /// Its exponential.
    pub perplexity: f64,
    /// Tokens.
    pub tokens: u64,
}

/// The token that chooses the language.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FirstToken {
    /// Mean over rows.
    pub mean_nats: f64,
    /// Rows where no token is more likely.
    pub rank_1: u64,
    /// Rows with reasoning.
    pub rows: u64,
    /// Rows without.
    pub left_out: u64,
}

/// A difference of losses, after less before, by rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossChange {
    /// Mean over rows of a row's nats a token.
    pub difference: f64,
    /// Low end of its 95 % interval.
    pub low: f64,
    /// High end.
    pub high: f64,
    /// Rows on both sides.
    pub rows: u64,
    /// What may be said: `down` is better.
    pub claim: Claim,
}

/// The losses of one side.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Losses {
    /// By channel; `all` with the trained weights.
    pub channels: BTreeMap<String, Mean>,
    /// Of the token that chooses the language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<FirstToken>,
    /// Against the other side, on the side that came after: all channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<LossChange>,
}

impl Losses {
    /// Over these rows; `None` where there are none.
    pub(crate) fn of(rows: &BTreeMap<String, Loss>) -> Option<Self> {
        if rows.is_empty() {
            return None;
        }
        let mut channels: BTreeMap<&str, Vec<Nats>> = BTreeMap::new();
        for (name, nats) in rows.values().flat_map(|row| &row.channels) {
            channels.entry(name).or_default().push(*nats);
        }
        let mean = |nats: Vec<Nats>| {
            let tokens = sum(nats.iter().map(|n| n.tokens));
            let mean_nats = sum(nats.iter().map(|n| n.nats)) / tokens;
            (tokens > 0.0).then(|| Mean {
                mean_nats,
                perplexity: mean_nats.exp(),
                tokens: tokens.round() as u64,
            })
        };
        let channels = channels.into_iter().filter_map(|(name, nats)| Some((name.to_owned(), mean(nats)?)));
        let first: Vec<_> = rows.values().filter_map(|row| row.first).collect();
        let first_token = (!first.is_empty()).then(|| FirstToken {
            mean_nats: sum(first.iter().map(|f| f.nats)) / first.len() as f64,
            rank_1: first.iter().filter(|f| f.rank == 1).count() as u64,
            rows: first.len() as u64,
            left_out: (rows.len() - first.len()) as u64,
        });
        Some(Self { channels: channels.collect(), first: first_token, change: None })
    }

    /// The mean loss over everything that is trained.
    pub fn all(&self) -> Option<f64> {
        self.channels.get("all").map(|mean| mean.mean_nats)
    }
}

/// The difference of all channels together, by rows; `None` where no row is on both sides.
pub(crate) fn loss_change(
    before: &BTreeMap<String, Loss>,
    after: &BTreeMap<String, Loss>,
) -> Option<LossChange> {
    let per_token =
        |row: &Loss| row.channels.get("all").filter(|all| all.tokens > 0.0).map(|all| all.nats / all.tokens);
    let differences: Vec<f64> =
        before.iter().filter_map(|(id, was)| Some(per_token(after.get(id)?)? - per_token(was)?)).collect();
    let rows = differences.len() as u64;
    if rows == 0 {
        return None;
    }
    let interval = bootstrap(&differences);
    Some(LossChange {
        difference: sum(differences.iter().copied()) / rows as f64,
        low: interval.low,
        high: interval.high,
        rows,
        claim: Claim::of(rows, interval),
    })
}
