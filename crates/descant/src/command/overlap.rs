//! Which examples are in more than one place: in two sources, in training and validation, in training and questions.
//!
//! An example is known by its key, which is that of all its tokens and weights, and its prompt by its group.

use std::collections::BTreeSet;
use std::path::Path;

use descant_harmony::Renderer;
use descant_harmony::prepare::{OnTooLong, PrepareOptions, each_example};
use descant_harmony::read::{OnBadRow, ReadOptions};
use descant_harmony::store::Store;

/// What is trained on, to be looked up.
pub(super) struct Known {
    keys: Vec<u64>,
    groups: Vec<u64>,
}

impl Known {
    /// Everything of these stores that is not left out; `left_out` says so by group.
    pub(super) fn of(stores: &[Store], left_out: impl Fn(u64) -> bool) -> Self {
        let places = stores.iter().flat_map(|store| (0..store.len()).map(move |at| (store, at)));
        let places = places.filter(|(store, at)| !left_out(store.group(*at)));
        let (keys, groups) = places.map(|(store, at)| (store.key(at), store.group(at))).unzip();
        Self { keys: sorted(keys), groups: sorted(groups) }
    }

    /// Whether an example of a store is among them.
    pub(super) fn has(&self, store: &Store, at: usize) -> bool {
        self.keys.binary_search(&store.key(at)).is_ok()
    }

    /// Whether an example among them begins with this prompt.
    pub(super) fn has_prompt(&self, group: u64) -> bool {
        self.groups.binary_search(&group).is_ok()
    }
}

fn sorted(mut keys: Vec<u64>) -> Vec<u64> {
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Of each source, how many of its examples an earlier one has too.
pub(super) fn repeated(stores: &[Store]) -> Vec<usize> {
    let mut seen: Vec<u64> = Vec::new();
    let mut counts = Vec::with_capacity(stores.len());
    for store in stores {
        let keys = || (0..store.len()).map(|at| store.key(at));
        counts.push(keys().filter(|key| seen.binary_search(key).is_ok()).count());
        if stores.len() > 1 {
            seen = sorted(seen.into_iter().chain(keys()).collect());
        }
    }
    counts
}

/// How many rows of a file of questions ask what is trained on. Rows that cannot be rendered are left to whoever asks
/// them.
pub(super) fn asked(known: &Known, renderer: &Renderer, path: &Path, options: &PrepareOptions) -> usize {
    let read = ReadOptions { on_bad_row: OnBadRow::Skip, ..ReadOptions::default() };
    let options = PrepareOptions {
        on_bad_row: OnBadRow::Skip,
        on_too_long: OnTooLong::Drop,
        max_tokens: None,
        ..options.clone()
    };
    let mut rows = BTreeSet::new();
    let _ = each_example(renderer, path, &read, &options, &mut |_| {}, &mut |example| {
        if known.has_prompt(example.group) {
            rows.insert(example.row);
        }
        Ok(())
    });
    rows.len()
}
