//! Preparation and order: nothing lost, nothing mixed, everything repeatable.

use crate::support::{fixtures, tiny};
use descant_harmony::prepare::{OnTooLong, PrepareOptions, prepare};
use descant_harmony::read::{Body, DataSet, OnBadRow, ReadOptions, Row, read};
use descant_harmony::{Conversation, Error, MaskPolicy, Message, Order, Role, TokenClass};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn fixture() -> DataSet {
    read(&fixtures().join("data/multilingual-thinking-24.jsonl"), &ReadOptions::default()).unwrap()
}

fn set_of(bodies: Vec<Body>) -> DataSet {
    let rows = bodies.into_iter().zip(1..);
    let rows = rows.map(|(body, number)| Row::new(number, body)).collect();
    DataSet::of("set.jsonl".as_ref(), rows)
}

fn talk(messages: Vec<Message>) -> Body {
    Body::Conversation(Conversation::new(messages))
}

#[test]
fn the_account_adds_up_and_threads_change_nothing() {
    let options = PrepareOptions::default();
    let prepared = prepare(tiny(), &fixture(), &options).unwrap();
    let account = &prepared.account;
    assert_eq!((account.rows, account.views, prepared.examples.len()), (24, 24, 24));
    let tokens: usize = prepared.examples.iter().map(|example| example.ids.len()).sum();
    let trained: usize = prepared.examples.iter().map(|example| example.mask.trained()).sum();
    assert_eq!(
        (account.tokens.total().tokens, account.tokens.total().trained),
        (tokens as u64, trained as u64)
    );
    assert_eq!(account.by_language.values().map(|counts| counts.total().tokens).sum::<u64>(), tokens as u64);
    // All but the prompt's `<|start|>assistant` of the analysis is trained.
    let analysis = account.of(TokenClass::Analysis);
    let opening =
        descant_harmony::TextEncoder::encode_rendered(tiny().tokenizer(), "<|start|>assistant").unwrap();
    assert_eq!(analysis.tokens - analysis.trained, 24 * opening.len() as u64);
    assert_eq!(account.of(TokenClass::User).trained, 0);
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let alone = one_thread.install(|| prepare(tiny(), &fixture(), &options).unwrap());
    assert_eq!(alone.examples, prepared.examples);
}

#[test]
fn repeated_views_are_left_out_and_counted() {
    let user = |text: &str| Message::text(Role::User, text);
    let first = vec![user("a"), Message::assistant(Some("t".into()), "b")];
    let mut longer = first.clone();
    longer.extend([user("c"), Message::assistant(None, "d")]);
    let set = set_of(vec![talk(first.clone()), talk(longer), talk(first)]);
    let prepared = prepare(tiny(), &set, &PrepareOptions::default()).unwrap();
    let kept: Vec<_> = prepared.examples.iter().map(|example| (example.row, example.message)).collect();
    assert_eq!(kept, [(1, Some(1)), (2, Some(3))]);
    assert_eq!((prepared.account.views, prepared.account.duplicates), (4, 2));
}

#[test]
fn long_views_are_dropped_cut_or_refused_and_always_counted() {
    let set = fixture();
    let lengths: Vec<usize> = prepare(tiny(), &set, &PrepareOptions::default())
        .unwrap()
        .examples
        .iter()
        .map(|e| e.ids.len())
        .collect();
    let limit = lengths.iter().max().unwrap() - 1;
    let too_long = lengths.iter().filter(|length| **length > limit).count();
    let with = |on_too_long, max_tokens| {
        prepare(
            tiny(),
            &set,
            &PrepareOptions { on_too_long, max_tokens: Some(max_tokens), ..PrepareOptions::default() },
        )
    };
    let error = with(OnTooLong::Fail, limit).unwrap_err();
    assert!(error.to_string().contains(&format!("tokens are more than the limit of {limit}")), "{error}");
    let dropped = with(OnTooLong::Drop, limit).unwrap();
    assert_eq!((dropped.examples.len(), dropped.account.dropped), (24 - too_long, too_long as u64));
    let cut = with(OnTooLong::CutAtMessage, limit).unwrap();
    assert_eq!((cut.examples.len(), cut.account.cut, cut.account.dropped), (24, too_long as u64, 0));
    let end = tiny().tokenizer().control().end;
    assert!(cut.examples.iter().filter(|e| *e.ids.last().unwrap() == end).count() == too_long);
    assert!(cut.examples.iter().all(|e| e.ids.len() <= limit && e.ids.len() == e.mask.weights.len()));
    assert!(matches!(with(OnTooLong::CutAtMessage, 10), Err(Error::NothingLeft { .. })));
}

#[test]
fn bad_rows_and_empty_masks_fail_by_row_or_are_counted() {
    let user = |text: &str| Message::text(Role::User, text);
    let call = Message::call(Some("t".into()), "f", serde_json::json!({}));
    let good = vec![user("a"), Message::assistant(None, "b")];
    let set =
        set_of(vec![talk(good), talk(vec![user("x")]), talk(vec![user("a"), call]), Body::Text("?".into())]);
    let skip = PrepareOptions {
        on_bad_row: OnBadRow::Skip,
        mask: MaskPolicy::FinalOnly,
        ..PrepareOptions::default()
    };
    let prepared = prepare(tiny(), &set, &skip).unwrap();
    assert_eq!((prepared.examples.len(), prepared.account.empty, prepared.account.rejects.count), (1, 1, 2));
    let numbers: Vec<_> = prepared.account.rejects.first.iter().map(|reject| reject.number).collect();
    assert_eq!(numbers, [2, 4]);
    let error = prepare(tiny(), &set, &PrepareOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "set.jsonl:2: the conversation has no assistant message");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn seeking_equals_iterating(rows in 1usize..300, seed: u64, start in 0u64..2000, steps in prop::collection::vec(0u64..2000, 1..20)) {
        let mut walked = Order::shuffled(rows, seed).unwrap();
        let all: Vec<usize> = (0..start + 2000).map(|position| walked.index_at(position)).collect();
        let mut sought = Order::shuffled(rows, seed).unwrap();
        for step in steps {
            prop_assert_eq!(sought.index_at(start + step), all[(start + step) as usize]);
        }
        let mut counts = BTreeMap::new();
        for row in &all[..rows.min(all.len())] {
            *counts.entry(*row).or_insert(0) += 1;
        }
        prop_assert!(counts.values().all(|count| *count == 1));
    }
}

#[test]
fn ten_thousand_places_are_sought_as_they_are_reached() {
    for (rows, seed) in [(1usize, 1), (7, 2), (100, 3), (1013, 4)] {
        let mut walked = Order::shuffled(rows, seed).unwrap();
        let all: Vec<usize> = (0..5000).map(|position| walked.index_at(position)).collect();
        let mut sought = Order::shuffled(rows, seed).unwrap();
        let mut place = 1;
        for _ in 0..2500 {
            // A full-period walk over 0..5000 that jumps between epochs.
            place = (place * 2421 + 2017) % 5000;
            assert_eq!(sought.index_at(place), all[place as usize], "{rows} rows, position {place}");
        }
    }
}
