//! What to do about a hub that fails.

use descant_hub::{Error, Refusal};

use crate::failure::Hinted;

/// Advice for each way in which a hub can fail.
pub(crate) fn hinted(error: Error) -> anyhow::Error {
    let hint = match &error {
        Error::Reference { .. } => "write hf://OWNER/NAME, or hf://datasets/OWNER/NAME".to_owned(),
        Error::NotCached { reference, .. } => format!("descant download {reference}"),
        Error::Refused { reason, .. } => match reason {
            Refusal::NeedsToken => "check the name; for a private or gated one set HF_TOKEN".to_owned(),
            Refusal::BadToken => "check the name, and that the token may read it".to_owned(),
            Refusal::NoRepo => "check the name; data sets begin with datasets/".to_owned(),
            _ => return error.into(),
        },
        Error::Space { .. } => "set HF_HUB_CACHE to a folder on a larger disk".to_owned(),
        Error::GaveUp { .. } | Error::Transport { .. } | Error::Later { .. } => {
            "what was fetched is kept: run the command again to resume. `descant doctor` checks the network; with \
             --offline only the cache is used"
                .to_owned()
        }
        _ => return error.into(),
    };
    Hinted::new(error, hint).into()
}
