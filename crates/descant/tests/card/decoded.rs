//! The card's decoder: what it chooses is what the whole model, asked without a cache, finds likeliest; a sequence's
//! tokens do not depend on the others; base and every kind of adapter.

use burn::tensor::Tensor;
use descant_kernels::cuda::portable_kernels;
use descant_kernels::read_floats;
use descant_kernels::{MANY_ROWS, THIN_ROWS, WIDE_ROWS};
use descant_model::{Bare, Batch, GenerateOptions, GptOss, Overlay, Request, Sampling, Unwatched};

use crate::models::{Case, all};
use crate::{card, is_portable};

pub(crate) const NEW: usize = 40;
/// Sequences of the largest batch.
const MANY: usize = 36;
/// How far below the largest logit a chosen token's may be, in parts of the largest: bf16 on both sides.
const NEAR: f32 = 0.03;

pub(crate) fn generate(
    model: &GptOss,
    overlay: &dyn Overlay,
    prompts: &[Vec<u32>],
    sampling: Sampling,
) -> Vec<Vec<u32>> {
    let request = |(n, prompt): (usize, &Vec<u32>)| Request {
        sampling,
        stream: n as u64,
        ..Request::greedy(prompt.clone(), NEW)
    };
    let requests: Vec<Request> = prompts.iter().enumerate().map(request).collect();
    let made = model.generate(&requests, overlay, &GenerateOptions::default(), &mut Unwatched);
    made.expect("replies").into_iter().map(|one| one.ids).collect()
}

/// Tokens that the whole model finds clearly less likely than another, and all.
pub(crate) fn wrong(
    model: &GptOss,
    overlay: &dyn Overlay,
    prompts: &[Vec<u32>],
    replies: &[Vec<u32>],
) -> [usize; 2] {
    // All in one batch: a forward for each of them took most of the time of these tests.
    let pairs = || prompts.iter().zip(replies);
    let whole: Vec<Vec<u32>> = pairs().map(|(prompt, reply)| [&prompt[..], reply].concat()).collect();
    let batch = Batch::new(whole.iter().map(Vec::as_slice), model.config.vocab_size).expect("a batch");
    let hidden = model.hidden(&batch, overlay);
    let mut first = 0;
    let of_replies = pairs().map(|(prompt, reply)| {
        let at = first + prompt.len() - 1;
        first += prompt.len() + reply.len();
        hidden.clone().narrow(0, at, reply.len())
    });
    let logits = model.logits(Tensor::cat(of_replies.collect(), 0));
    let width = logits.dims()[1];
    let values = read_floats(logits).expect("values");
    let mut counts = [0, 0];
    for (row, id) in values.chunks_exact(width).zip(pairs().flat_map(|(_, reply)| reply)) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let scale = row.iter().map(|x| x.abs()).fold(0.0, f32::max);
        counts[0] += usize::from(largest - row[*id as usize] > NEAR * scale);
        counts[1] += 1;
    }
    counts
}

pub(crate) fn adapter(case: &Case, model: &GptOss) -> descant_lora::LoraAdapters {
    let mut adapter = case.adapter(model);
    adapter.update(|_, tensor| tensor.inner());
    adapter
}

