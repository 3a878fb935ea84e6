//! The whole layer as one operator against the layer put together from the definitions, forward and every gradient,
//! in every form: kept or run again, Hopper's kernels or those of other cards, packed experts or not.

mod case;
mod fp8;
mod losses;
mod threads;

use burn::tensor::Tensor;
use descant_kernels as k;
use descant_kernels::{Angles, Chunks, Claim, Keep, Segments, SiteKind, Workspace};

use crate::card::{card, error};
use case::{Case, Found, LENGTHS, OUTPUT, bits};

#[test]
#[ignore = "needs a card"]
fn a_layer_equals_its_definition_whatever_is_kept() {
    let card = card();
    let mut found = Vec::new();
    for (packed, sites, window) in [
        (true, &SiteKind::ALL[..], Some(64)),
        (true, &SiteKind::ALL[..], None),
        (false, &SiteKind::ALL[..], Some(64)),
        (true, &SiteKind::ALL[..4], Some(64)),
        (true, &[SiteKind::Router][..], None),
        (true, &[SiteKind::GateUp][..], None),
        (true, &[SiteKind::Down][..], None),
        (true, &[SiteKind::Key, SiteKind::Output][..], None),
        (true, &[][..], None),
    ] {
        let case = Case::new(packed, sites, window, &LENGTHS, 41);
        let what = format!("packed {packed}, {} sites, window {window:?}", sites.len());
        for kernels in ["own", "portable"] {
            k::cuda::portable_kernels(kernels == "portable");
            let mut all: Option<Vec<(String, Vec<u32>)>> = None;
            for keep in [Keep::All, Keep::Balanced, Keep::Minimal] {
                let workspace = Workspace::default();
                workspace.set(None, keep);
                let own = case.own(&card, &case.prepared(&card, &workspace));
                found.extend(case.far(&format!("{what}, {keep}, {kernels}"), &own));
                let own = bits(&own);
                assert!(
                    all.get_or_insert_with(|| own.clone()) == &own,
                    "{what}, {keep}, {kernels}: other bits"
                );
            }
            k::cuda::portable_kernels(false);
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    // The control: the layer of another seed is far.
    let (one, other) = (
        Case::new(true, &SiteKind::ALL, None, &LENGTHS, 1),
        Case::new(true, &SiteKind::ALL, None, &LENGTHS, 2),
    );
    let own = other.own(&card, &other.prepared(&card, &Workspace::default()));
    assert_eq!(one.far("another", &own).len(), own.len());
}

/// So many tokens that other blocks serve them.
#[test]
#[ignore = "needs a card"]
fn a_batch_of_many_tokens_equals_its_definition() {
    let card = card();
    for sites in [&SiteKind::ALL[..], &[SiteKind::Value][..]] {
        let case = Case::new(true, sites, Some(64), &[140; 31], 43);
        let own = case.own(&card, &case.prepared(&card, &Workspace::default()));
        let found = case.far("many tokens", &own);
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// A long batch goes through the experts in chunks: it equals its halves, each of which is one chunk.
#[test]
#[ignore = "needs a card"]
fn a_long_batch_equals_its_halves_whatever_is_kept() {
    let card = card();
    let (sequences, length) = (34, 512);
    let whole = Case::new(true, &SiteKind::ALL, Some(64), &vec![length; sequences], 91);
    let half = |first: usize| {
        let rows = first..first + sequences / 2 * length;
        let of = |x: &Tensor<2>| x.clone().slice([rows.clone()]);
        let angles = Angles { cos: of(&whole.angles.cos), sin: of(&whole.angles.sin) };
        Case {
            tensors: whole.tensors.clone(),
            spec: whole.spec,
            x: of(&whole.x),
            seed: of(&whole.seed),
            pairs: whole.pairs.clone(),
            angles,
            segments: Segments::from_lengths(&vec![length; sequences / 2]),
        }
    };
    for portable in [false, true] {
        k::cuda::portable_kernels(portable);
        let halves = [0, sequences / 2 * length]
            .map(half)
            .map(|case| case.own(&card, &case.prepared(&card, &Workspace::default())));
        // Rows lie one behind the other; gradients of pairs are sums.
        let joined = |[one, other]: [&Vec<Found>; 2]| -> Vec<Found> {
            let join = |((name, a), (_, b)): (&Found, &Found)| {
                let rows = name == "output" || name == "input";
                let sum = || a.iter().zip(b).map(|(a, b)| a + b).collect();
                (name.clone(), if rows { [&a[..], b].concat() } else { sum() })
            };
            one.iter().zip(other).map(join).collect()
        };
        let expected = joined([&halves[0], &halves[1]]);
        let far = |own: &[Found], expected: &[Found]| -> Vec<String> {
            let of = own.iter().zip(expected).map(|((name, a), (_, b))| (name, error(a, b)));
            of.filter(|(_, off)| off.is_nan() || *off > OUTPUT)
                .map(|(name, off)| format!("{name} {off:.2e}"))
                .collect()
        };
        let mut all: Option<Vec<(String, Vec<u32>)>> = None;
        for keep in [Keep::All, Keep::Balanced, Keep::Minimal] {
            let workspace = Workspace::default();
            workspace.set(None, keep);
            let own = whole.own(&card, &whole.prepared(&card, &workspace));
            assert_eq!(far(&own, &expected), [""; 0], "{keep}, portable {portable}");
            let own = bits(&own);
            assert!(all.get_or_insert_with(|| own.clone()) == &own, "{keep}: other bits");
        }
        // The controls: one half twice, and one half in place of the sum.
        let wrong = joined([&halves[0], &halves[0]]);
        assert_eq!(far(&wrong, &expected).len(), expected.len());
        assert!(far(&halves[0][2..], &expected[2..]).len() == expected.len() - 2);
        k::cuda::portable_kernels(false);
    }
}

/// Which chunks a memory limit asks for changes no bit, since no pair is summed chunk by chunk.
#[test]
#[ignore = "needs a card"]
fn short_chunks_have_the_bits_of_long_ones() {
    let card = card();
    let attention = [SiteKind::Query, SiteKind::Key, SiteKind::Value, SiteKind::Output];
    let case = Case::new(true, &attention, Some(64), &[512; 34], 92);
    for portable in [false, true] {
        k::cuda::portable_kernels(portable);
        for keep in [Keep::All, Keep::Minimal] {
            let of = |chunks| {
                let workspace = Workspace::default();
                workspace.set(None, keep);
                let _claim = workspace.reserve(Claim { chunks, ..Claim::default() });
                bits(&case.own(&card, &case.prepared(&card, &workspace)))
            };
            let (long, short) = (of(Chunks::Long), of(Chunks::Short));
            assert!(long == short, "{keep}, portable {portable}: other bits");
        }
        k::cuda::portable_kernels(false);
    }
}
