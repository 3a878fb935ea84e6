//! What tables call languages and what was asked.

use std::collections::BTreeSet;

use descant_evaluate::{Cell, name_of};

/// Verdicts that occur, languages first.
pub(super) fn codes<'c>(cells: impl Iterator<Item = &'c Cell>) -> Vec<&'c str> {
    let all: BTreeSet<&str> = cells.flat_map(|cell| cell.found.keys().map(String::as_str)).collect();
    let last = ["mixed", "unsure", "other", "none"];
    let mut codes: Vec<&str> = all.iter().copied().filter(|code| !last.contains(code)).collect();
    codes.extend(last.into_iter().filter(|code| all.contains(code)));
    codes
}

pub(super) fn short(code: &str) -> &str {
    if code == "none" { "-" } else { code }
}

pub(super) fn asked(cell: &Cell) -> &str {
    match cell.asked.as_str() {
        "none" => "none",
        "any" => "each its own",
        code => name_of(code),
    }
}

/// At most `width` columns of a name.
pub(super) fn cut(name: &str, width: usize) -> String {
    name.chars().take(width.saturating_sub(1)).collect()
}
