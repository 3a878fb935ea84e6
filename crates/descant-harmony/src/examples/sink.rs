//! Takes rows that are ready in their order, drops what repeats an earlier one, and keeps the account.

use crate::error::Result;
use crate::examples::example::{Account, Example};
use crate::examples::languages::Languages;
use crate::examples::ready::{Fate, Kept, Ready};
use crate::read::walk::Files;
use crate::read::{OnBadRow, Rejects};
use crate::row::ignored::Ignored;
use std::collections::BTreeSet;
use std::path::Path;

/// The account of the rows so far.
pub(super) struct Sink {
    account: Account,
    languages: Languages,
    /// Keys of the examples.
    seen: BTreeSet<u128>,
}

impl Sink {
    /// Continues after what was found when the rows were read.
    pub(super) fn new(rejects: Rejects, ignored: Ignored) -> Self {
        let account = Account { rejects, ignored, ..Account::default() };
        Self { account, languages: Languages::default(), seen: BTreeSet::new() }
    }

    /// Counts columns that are not used.
    pub(super) fn ignore(&mut self, columns: &Ignored) {
        self.account.ignored.merge(columns);
    }

    /// Takes what became of the next row; its examples go to `take`.
    pub(super) fn take(
        &mut self,
        number: u64,
        made: Result<Ready>,
        on_bad_row: OnBadRow,
        path: &Path,
        files: &Files,
        take: &mut dyn FnMut(Example) -> Result<()>,
    ) -> Result<()> {
        match made.and_then(|ready| settle(ready, on_bad_row)) {
            Ok(ready) => {
                self.account.rows += 1;
                self.account.ignored.merge(&ready.ignored);
                ready.fates.into_iter().try_for_each(|fate| self.fate(fate, take))
            }
            Err(error) => self.account.rejects.settle(error, on_bad_row, path, files, number),
        }
    }

    fn fate(&mut self, fate: Fate, take: &mut dyn FnMut(Example) -> Result<()>) -> Result<()> {
        self.account.views += 1;
        let Kept { example, cut, counts, reasoning } = match fate {
            Fate::Kept(kept) => *kept,
            Fate::Dropped => {
                self.account.dropped += 1;
                return Ok(());
            }
            Fate::Empty(_) => {
                self.account.empty += 1;
                return Ok(());
            }
        };
        let key = u128::from_le_bytes(*example.hash.first_chunk().expect("SHA-256 has 32 bytes"));
        if !self.seen.insert(key) {
            self.account.duplicates += 1;
            return Ok(());
        }
        self.account.cut += u64::from(cut);
        self.account.tokens.add(&counts);
        self.languages.add(example.reasoning_language.as_deref(), &counts, reasoning, key);
        if let Some(language) = &example.reasoning_language {
            self.account.by_language.entry(language.clone()).or_default().add(&counts);
        }
        take(example)
    }

    pub(super) fn finish(mut self) -> Account {
        self.account.rejects.first.sort_by_key(|reject| reject.number);
        self.account.languages = self.languages.finish();
        self.account
    }
}

/// An empty view is an error where bad rows are.
fn settle(ready: Ready, on_bad_row: OnBadRow) -> Result<Ready> {
    let Ready { ignored, fates } = ready;
    let mut kept = Vec::with_capacity(fates.len());
    for fate in fates {
        match fate {
            Fate::Empty(error) if on_bad_row == OnBadRow::Fail => return Err(error),
            fate => kept.push(fate),
        }
    }
    Ok(Ready { ignored, fates: kept })
}
