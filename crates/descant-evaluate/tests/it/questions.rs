//! Questions as people bring them: parquet says what JSON lines say, and the tutorial's equation is judged by its roots.

use descant_evaluate::{Question, Suite};

use crate::verdicts::fixtures;

fn suite(name: &str) -> Suite {
    Suite::from_file(&fixtures().join(name)).unwrap()
}

#[test]
fn a_parquet_file_asks_and_judges_as_its_json_lines_do() {
    let (lines, parquet) = (suite("questions.jsonl"), suite("questions.parquet"));
    let said = |suite: &Suite| suite.questions.iter().map(|q| format!("{q:?}")).collect::<Vec<_>>();
    assert_eq!(said(&lines), said(&parquet));
    assert_eq!(parquet.questions.iter().map(|q| q.line).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let right = |question: &Question, text: &str| question.answer.is_right(Some(text));
    let finals = ["It is 42.", "2.52", "Au", "Blue."];
    let judged: Vec<_> = parquet.questions.iter().zip(finals).map(|(q, text)| right(q, text)).collect();
    assert_eq!(judged, [Some(true), Some(true), Some(true), None]);
    let wrong: Vec<_> = parquet.questions.iter().map(|question| right(question, "43")).collect();
    assert_eq!(wrong, [Some(false), Some(false), Some(false), None]);
    assert_eq!(parquet.clone().tagged("short").unwrap().questions.len(), 1);
    for suite in [&lines, &parquet] {
        assert_eq!(suite.unknown.keys().map(String::as_str).collect::<Vec<_>>(), ["difficulty_seen"]);
    }
}

#[test]
fn the_tutorials_equation_is_judged_by_its_three_real_roots() {
    let suite = Suite::load("tutorial").unwrap();
    let equations: Vec<&Question> =
        suite.questions.iter().filter(|question| question.tags.iter().any(|tag| tag == "equation")).collect();
    assert_eq!(equations.len(), 12);
    for question in equations {
        let right = |text: &str| question.answer.is_right(Some(text)).unwrap();
        for good in [
            "x ≈ 1.317, x ≈ -1.823, x ≈ -2.783",
            "The real roots are 1.317, −1.823 and −2.783.",
            "$x_1 \\approx 1.3173$, $x_2 \\approx -1.8230$, $x_3 \\approx -2.7834$",
            "Les racines réelles sont 1,317 ; −1,823 et −2,783.",
        ] {
            assert!(right(good), "{}: {good}", question.id);
        }
        for bad in [
            "x ≈ 1.317, x ≈ -1.823, x ≈ -2.763",
            "x ≈ 1.317, x ≈ -1.823",
            "x = 1.317, x = -1.823, x = -2.783, x = 2",
            "x ≈ 1.317, x ≈ 1.823, x ≈ 2.783",
            "There is no closed form.",
        ] {
            assert!(!right(bad), "{}: {bad}", question.id);
        }
    }
}