#[test]
#[ignore = "needs a card"]
fn what_is_decoded_is_what_the_whole_model_finds_likeliest() {
    let card = card();
    let mut found = Vec::new();
    for case in all() {
        let model = case.load(&card);
        let (adapter, vocabulary) = (adapter(&case, &model), model.config.vocab_size);
        // More than go through the thin kernels too, and so many that experts' products take the form for many rows.
        let prompts: Vec<Vec<u32>> = (0..MANY as u32)
            .map(|n| {
                case.sequences(vocabulary)[n as usize % case.lengths.len()]
                    .iter()
                    .map(|id| (id + n) % vocabulary as u32)
                    .collect()
            })
            .collect();
        for portable in [false, true] {
            portable_kernels(portable || is_portable());
            for (what, overlay) in [("base", &Bare as &dyn Overlay), ("adapter", &adapter)] {
                for count in [1, 3, THIN_ROWS + 3, MANY] {
                    let prompts = &prompts[..count];
                    let replies = generate(&model, overlay, prompts, Sampling::GREEDY);
                    let looked_at = &prompts[..count.min(THIN_ROWS + 3)];
                    let [off, of] = wrong(&model, overlay, looked_at, &replies);
                    println!("{}, {what}, {count} prompts: {off} of {of} far from the likeliest", case.name);
                    // An expert near the edge of the chosen ones may be another, and then a token is.
                    let allowed = if case.may_choose_otherwise { of / 10 } else { 0 };
                    if off > allowed {
                        found.push(format!(
                            "{}, {what}, {count}, portable {portable}: {off} of {of}",
                            case.name
                        ));
                    }
                }
            }
            portable_kernels(is_portable());
        }
        // The control: replies of the base are not the adapter's.
        let of_base = generate(&model, &Bare, &prompts, Sampling::GREEDY);
        let [off, of] = wrong(&model, &adapter, &prompts, &of_base);
        if !adapter.pairs().is_empty() && off == 0 {
            found.push(format!("{}: the base's {of} tokens pass for the adapter's", case.name));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
#[ignore = "needs a card"]
fn a_sequence_is_continued_as_it_is_alone_and_random_ones_as_often_as_asked() {
    let card = card();
    let case = crate::models::varied();
    let model = case.load(&card);
    let adapter = adapter(&case, &model);
    let prompts: Vec<Vec<u32>> =
        case.sequences(model.config.vocab_size).into_iter().take(THIN_ROWS).collect();
    for sampling in [Sampling::GREEDY, Sampling { temperature: 1.0, seed: 7, ..Sampling::GREEDY }] {
        let together = generate(&model, &adapter, &prompts, sampling);
        assert_eq!(together, generate(&model, &adapter, &prompts, sampling), "again");
        if !sampling.is_greedy() {
            let greedy = generate(&model, &adapter, &prompts, Sampling::GREEDY);
            assert_ne!(together, greedy, "the control: chance decides");
            continue;
        }
        for (n, prompt) in prompts.iter().enumerate() {
            let alone = generate(&model, &adapter, std::slice::from_ref(prompt), sampling);
            assert_eq!(alone[0], together[n], "prompt {n}");
        }
    }
}

/// How often each length comes.
const ROUNDS: usize = 7;

/// Prompts of many lengths, on both sides of the borders of pages, windows and splits, and each with its own end.
fn varied_requests(case: &Case, vocabulary: usize) -> Vec<Request> {
    let all: Vec<u32> = case.sequences(vocabulary).concat();
    let lengths = [1, 2, 15, 16, 17, 63, 64, 65, 100, 127, 128, 129, 130, 191, 192, 200, 255, 256, 257, 300];
    let request = |(n, length): (usize, usize)| {
        let ids = all.iter().cycle().skip(7 * n).take(length).map(|id| (id + n as u32) % vocabulary as u32);
        let new = [3, 40, 9, 1, 70, 25][n % 6];
        Request { stream: n as u64, ..Request::greedy(ids.collect(), new) }
    };
    (0..ROUNDS).flat_map(|_| lengths).enumerate().map(request).collect()
}

#[test]
#[ignore = "needs a card"]
fn slots_are_refilled_and_each_gets_what_it_gets_alone() {
    let card = card();
    let case = crate::models::varied();
    let model = case.load(&card);
    let adapter = adapter(&case, &model);
    let requests = varied_requests(&case, model.config.vocab_size);
    // Some are drawn, each with its own settings.
    let mut requests = requests;
    for request in requests.iter_mut().skip(1).step_by(3) {
        let drawn = Sampling { temperature: 0.8, top_p: 0.9, seed: 4, ..Sampling::default() };
        let penalty = if request.stream % 2 == 0 { 1.3 } else { 1.0 };
        request.sampling = Sampling { repetition_penalty: penalty, ..drawn };
    }
    // Base and adapter in one batch; what is compared with the whole model is the adapter's.
    for request in requests.iter_mut().skip(2).step_by(4) {
        request.adapter = false;
    }
    let greedy: Vec<usize> =
        (0..requests.len()).filter(|n| requests[*n].sampling.is_greedy() && requests[*n].adapter).collect();
    let ask = |requests: &[Request], at_once, cache_tokens| {
        let options = GenerateOptions { at_once, cache_tokens, ..GenerateOptions::default() };
        let made = model.generate(requests, &adapter, &options, &mut Unwatched).expect("replies");
        made.into_iter().map(|one| one.ids).collect::<Vec<_>>()
    };
    let alone: Vec<Vec<u32>> =
        requests.iter().map(|one| ask(std::slice::from_ref(one), None, None).remove(0)).collect();
    let prompts: Vec<Vec<u32>> = greedy.iter().map(|n| requests[*n].prompt.clone()).collect();
    let of_greedy = |replies: &[Vec<u32>]| greedy.iter().map(|n| replies[*n].clone()).collect::<Vec<_>>();
    let [off, of] = wrong(&model, &adapter, &prompts, &of_greedy(&alone));
    let allowed = if case.may_choose_otherwise { of / 10 } else { 0 };
    assert!(off <= allowed, "alone: {off} of {of} tokens are far from the likeliest");
    // In a few slots, in fewer pages than slots would like, in one band of rows, two, and four; and in more slots than
    // wide products are for, which give the same among themselves, up to `MANY_ROWS` and beyond.
    assert!(requests.len() > MANY_ROWS + 1);
    let [many, most] = [WIDE_ROWS + 1, MANY_ROWS + 1].map(|room| ask(&requests, Some(room), None));
    for (at_once, cache_tokens, others) in [
        (Some(4), None, &alone),
        (Some(7), Some(500), &alone),
        (Some(1), None, &alone),
        (Some(20), None, &alone),
        (Some(50), None, &alone),
        (Some(WIDE_ROWS), None, &alone),
        (Some(MANY_ROWS), None, &many),
        (None, None, &most),
    ] {
        let together = ask(&requests, at_once, cache_tokens);
        let differ = together.iter().zip(others).filter(|(one, other)| one != other).count();
        let [off, of] = wrong(&model, &adapter, &prompts, &of_greedy(&together));
        println!(
            "{at_once:?} slots, {cache_tokens:?}: {differ} replies differ, {off} of {of} tokens far off"
        );
        assert!(off <= allowed && differ == 0, "{at_once:?}: {differ} replies differ, {off} off");
    }
}

#[test]
#[ignore = "needs a card"]
fn base_and_adapter_in_one_batch_are_what_each_is_in_its_own() {
    let card = card();
    for case in all() {
        let model = case.load(&card);
        let adapter = adapter(&case, &model);
        let prompts = case.sequences(model.config.vocab_size);
        let side = |adapted: bool| -> Vec<Request> {
            let of = |prompt: &Vec<u32>| Request { adapter: adapted, ..Request::greedy(prompt.clone(), NEW) };
            prompts.iter().take(THIN_ROWS / 2).map(of).collect()
        };
        let ask = |requests: &[Request]| {
            model.generate(requests, &adapter, &GenerateOptions::default(), &mut Unwatched).expect("replies")
        };
        let [base, adapted] = [side(false), side(true)];
        let mixed: Vec<Request> =
            base.iter().zip(&adapted).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
        let together = ask(&mixed);
        for (at, alone) in [ask(&base), ask(&adapted)].iter().enumerate() {
            for (n, alone) in alone.iter().enumerate() {
                assert_eq!(alone, &together[2 * n + at], "{}: prompt {n}, adapter {}", case.name, at == 1);
            }
        }
    }
}
