//! Pages of the key-value cache: which are free.
//!
//! A sequence gets all pages that it may come to need when it begins, so that memory never runs out in the middle of a
//! reply. They lie in a row where there is such a run, which lets operators that know no pages read them in place.

/// Which pages are taken.
#[derive(Debug)]
pub(crate) struct Pages {
    is_taken: Vec<bool>,
    free: usize,
}

impl Pages {
    /// So many, all free.
    pub(crate) fn new(count: usize) -> Self {
        Self { is_taken: vec![false; count], free: count }
    }

    /// Pages that nobody has.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// So many pages in ascending order: the first run that is long enough, else the first ones; `None` where there are
    /// not so many.
    pub(crate) fn take(&mut self, count: usize) -> Option<Vec<u32>> {
        if count > self.free {
            return None;
        }
        let run = self.run(count);
        let free = |page: &usize| !self.is_taken[*page];
        let pages: Vec<u32> = match run {
            Some(first) => (first..first + count).map(|page| page as u32).collect(),
            None => (0..self.is_taken.len()).filter(free).take(count).map(|page| page as u32).collect(),
        };
        for page in &pages {
            self.is_taken[*page as usize] = true;
        }
        self.free -= count;
        Some(pages)
    }

    /// Takes pages back.
    ///
    /// # Panics
    /// If one was not taken.
    pub(crate) fn give(&mut self, pages: &[u32]) {
        for page in pages {
            assert!(std::mem::take(&mut self.is_taken[*page as usize]), "page {page} is given back twice");
        }
        self.free += pages.len();
    }

    /// Where the first run of so many free pages begins.
    fn run(&self, count: usize) -> Option<usize> {
        let mut length = 0;
        for (page, is_taken) in self.is_taken.iter().enumerate() {
            length = if *is_taken { 0 } else { length + 1 };
            if length >= count {
                return Some(page + 1 - count);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_run_is_preferred_and_pieces_are_taken_where_there_is_none() {
        let mut pages = Pages::new(6);
        assert_eq!(pages.take(2), Some(vec![0, 1]));
        assert_eq!(pages.take(2), Some(vec![2, 3]));
        pages.give(&[0, 1]);
        assert_eq!(pages.take(1), Some(vec![0]));
        assert_eq!(pages.take(2), Some(vec![4, 5]));
        pages.give(&[2, 3]);
        assert_eq!((pages.take(4), pages.free()), (None, 3));
        assert_eq!(pages.take(3), Some(vec![1, 2, 3]));
        pages.give(&[2]);
        pages.give(&[4, 5, 0]);
        assert_eq!(pages.take(3), Some(vec![0, 2, 4]));
    }

    #[test]
    #[should_panic(expected = "page 1 is given back twice")]
    fn a_page_that_is_given_back_twice_is_found() {
        let mut pages = Pages::new(3);
        let taken = pages.take(2).unwrap();
        pages.give(&taken);
        pages.give(&[1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_page_has_two_owners_and_all_come_back(
            count in 1usize..40,
            moves in proptest::collection::vec((any::<bool>(), 0usize..12), 1..80),
        ) {
            let mut pages = Pages::new(count);
            let mut owners: Vec<Vec<u32>> = Vec::new();
            for (takes, n) in moves {
                let owned: usize = owners.iter().map(Vec::len).sum();
                prop_assert_eq!(pages.free(), count - owned);
                if takes {
                    match pages.take(n) {
                        Some(taken) => {
                            prop_assert!(taken.len() == n && taken.is_sorted_by(|a, b| a < b));
                            prop_assert!(taken.iter().all(|page| (*page as usize) < count));
                            prop_assert!(owners.iter().all(|owner| taken.iter().all(|page| !owner.contains(page))));
                            owners.push(taken);
                        }
                        None => prop_assert!(n > count - owned, "there was room"),
                    }
                } else if !owners.is_empty() {
                    let owner = owners.remove(n % owners.len());
                    pages.give(&owner);
                }
            }
            for owner in &owners {
                pages.give(owner);
            }
            prop_assert_eq!(pages.free(), count);
            prop_assert_eq!(pages.take(count).map(|all| all.len()), Some(count));
        }
    }
}
