//! What is said once of a model, however often it happens. Another model of the process says it again.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// What was said.
#[derive(Debug, Default)]
pub(crate) struct Said(Mutex<BTreeSet<String>>);

impl Said {
    /// Whether this was not said before; from now on it was.
    pub(crate) fn is_new(&self, words: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(words.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_says_a_thing_once_and_another_model_says_it_too() {
        let models = [Said::default(), Said::default()];
        for said in &models {
            assert!(said.is_new("slower") && !said.is_new("slower") && said.is_new("much slower"));
        }
    }
}
