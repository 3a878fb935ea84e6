//! Packing: every document once, nothing crosses a border, everything repeatable. `cargo xtask miri` runs these.

use descant_harmony::pack::{IGNORE, Packed, PackedOrder, best_fit, epoch_bins};
use descant_harmony::{Error, Order};
use proptest::prelude::*;

/// An interpreter is some hundred times slower.
const CASES: u32 = if cfg!(miri) { 1 } else { 300 };

/// Every (document, position, id, target, weight) of packed documents.
fn flat(packed: &[Packed]) -> Vec<(usize, u32, u32, i32, u32)> {
    let mut all = Vec::new();
    for pack in packed {
        for (at, document) in pack.documents.iter().enumerate() {
            for token in pack.borders[at] as usize..pack.borders[at + 1] as usize {
                let (target, weight) = (pack.targets[token], pack.weights[token].to_bits());
                all.push((*document, pack.positions[token], pack.ids[token], target, weight));
            }
        }
    }
    all.sort_unstable();
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packed_equals_unpacked(
        documents in prop::collection::vec(
            prop::collection::vec((0u32..1000, prop::sample::select(vec![0.0f32, 0.5, 1.0])), 1..40), 1..60),
        room in 0usize..100,
    ) {
        let documents: Vec<(Vec<u32>, Vec<f32>)> = documents.into_iter().map(|d| d.into_iter().unzip()).collect();
        let lengths: Vec<usize> = documents.iter().map(|(ids, _)| ids.len()).collect();
        let capacity = lengths.iter().max().unwrap() + room;
        let bins = best_fit(&lengths, capacity).unwrap();
        let pack = |bin: &[usize]| {
            Packed::new(bin.iter().map(|at| (*at, documents[*at].0.as_slice(), documents[*at].1.as_slice())))
        };
        let packed: Vec<Packed> = bins.iter().map(|bin| pack(bin)).collect();
        let alone: Vec<Packed> = (0..documents.len()).map(|at| pack(&[at])).collect();
        prop_assert_eq!(flat(&packed), flat(&alone));
        for pack in &packed {
            prop_assert!(pack.ids.len() <= capacity);
            prop_assert_eq!(pack.ids.len(), *pack.borders.last().unwrap() as usize);
            // No label crosses a border.
            for border in &pack.borders[1..] {
                prop_assert_eq!(pack.targets[*border as usize - 1], IGNORE);
            }
            prop_assert!(pack.targets.iter().zip(&pack.weights).all(|(t, w)| (*t == IGNORE) == (*w == 0.0)));
        }
        // Best fit never leaves two bins that would fit into one.
        let fill: Vec<usize> = packed.iter().map(|pack| pack.ids.len()).collect();
        for (at, a) in fill.iter().enumerate() {
            prop_assert!(fill[at + 1..].iter().all(|b| a + b > capacity));
        }
    }

    #[test]
    fn an_epoch_packs_every_document_once(lengths in prop::collection::vec(1usize..50, 1..80), seed: u64, epoch in 0u64..5) {
        let mut order = Order::shuffled(lengths.len(), seed).unwrap();
        let bins = epoch_bins(&mut order, epoch, &lengths, 64).unwrap();
        let mut seen: Vec<usize> = bins.concat();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        prop_assert_eq!(epoch_bins(&mut order, epoch, &lengths, 64).unwrap(), bins);
    }

    #[test]
    fn seeking_in_packed_sequences_equals_iterating(
        lengths in prop::collection::vec(1usize..50, 1..80),
        seed: u64,
        positions in prop::collection::vec(0u64..400, 1..20),
    ) {
        let mut walked = PackedOrder::shuffled(lengths.clone(), 64, seed).unwrap();
        let bins = walked.bins();
        let all: Vec<Vec<usize>> = (0..400).map(|position| walked.bin_at(position).unwrap().to_vec()).collect();
        let mut sought = PackedOrder::shuffled(lengths.clone(), 64, seed).unwrap();
        for position in positions {
            prop_assert_eq!(sought.bin_at(position).unwrap(), &all[position as usize][..]);
        }
        // Every epoch has equally many bins and every document once.
        for epoch in all.chunks_exact(bins) {
            let mut seen = epoch.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        }
    }
}

#[test]
fn packing_is_tight_and_refuses_what_does_not_fit() {
    assert_eq!(best_fit(&[6, 4, 3, 7, 5, 5], 10).unwrap(), [vec![0, 1], vec![2, 3], vec![4, 5]]);
    assert_eq!(best_fit(&[], 10).unwrap(), Vec::<Vec<usize>>::new());
    assert!(matches!(best_fit(&[3, 11], 10), Err(Error::TooLong { tokens: 11, limit: 10 })));
}

#[test]
fn epochs_pack_other_neighbours_and_show_bins_in_another_order() {
    let lengths: Vec<usize> = (0..40).map(|at| 10 + at % 4).collect();
    let mut order = PackedOrder::shuffled(lengths, 32, 3407).unwrap();
    let bins = order.bins() as u64;
    let mut epoch =
        |n: u64| (n * bins..(n + 1) * bins).map(|p| order.bin_at(p).unwrap().to_vec()).collect::<Vec<_>>();
    let (first, second) = (epoch(0), epoch(1));
    assert_ne!(first, second);
    let sorted = |epoch: &[Vec<usize>]| {
        let mut bins: Vec<Vec<usize>> = epoch.to_vec();
        for bin in &mut bins {
            bin.sort_unstable();
        }
        bins.sort_unstable();
        bins
    };
    assert_ne!(sorted(&first), sorted(&second), "the same documents stand together in every epoch");
    assert!(matches!(PackedOrder::shuffled(vec![], 32, 1), Err(Error::NoDocuments)));
    assert!(matches!(PackedOrder::shuffled(vec![33], 32, 1), Err(Error::TooLong { .. })));
}

/// The control of the property above: a shift after packing does cross the border, and the check sees it.
#[test]
fn a_shift_after_packing_would_cross_the_border() {
    let (a, b, ones) = ([1, 2], [3, 4], [1.0; 2]);
    let packed = Packed::new([(0, &a[..], &ones[..]), (1, &b[..], &ones[..])]);
    assert_eq!(packed.targets, [2, IGNORE, 4, IGNORE]);
    let shifted: Vec<i32> = packed.ids[1..].iter().map(|id| *id as i32).chain([IGNORE]).collect();
    assert_ne!(shifted[1], IGNORE);
    assert_eq!((packed.positions, packed.borders), (vec![0, 1, 0, 1], vec![0, 2, 4]));
}
