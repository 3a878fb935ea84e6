//! The judge and the figures against what the reference made of the same replies.

#![expect(clippy::unwrap_used, reason = "clippy knows test functions and not what they share")]

mod any_ids;
mod figures;
mod questions;
mod stop_words;
mod verdicts;
