//! Weights on the host: the same bits as with all of them on the card, in training, in generation and in scoring.

use burn::tensor::Device;
use descant_kernels::cuda::{pin_at_most, portable_kernels};
use descant_model::{GenerateOptions, GptOss, Placement, Request, Unwatched};
use descant_train::memory::Arrangement;
use descant_train::{OptimizerKind, score};

use crate::models::{Case, nf4_varied, varied};
use crate::repeat::train;
use crate::{card, is_portable};

/// Generated ids, and losses of whole sequences, which take a layer's other form, by their bits.
pub(crate) fn asked(case: &Case, model: &GptOss) -> (Vec<Vec<u32>>, Vec<u64>) {
    let mut adapter = case.adapter(model);
    adapter.update(|_, tensor| tensor.inner());
    let prompts = case.sequences(model.config.vocab_size);
    let requests: Vec<_> = prompts.iter().map(|ids| Request::greedy(ids.clone(), 24)).collect();
    let options = GenerateOptions::default();
    let generated = model.generate(&requests, &adapter, &options, &mut Unwatched).expect("replies");
    let losses = prompts.iter().filter(|ids| ids.len() > 1);
    let losses = losses.map(|ids| score(model, &adapter, ids, None).expect("a score").loss.expect("a loss"));
    (generated.into_iter().map(|one| one.ids).collect(), losses.map(f64::to_bits).collect())
}

/// Those of a model whose weights lie there.
fn replies(case: &Case, card: &Device, placement: Placement) -> (Vec<Vec<u32>>, Vec<u64>) {
    asked(case, &case.load_placed(card, placement))
}

#[test]
#[ignore = "needs a card"]
fn where_weights_lie_changes_no_bit() {
    let card = card();
    for (case, portable) in [(varied(), false), (varied(), true), (nf4_varied(), false), (nf4_varied(), true)]
    {
        let config = case.load(&card).config;
        portable_kernels(portable || is_portable());
        let trained = train(&case, &card, Arrangement::default(), OptimizerKind::AdamW8bit, None);
        let asked = replies(&case, &card, Placement::default());
        let how = Arrangement { together: 2, ..Arrangement::default() };
        assert_eq!(trained, train(&case, &card, how, OptimizerKind::AdamW8bit, None), "together");
        let mut on_host = Vec::new();
        for placement in Placement::all(&config).skip(1) {
            let what = format!("{}, {placement:?}, portable {portable}", case.name);
            for together in [1, 2, 3] {
                for inputs_on_host in [false, true] {
                    let how = Arrangement { placement, together, inputs_on_host, ..Arrangement::default() };
                    let again = train(&case, &card, how, OptimizerKind::AdamW8bit, Some(7));
                    assert_eq!(trained, again, "{what}, {how:?}");
                }
            }
            assert_eq!(asked, replies(&case, &card, placement), "{what}");
            on_host.push(placement.host_bytes(&config));
        }
        assert!(on_host.len() > 3 && on_host.windows(2).all(|pair| pair[0] < pair[1]), "{on_host:?}");
    }
    portable_kernels(is_portable());
}

/// Bytes that are pinned all the same where the system refuses larger pieces.
const LITTLE: usize = 4096;

#[test]
#[ignore = "needs a card"]
fn where_nothing_may_be_pinned_the_bits_are_the_same() {
    let card = card();
    for case in [varied(), nf4_varied()] {
        let config = case.load(&card).config;
        let trained = train(&case, &card, Arrangement::default(), OptimizerKind::AdamW8bit, None);
        let asked = replies(&case, &card, Placement::default());
        let all = Placement::all(&config).last().expect("everything on the host is one");
        let few = Placement { embedding_on_host: true, streamed_layers: 1 };
        let mut replied = None;
        for placement in [few, all] {
            for (together, inputs_on_host) in [(1, false), (1, true), (2, true)] {
                let how = Arrangement { placement, together, inputs_on_host, ..Arrangement::default() };
                pin_at_most(Some(LITTLE));
                let again = train(&case, &card, how, OptimizerKind::AdamW8bit, Some(7));
                pin_at_most(None);
                assert_eq!(trained, again, "{}, {how:?}", case.name);
            }
            pin_at_most(Some(LITTLE));
            let again = replies(&case, &card, placement);
            pin_at_most(None);
            // Losses to the bit. Replies come by the separate operators in place of the decoder, so that they may be others,
            // but the same wherever weights lie.
            assert_eq!(asked.1, again.1, "{}, {placement:?}", case.name);
            assert!(again.0.iter().zip(&asked.0).all(|(a, b)| a.len() == b.len()));
            let first = replied.get_or_insert_with(|| again.0.clone());
            assert_eq!(*first, again.0, "{}, {placement:?}", case.name);
        }
    }
}
