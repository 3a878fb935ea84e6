//! Tables of an evaluation as text: the key figures, languages asked against found, and the long one.

use descant_evaluate::Side;

mod key_figures;
mod languages;
mod long;
mod names;

pub(crate) use key_figures::key_figures;
pub(crate) use languages::found;
pub(crate) use long::{Long, long};

/// What is wrong with replies, by name and count.
pub(crate) fn defects(side: &Side) -> String {
    let mut all = std::collections::BTreeMap::new();
    for (name, count) in
        side.cells.iter().filter(|c| matches!(c.asked.as_str(), "none" | "any")).flat_map(|c| &c.defects)
    {
        *all.entry(name.as_str()).or_insert(0) += count;
    }
    all.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use descant_evaluate::{Cell, Evaluation};

    use super::*;

    fn golden() -> Evaluation {
        let text = include_str!("../../../../../fixtures/evaluate/golden/evaluation.json");
        descant_evaluate::Evaluations::from_json(serde_json::from_str(text).unwrap())
            .unwrap()
            .evaluations
            .remove(0)
    }

    fn widest(text: &str) -> usize {
        text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
    }

    /// Thirty languages asked, each found as several.
    fn many() -> Evaluation {
        let mut evaluation = golden();
        let model = evaluation.before.cells.iter().find(|cell| cell.asked == "any").unwrap().clone();
        for n in 0..30 {
            let found =
                (0..30).map(|other| (format!("l{other}"), if other == n { 1000 } else { 3 })).collect();
            evaluation.before.cells.push(Cell { asked: format!("l{n}"), found, ..model.clone() });
        }
        evaluation.after = None;
        evaluation
    }

    #[test]
    fn no_table_is_wider_than_its_page() {
        for width in [60, 72, 80, 100] {
            for evaluation in [golden(), many()] {
                for text in [
                    key_figures(&evaluation, 1, width),
                    found(evaluation.latest(), &evaluation.efforts, width),
                    long(&evaluation, Long::Within(width)),
                ] {
                    assert!(widest(&text) <= width, "{width}\n{text}");
                }
            }
        }
        // The control: without a page it is one block, and wider.
        assert!(widest(&long(&golden(), Long::Whole)) > 100);
    }

    #[test]
    fn blocks_say_together_what_one_table_says() {
        let cells = |text: &str| {
            let mut cells: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            cells.sort();
            cells.dedup();
            cells
        };
        assert_eq!(cells(&long(&golden(), Long::Within(60))), cells(&long(&golden(), Long::Whole)));
    }
}
