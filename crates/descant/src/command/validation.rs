//! Which examples are validated on: those of a file, or a share of the training examples.
//!
//! A share is chosen by content: examples that begin with the same prompt have one key, the smallest keys are taken
//! until the share is reached, and all examples of a key are on one side. So duplicates, and several answers to one
//! question, never are on both, whatever the order of the rows.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow};
use descant_harmony::prepare::Example;
use descant_harmony::store::Store;
use descant_train::Watched;

use super::sample::sample;
use crate::failure::Hinted;

/// The groups that a share of all examples of these stores is validated on.
pub(super) fn chosen(stores: &[Store], share: f64) -> Result<BTreeSet<u64>> {
    let mut groups: BTreeMap<u64, usize> = BTreeMap::new();
    for store in stores {
        (0..store.len()).for_each(|at| *groups.entry(store.group(at)).or_default() += 1);
    }
    let wanted = share * groups.values().sum::<usize>() as f64;
    let (mut chosen, mut examples, all) = (BTreeSet::new(), 0, groups.len());
    for (group, count) in groups {
        if examples as f64 >= wanted {
            break;
        }
        chosen.insert(group);
        examples += count;
    }
    if chosen.len() == all {
        let error =
            anyhow!("data.validation is {share}, and the training data has too few different prompts for it");
        return Err(Hinted::new(error, "give a file: --set data.validation=FILE").into());
    }
    Ok(chosen)
}

/// The examples that are `meant`; of more than `most`, those with the smallest keys. With how many there are.
pub(super) fn watched(
    stores: &[&Store],
    meant: impl Fn(&Store, usize) -> bool,
    most: usize,
) -> Result<(Vec<Watched>, usize)> {
    let mut found: Vec<(u64, usize, usize)> = Vec::new();
    for (source, store) in stores.iter().enumerate() {
        let places = (0..store.len()).filter(|at| meant(store, *at));
        found.extend(places.map(|at| (store.group(at), source, at)));
    }
    let all = found.len();
    found.sort_unstable();
    found.truncate(most);
    // In the order of the rows, so that a file of a few is looked at as it is.
    found.sort_unstable_by_key(|(_, source, at)| (*source, *at));
    let watched = found.into_iter().map(|(_, source, at)| Ok(of(stores[source].get(at)?)));
    Ok((watched.collect::<Result<_>>()?, all))
}

fn of(example: Example) -> Watched {
    Watched { classes: example.mask.classes.clone(), sample: sample(example) }
}
