//! Whether a reply that did not end was caught in a loop, or was only cut.

use std::collections::HashSet;

/// Longest period that is looked for.
const PERIOD: usize = 128;
/// Least repeated ids beyond the first period.
const RUN: usize = 32;
/// Last ids that may belong to the beginning of something that was cut.
const LEFT_OUT: usize = 3;
/// Ids that are looked at for few distinct runs, and the length of such a run.
const TAIL: usize = 256;
const GRAM: usize = 6;
/// At most this share of the runs is distinct in a loop.
const DISTINCT: f64 = 0.4;

/// Whether the ids end in a loop: an exact period, or few distinct runs where a counter alone changes.
pub(crate) fn looped(ids: &[u32]) -> bool {
    (0..=LEFT_OUT.min(ids.len().saturating_sub(1))).any(|cut| periodic(&ids[..ids.len() - cut]))
        || repetitive(ids)
}

fn periodic(ids: &[u32]) -> bool {
    let n = ids.len();
    (1..=PERIOD.min(n / 3)).any(|period| {
        let same = |back: &usize| ids[n - 1 - back] == ids[n - 1 - back - period];
        let enough = (2 * period).max(RUN);
        enough <= n - period && (0..enough).all(|back| same(&back))
    })
}

fn repetitive(ids: &[u32]) -> bool {
    let Some(tail) = ids.len().checked_sub(TAIL).map(|from| &ids[from..]) else { return false };
    let grams = tail.len() + 1 - GRAM;
    let distinct: HashSet<&[u32]> = tail.windows(GRAM).collect();
    distinct.len() as f64 <= DISTINCT * grams as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeated(period: usize, times: usize) -> Vec<u32> {
        (0..period * times).map(|at| (at % period) as u32).collect()
    }

    #[test]
    fn a_period_needs_enough_repetition() {
        assert!(looped(&repeated(1, 33)));
        assert!(!looped(&repeated(1, 32)));
        assert!(looped(&repeated(100, 3)));
        assert!(!looped(&repeated(100, 2)));
        assert!(looped(&repeated(PERIOD, 3)));
        // Beyond the longest period the second test decides: 129 of 251 runs are distinct.
        assert!(!looped(&repeated(PERIOD + 1, 4)));
    }

    #[test]
    fn a_beginning_that_was_cut_does_not_hide_a_loop() {
        let mut ids = repeated(20, 4);
        ids.extend([1000, 1001, 1002]);
        assert!(looped(&ids));
        ids.push(1003);
        assert!(!looped(&ids));
    }

    #[test]
    fn a_counter_in_a_loop_is_a_loop_and_counting_is_none() {
        let line = |n: u32| (0..30).map(move |at| if at == 7 { 500 + n } else { at });
        let counter: Vec<u32> = (0..10).flat_map(line).collect();
        assert!(!periodic(&counter) && looped(&counter));
        let counting: Vec<u32> = (0..400).flat_map(|n| [n, 1_000_000]).collect();
        assert!(!looped(&counting));
    }

    #[test]
    fn short_replies_are_no_loops() {
        for length in 0..33 {
            assert!(!looped(&vec![7; length]), "{length}");
        }
    }
}
