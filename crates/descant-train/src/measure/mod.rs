//! What a fine-tune is judged by: the language of the reasoning, right answers, valid Harmony, length.
//!
//! The measures are those that the tiny checkpoint was accepted with (`generate.py` and `finetune_check.py` under
//! `fixtures/tiny-gpt-oss/scripts`), so that our numbers stand beside the numbers made with other tools. They are
//! made for short worked arithmetic in five languages; a general language identifier calls a third of such texts
//! wrong. Nothing here decodes, trains or prints.

mod ask;
mod cell;
mod digits;
mod held_out;
mod language;
mod reply;

pub use ask::{Decode, Questions, Reply, ask};
pub use cell::{Asked, Cell, Evaluation, Found};
pub use held_out::HeldOut;
pub use language::{Language, detect};
pub use reply::{Expected, Verdict, judge, parse, steps_hold};

#[cfg(test)]
mod ask_tests;
#[cfg(test)]
mod tests;
