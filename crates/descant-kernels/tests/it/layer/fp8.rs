//! A layer's training step with experts in fp8 beside the same in bf16, and that its other form knows nothing of it.

#![expect(clippy::print_stdout, reason = "the differences are what the reader of a run on a card wants")]

use burn::tensor::{DType, Device, Tensor};
use descant_kernels::{
    Angles, Claim, DecoderLayer, ExpertForm, FrozenWeight, Keep, LayerPairs, LowRankPair, PerSite,
    PlacedBatch, SiteKind, Workspace, read_floats,
};

use super::case::{Case, DIM, Found, HEADS, LENGTHS, bits};
use crate::card::{card, error, on};

/// What the experts add to the residual stream, by its norm.
const EXPERTS: f64 = 5e-2;
/// Least cosine of a gradient.
const COSINE: f64 = 0.995;
/// Difference of its norm, in parts of it. Gradients here are sums of random rows, in which errors average no better than
/// the rows: where few directions carry a sum, as at the output, whose rows attention has averaged, a norm differs by
/// nearly what a row does (seen: 0.032 there, 0.009 elsewhere).
const NORM: f64 = 4e-2;

/// Sizes that products in fp8 take, none of which is a multiple of a tile's.
const SIZES: [usize; 2] = [320, 192];

/// A case whose attention adds nothing, so that what a layer adds is its experts'.
fn case(sites: &[SiteKind]) -> Case {
    let mut case = Case::sized(SIZES, true, sites, Some(64), &LENGTHS, 81);
    let [hidden, _] = SIZES;
    case.tensors.output = Tensor::<2>::zeros([hidden, HEADS * DIM], &Device::flex()).into();
    case.tensors.output_bias = Tensor::zeros([hidden], &Device::flex());
    case
}

