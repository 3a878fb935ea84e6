//! Replies on their way from ids to people: what they say, and how they look while they come.

use descant_model::StopReason;

mod screen;
mod turn;

pub(crate) use screen::{Look, Screen};
pub(crate) use turn::Turn;

/// What to say of a reply that did not end by itself.
pub(crate) fn cut_short(stop: StopReason, max_new_tokens: usize) -> Option<String> {
    match stop {
        StopReason::StopToken => None,
        StopReason::Length => Some(format!(
            "The reply was cut off after {max_new_tokens} tokens; --max-new-tokens allows more."
        )),
        StopReason::Context => Some(
            "The reply was cut off: the model's context is full. Shorten the prompt, or begin anew."
                .to_owned(),
        ),
        StopReason::Stopped => Some("Stopped.".to_owned()),
    }
}
