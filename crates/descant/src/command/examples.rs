//! Prepared examples as samples of the trainer, read one by one: of one data set, or of several with their shares.
//!
//! ```text
//! places    0 .. n1 | n1 .. n1 + n2 | ...     one behind the other, each source as often as its share asks
//! ```
//!
//! A place says by arithmetic alone which example it is, so the order of the data stays what it is for one data set: a
//! permutation of places, to be sought anywhere. An epoch is as long as the source needs that its share lets come least
//! often, so that every example is in it; the others come again, as evenly as whole numbers allow.

use std::borrow::Cow;

use anyhow::anyhow;
use descant_harmony::prepare::Example;
use descant_harmony::store::Store;
use descant_train::{Error, Result, Sample, Samples};

use super::sample::sample;

/// Most places of an epoch; an order of more would take gigabytes.
const MOST_PLACES: f64 = 100e6;

/// The examples that are trained on.
#[derive(Debug)]
pub(crate) struct Examples {
    sources: Vec<Source>,
}

/// The examples of a data set.
#[derive(Debug)]
pub(crate) struct Source {
    store: Store,
    /// Which of them; all where absent.
    chosen: Option<Vec<u32>>,
    /// The first place.
    from: usize,
    /// How many places it has, at least one for each example.
    places: usize,
}

impl Source {
    /// Those examples of a store that are not left out; `left_out` says so by group.
    pub(crate) fn new(store: Store, left_out: impl Fn(u64) -> bool) -> Self {
        let chosen: Vec<u32> =
            (0..store.len()).filter(|at| !left_out(store.group(*at))).map(|at| at as u32).collect();
        let places = chosen.len();
        let chosen = (places < store.len()).then_some(chosen);
        Self { store, chosen, from: 0, places }
    }

    /// How many examples are trained on.
    pub(crate) fn examples(&self) -> usize {
        self.chosen.as_ref().map_or(self.store.len(), Vec::len)
    }

    /// Places in an epoch.
    pub(crate) fn places(&self) -> usize {
        self.places
    }

    /// The example of one of its places: whole passes first, then some, evenly spread, once more.
    fn at(&self, place: usize) -> usize {
        let examples = self.examples();
        let whole = self.places / examples * examples;
        let at =
            if place < whole { place % examples } else { (place - whole) * examples / (self.places - whole) };
        self.chosen.as_ref().map_or(at, |chosen| chosen[at] as usize)
    }
}

impl Examples {
    /// All examples of these sources, each once; or with shares, each as often as they ask.
    ///
    /// # Errors
    /// A share is so small that an epoch would be endless.
    pub(crate) fn new(mut sources: Vec<Source>, shares: &[f64]) -> anyhow::Result<Self> {
        let all: f64 = shares.iter().sum();
        let length = sources.iter().zip(shares).map(|(source, share)| source.examples() as f64 * all / share);
        let length = length.fold(0.0, f64::max);
        if length > MOST_PLACES {
            let error =
                "data.sources: a share is too small for so many examples; an epoch in which each comes once";
            return Err(anyhow!("{error} would have {length:.0}, and {MOST_PLACES:.0} is the most"));
        }
        for (source, share) in sources.iter_mut().zip(shares) {
            source.places = ((length * share / all).round() as usize).max(source.examples());
        }
        let mut from = 0;
        for source in &mut sources {
            source.from = from;
            from += source.places;
        }
        Ok(Self { sources })
    }

    /// The sources, in order.
    pub(crate) fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// What distinguishes these samples from others: of one data set, a hash over the hashes of all its examples. What
    /// of it is validated on follows from the settings, which a run's identity has beside this.
    pub(crate) fn sha256(&self) -> String {
        match self.sources.as_slice() {
            [source] => source.store.samples_sha256().to_owned(),
            several => {
                let all: String = several.iter().map(|source| source.store.samples_sha256()).collect();
                descant_files::sha256(all.as_bytes())
            }
        }
    }

    /// The source and the example of a place.
    fn find(&self, place: usize) -> (&Store, usize) {
        let source = self.sources.partition_point(|source| source.from <= place) - 1;
        let source = &self.sources[source];
        (&source.store, source.at(place - source.from))
    }
}

impl Samples for Examples {
    fn count(&self) -> usize {
        self.sources.iter().map(Source::places).sum()
    }