/// Output, gradient of the input, and those of pairs, of a layer's way through a step.
fn step(
    case: &Case,
    card: &Device,
    layer: &DecoderLayer,
    workspace: &Workspace,
    how: ExpertForm,
) -> Vec<Found> {
    layer.prepare_experts(how).expect("kernels");
    let _claim = workspace.reserve(Claim { together: 1, experts: how, ..Claim::default() });
    let angles =
        Angles { cos: on(&case.angles.cos, card, DType::F32), sin: on(&case.angles.sin, card, DType::F32) };
    let factor = |x: &Tensor<3>| on(x, card, DType::F32);
    let pairs: LayerPairs = case.pairs.map(|pair| {
        let pair = pair.as_ref()?;
        Some(LowRankPair { a: factor(&pair.a), b: factor(&pair.b), scaling: pair.scaling })
    });
    let ranks = PerSite::from_fn(|kind| pairs[kind].as_ref().map_or(0, |pair| pair.a.dims()[1]));
    let tokens = case.segments.tokens();
    let places = layer.places(&[&case.segments], &ranks).expect("room");
    let batch =
        PlacedBatch { batch: 0, angles: &angles, segments: &case.segments, again: false, in_bf16: false };
    layer.put(&places, 0, 0, on(&case.x, card, DType::BF16));
    let kept = layer.forward_placed(&places, &pairs, &batch, true);
    let output = read_floats(layer.take(&places, 1, 0, tokens)).expect("values");
    layer.put(&places, 1, 0, on(&case.seed, card, DType::BF16));
    let gradients = layer.backward_placed(&places, &pairs, &batch, kept);
    let input = read_floats(layer.take(&places, 1, 0, tokens)).expect("values");
    let mut found = vec![("output".to_owned(), output), ("input".to_owned(), input)];
    for (kind, pair) in gradients.iter() {
        let Some(pair) = pair else { continue };
        for (which, tensor) in [("A", &pair.a), ("B", &pair.b)] {
            let values = read_floats(tensor.clone()).expect("values");
            found.push((format!("{} {which}", kind.name()), values));
        }
    }
    found
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Whether a value is no more than so much; what is not a number is not.
fn is_within(value: f64, most: f64) -> bool {
    value <= most
}

/// What of `own` is beyond a gate around `other`.
fn beyond(what: &str, case: &Case, own: &[Found], other: &[Found]) -> Vec<String> {
    let x: Vec<f32> = crate::support::values(&case.x);
    let added = |of: &[f32]| -> Vec<f32> { of.iter().zip(&x).map(|(y, x)| y - x).collect() };
    let mut beyond = Vec::new();
    for ((name, a), (same, b)) in own.iter().zip(other) {
        assert_eq!(name, same);
        if name == "output" {
            let off = error(&added(a), &added(b));
            println!("fp8 {what}: experts {off:.2e}");
            if !is_within(off, EXPERTS) {
                beyond.push(format!("{what}: experts {off:.2e}"));
            }
            continue;
        }
        let [own, norm] = [dot(a, a).sqrt(), dot(b, b).sqrt()];
        let (cosine, longer) = (dot(a, b) / (own * norm), own / norm - 1.0);
        println!("fp8 {what}: {name}: cosine {cosine:.5}, norm {longer:+.4}");
        if !(is_within(COSINE, cosine) && is_within(longer.abs(), NORM)) {
            beyond.push(format!("{what}: {name}: cosine {cosine:.5}, norm {longer:+.4}"));
        }
    }
    beyond
}

const ATTENTION: [SiteKind; 4] = [SiteKind::Query, SiteKind::Key, SiteKind::Value, SiteKind::Output];

#[test]
#[ignore = "needs a card"]
fn a_step_in_fp8_is_within_its_gates_of_one_in_bf16_whatever_is_kept() {
    let card = card();
    let mut found = Vec::new();
    for sites in [&SiteKind::ALL[..], &[SiteKind::GateUp][..], &[SiteKind::Down][..], &ATTENTION[..]] {
        let case = case(sites);
        let what = format!("{} sites", sites.len());
        let mut all: Option<Vec<(String, Vec<u32>)>> = None;
        for keep in [Keep::All, Keep::Balanced, Keep::Minimal] {
            let workspace = Workspace::default();
            workspace.set(None, keep);
            let layer = case.prepared(&card, &workspace);
            let [bf16, fp8] =
                [ExpertForm::Bf16, ExpertForm::Fp8].map(|how| step(&case, &card, &layer, &workspace, how));
            found.extend(beyond(&format!("{what}, {keep}"), &case, &fp8, &bf16));
            // What is made again has the bits of what is kept.
            let own = bits(&fp8);
            assert!(all.get_or_insert_with(|| own.clone()) == &own, "{what}, {keep}: other bits");
            assert!(own[0] != bits(&bf16)[0], "fp8 is another form");
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    // The control: another seed's step is beyond every gate.
    let (one, other) =
        (case(&SiteKind::ALL), Case::sized(SIZES, true, &SiteKind::ALL, Some(64), &LENGTHS, 82));
    let step = |case: &Case| {
        let workspace = Workspace::default();
        step(case, &card, &case.prepared(&card, &workspace), &workspace, ExpertForm::Fp8)
    };
    let (one_step, other_step) = (step(&one), step(&other));
    assert_eq!(beyond("another", &one, &other_step, &one_step).len(), one_step.len());
}

#[test]
#[ignore = "needs a card"]
fn a_layer_outside_of_steps_has_the_same_bits_with_and_without_fp8() {
    let card = card();
    let case = case(&SiteKind::ALL);
    let workspace = Workspace::default();
    let layer = case.prepared(&card, &workspace);
    let before = bits(&case.own(&card, &layer));
    layer.prepare_experts(ExpertForm::Fp8).expect("kernels");
    let _claim = workspace.reserve(Claim { together: 1, experts: ExpertForm::Fp8, ..Claim::default() });
    assert!(bits(&case.own(&card, &layer)) == before);
}

/// Scales that lie too far apart for one of the products: it stays in bf16, the other does not.
#[test]
#[ignore = "needs a card"]
fn a_product_that_fp8_does_not_hold_stays_in_bf16() {
    let card = card();
    for kind in [SiteKind::GateUp, SiteKind::Down] {
        let mut case = case(&SiteKind::ALL);
        let weight =
            if kind == SiteKind::GateUp { &mut case.tensors.gate_up } else { &mut case.tensors.down };
        let FrozenWeight::Mxfp4 { scales, .. } = weight else { unreachable!("experts are packed") };
        // One block of one row, of a number so small that nobody misses it.
        *scales = scales.clone().slice_fill([0..1, 0..1, 0..1], 123 - 17);
        let workspace = Workspace::default();
        let layer = case.prepared(&card, &workspace);
        assert_eq!(layer.prepare_experts(ExpertForm::Fp8).expect("kernels"), [kind]);
        let [bf16, fp8] =
            [ExpertForm::Bf16, ExpertForm::Fp8].map(|how| step(&case, &card, &layer, &workspace, how));
        let found = beyond(kind.name(), &case, &fp8, &bf16);
        assert!(found.is_empty(), "{found:#?}");
        assert!(bits(&fp8)[0] != bits(&bf16)[0], "the other is in fp8");
    }
}
