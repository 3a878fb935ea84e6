//! What workspaces promise threads: they share a layer and a card, and do not disturb each other.

use burn::tensor::DType;
use descant_kernels::{Angles, Keep, LayerPairs, SiteKind, Workspace, read_floats};

use super::case::{Case, bits};
use crate::card::{card, on};

/// Threads have streams of their own, and a workspace's layers work in one piece of memory.
#[test]
#[ignore = "needs a card"]
fn threads_that_share_a_layer_and_a_card_get_the_bits_they_get_alone() {
    let card = card();
    let cases: Vec<Case> = (0..4)
        .map(|seed| Case::new(true, &SiteKind::ALL, None, &[200 + 31 * seed as usize, 17], 60 + seed))
        .collect();
    // One layer for all, as of one model: only input and pairs differ.
    let shared = cases[0].prepared(&card, &Workspace::default());
    let alone: Vec<_> = cases.iter().map(|case| bits(&case.own(&card, &shared))).collect();
    std::thread::scope(|scope| {
        for (case, alone) in cases.iter().zip(&alone) {
            let (card, shared) = (&card, &shared);
            scope.spawn(move || {
                for round in 0..8 {
                    assert!(&bits(&case.own(card, shared)) == alone, "round {round}: other bits");
                }
            });
        }
    });
}

#[test]
#[ignore = "needs a card"]
fn a_thread_gets_its_own_error_and_no_other_thread_does() {
    let card = card();
    let good = Case::new(true, &SiteKind::ALL, None, &[90], 71);
    let layer = good.prepared(&card, &Workspace::default());
    let expected = bits(&good.own(&card, &layer));
    // A limit that nothing fits into fails in the first layer.
    let tight = Workspace::default();
    tight.set(Some(1), Keep::Minimal);
    let bad = good.prepared(&card, &tight);
    std::thread::scope(|scope| {
        let failing = scope.spawn(|| {
            let x = on(&good.x, &card, DType::BF16);
            let angles = Angles {
                cos: on(&good.angles.cos, &card, DType::F32),
                sin: on(&good.angles.sin, &card, DType::F32),
            };
            let y = bad.forward(x, &LayerPairs::default(), &angles, &good.segments);
            read_floats(y).expect_err("more than the limit would be in use")
        });
        let working = scope.spawn(|| (0..6).all(|_| bits(&good.own(&card, &layer)) == expected));
        assert!(failing.join().expect("no panic").out_of_memory);
        assert!(working.join().expect("no panic"));
    });
    assert!(bits(&good.own(&card, &layer)) == expected, "the error is gone with its thread");
}