    fn tokens(&self, at: usize) -> usize {
        let (store, at) = self.find(at);
        store.tokens(at)
    }

    fn trained(&self, at: usize) -> usize {
        let (store, at) = self.find(at);
        store.targets(at)
    }

    fn row(&self, at: usize) -> usize {
        let (store, at) = self.find(at);
        store.row(at) as usize
    }

    fn get(&self, at: usize) -> Result<Cow<'_, Sample>> {
        let (store, at) = self.find(at);
        let example: Example =
            store.get(at).map_err(|error| Error::Unreadable { at, reason: error.to_string() })?;
        Ok(Cow::Owned(sample(example)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use descant_harmony::Renderer;
    use descant_harmony::prepare::{PrepareOptions, each_example};
    use descant_harmony::read::ReadOptions;
    use descant_harmony::store::Writer;

    use super::*;

    fn store(rows: usize, name: &str) -> Store {
        let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss"));
        let renderer = Renderer::load(root, None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        let row = |at: usize| format!("{{\"prompt\": \"{name} {at}\", \"completion\": \"{at}\"}}\n");
        descant_files::write_atomic(&path, (0..rows).map(row).collect::<String>().as_bytes()).unwrap();
        let mut writer = Writer::new(Vec::new()).unwrap();
        let (read, options) = (ReadOptions::default(), PrepareOptions::default());
        let survey = each_example(&renderer, &path, &read, &options, &mut |_| {}, &mut |example| {
            writer.push(&example).unwrap();
            Ok(())
        });
        Store::from_bytes(writer.finish(&survey.unwrap(), "").unwrap(), "").unwrap()
    }

    /// How often each row of each source is in an epoch.
    fn counts(examples: &Examples) -> BTreeMap<(usize, usize), usize> {
        let mut counts = BTreeMap::new();
        for place in 0..examples.count() {
            let source = examples
                .sources
                .iter()
                .position(|source| (source.from..source.from + source.places).contains(&place));
            *counts.entry((source.unwrap(), examples.row(place))).or_default() += 1;
        }
        counts
    }

    #[test]
    fn without_shares_every_example_comes_once() {
        let sources = vec![Source::new(store(3, "a"), |_| false), Source::new(store(5, "b"), |_| false)];
        let examples = Examples::new(sources, &[]).unwrap();
        assert_eq!(examples.count(), 8);
        assert!(counts(&examples).values().all(|count| *count == 1));
        assert_eq!(counts(&examples).len(), 8);
        assert_eq!(examples.get(3).unwrap().ids.len(), examples.tokens(3));
    }

    #[test]
    fn shares_are_kept_every_example_is_used_and_the_repeated_ones_evenly() {
        let sources = vec![Source::new(store(3, "a"), |_| false), Source::new(store(5, "b"), |_| false)];
        let examples = Examples::new(sources, &[3.0, 1.0]).unwrap();
        // The second source comes once, and is a quarter.
        let places: Vec<usize> = examples.sources().iter().map(Source::places).collect();
        assert_eq!(places, [15, 5]);
        let counts = counts(&examples);
        assert!(counts.iter().all(|((source, _), count)| *count == [5, 1][*source]), "{counts:?}");
        let uneven = vec![Source::new(store(4, "a"), |_| false), Source::new(store(5, "b"), |_| false)];
        let uneven = self::counts(&Examples::new(uneven, &[0.5, 0.5]).unwrap());
        assert_eq!(uneven.iter().filter(|((source, _), _)| *source == 0).map(|(_, n)| n).sum::<usize>(), 5);
        assert!(uneven.values().all(|count| [1, 2].contains(count)), "{uneven:?}");
        let sources = vec![Source::new(store(3, "a"), |_| false), Source::new(store(5, "b"), |_| false)];
        assert!(Examples::new(sources, &[1.0, 1e-9]).is_err());
    }

    #[test]
    fn what_is_left_out_is_in_no_place() {
        let store = store(6, "a");
        let out = [store.group(1), store.group(4)];
        let examples = Examples::new(vec![Source::new(store, |group| out.contains(&group))], &[]).unwrap();
        let rows: Vec<usize> = (0..examples.count()).map(|at| examples.row(at)).collect();
        assert_eq!(rows, [1, 3, 4, 6]);
    }
}
