//! Many prompts in few slots: what each gets must be what it gets alone, whatever waits, ends, and takes its place.

use std::path::Path;

use burn::tensor::Device;
use descant_model::{
    Error, GenerateOptions, Generated, Go, GptOss, NewToken, Overlay, Request, Sampling, Session, Site,
    StopReason, Unwatched, Watch,
};

/// Batches of random requests.
const BATCHES: usize = 1000;
/// Requests that they are drawn from.
const REQUESTS: usize = 160;
/// Positions of a page, and the model's window: lengths on both sides of their borders are asked for.
const PAGE: usize = descant_kernels::PAGE_TOKENS;
const WINDOW: usize = 8;
const VOCABULARY: u32 = 512;

fn model() -> GptOss {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden/parity-a");
    GptOss::load(&dir, &Device::flex()).expect("the golden model loads")
}

/// Adds a little everywhere behind attention.
struct Shift;

impl Overlay for Shift {
    fn delta(
        &self,
        site: Site,
        x: &burn::tensor::Tensor<2>,
        _: &descant_kernels::Groups,
    ) -> Option<burn::tensor::Tensor<2>> {
        let [rows, width] = x.dims();
        let wide = site.kind == descant_model::SiteKind::Output;
        wide.then(|| x.clone().narrow(1, 0, width / 2).sum_dim(1).expand([rows, 64]) * 0.05)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

fn request(random: &mut Random, stream: u64) -> Request {
    let borders = [1, 2, WINDOW - 1, WINDOW, WINDOW + 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 2 * PAGE + 1];
    let length = if random.below(2) == 0 { random.of(&borders) } else { 1 + random.below(30) };
    let sampling = match random.below(3) {
        0 => Sampling { temperature: 1.0, top_p: 0.9, seed: 5, ..Sampling::default() },
        1 => {
            Sampling { temperature: 0.7, top_k: 20, repetition_penalty: 1.2, seed: 6, ..Sampling::default() }
        }
        _ => Sampling::GREEDY,
    };
    Request {
        prompt: (0..length).map(|_| random.below(VOCABULARY as usize) as u32).collect(),
        max_new_tokens: random.of(&[0, 1, 2, 3, 5, 9, 14]),
        adapter: random.below(2) == 0,
        sampling,
        stream,
    }
}

fn options(random: &mut Random, stop_ids: &[u32]) -> GenerateOptions {
    // Room for the longest request is the least that there may be.
    let least = 2 * PAGE + 21;
    GenerateOptions {
        stop_ids: stop_ids.to_vec(),
        log_probabilities: None,
        at_once: Some(1 + random.below(6)),
        cache_tokens: (random.below(2) == 0).then(|| least + random.below(4 * PAGE)),
    }
}

fn alone(model: &GptOss, request: &Request, stop_ids: &[u32]) -> Generated {
    let options = GenerateOptions { stop_ids: stop_ids.to_vec(), ..GenerateOptions::default() };
    let made = model.generate(std::slice::from_ref(request), &Shift, &options, &mut Unwatched);
    made.expect("a reply").remove(0)
}

#[test]
fn a_thousand_random_batches_are_what_their_prompts_get_alone() {
    let (model, mut random) = (model(), Random(1));
    let requests: Vec<Request> = (0..REQUESTS).map(|n| request(&mut random, n as u64)).collect();
    // Ids that come now and then, so that replies end in the middle.
    let stop_ids: Vec<u32> = (0..VOCABULARY).filter(|id| id % 13 == 0).collect();
    let expected: Vec<Generated> = requests.iter().map(|request| alone(&model, request, &stop_ids)).collect();
    let stopped = expected.iter().filter(|reply| reply.stop == StopReason::StopToken).count();
    assert!((REQUESTS / 8..REQUESTS).contains(&stopped), "{stopped} of {REQUESTS} end early");
    let (mut replies, mut waited) = (0, 0);
    for batch in 0..BATCHES {
        let chosen: Vec<usize> = (0..=random.below(9)).map(|_| random.below(REQUESTS)).collect();
        let asked: Vec<Request> = chosen.iter().map(|&n| requests[n].clone()).collect();
        let options = options(&mut random, &stop_ids);
        let made = model.generate(&asked, &Shift, &options, &mut Unwatched).expect("replies");
        for (reply, &n) in made.iter().zip(&chosen) {
            assert_eq!(*reply, expected[n], "request {n} of batch {batch}, {options:?}, of {chosen:?}");
        }
        replies += made.len();
        waited += asked.len().saturating_sub(options.at_once.unwrap_or(0));
    }
    assert!(replies > 4 * BATCHES && waited > BATCHES, "{replies} replies, {waited} of them waited");
}

#[test]
fn the_comparison_finds_a_cache_that_is_off_by_one() {
    // The control: another last token of the prompt shows in what follows.
    let (model, mut random) = (model(), Random(2));
    let mut differ = 0;
    for n in 0..20 {
        let mut one = Request { sampling: Sampling::GREEDY, max_new_tokens: 9, ..request(&mut random, n) };
        let before = alone(&model, &one, &[]);
        let first = one.prompt.len().saturating_sub(2);
        one.prompt[first] = (one.prompt[first] + 1) % VOCABULARY;
        differ += usize::from(alone(&model, &one, &[]) != before);
    }
    assert!(differ > 10, "{differ} of 20 differ");
}

/// Notes the order of calls, and ends all after so many tokens.
struct Noting {
    order: Vec<(usize, usize)>,
    ended: Vec<usize>,
    most: usize,
}

impl Watch for Noting {
    fn token(&mut self, token: &NewToken<'_>) -> Go {
        self.order.push((token.sequence, token.step));
        if self.order.len() == self.most { Go::EndAll } else { Go::On }
    }

    fn ended(&mut self, sequence: usize, _: StopReason) {
        self.ended.push(sequence);
    }
}

fn greedy(length: usize, max_new_tokens: usize) -> Request {
    Request::greedy((0..length as u32).map(|n| n * 7 % VOCABULARY).collect(), max_new_tokens)
}

#[test]
fn a_long_reply_keeps_no_slot_of_the_others_empty() {
    let model = model();
    let mut requests = vec![greedy(3, 40)];
    requests.extend((0..12).map(|n| greedy(2 + n, 4)));
    let mut watch = Noting { order: Vec::new(), ended: Vec::new(), most: usize::MAX };
    let options = GenerateOptions { at_once: Some(3), ..GenerateOptions::default() };
    model.generate(&requests, &Shift, &options, &mut watch).expect("replies");
    assert_eq!(watch.ended.last(), Some(&0), "the long one ends last");
    let steps_of_long = watch.order.iter().rposition(|(sequence, _)| *sequence == 12).unwrap();
    let long = watch.order[..steps_of_long].iter().filter(|(sequence, _)| *sequence == 0).count();
    // Twelve of four tokens in two slots are 24 steps.
    assert!((23..=24).contains(&long), "all others are done after {long} steps");
    assert_eq!(watch.order.len(), 40 + 12 * 4);
}

#[test]
fn an_end_of_all_leaves_nothing_behind_and_the_model_goes_on() {
    let model = model();
    let requests: Vec<Request> = (0..9).map(|n| greedy(1 + 30 * n, 12)).collect();
    let options = GenerateOptions { at_once: Some(2), ..GenerateOptions::default() };
    for most in [1, 5, 30] {
        let mut watch = Noting { order: Vec::new(), ended: Vec::new(), most };
        let out = model.generate(&requests, &Shift, &options, &mut watch).expect("replies");
        assert_eq!(watch.order.len(), most, "nothing is reported after the end");
        assert_eq!(out.iter().map(|reply| reply.ids.len()).sum::<usize>(), most);
        let mut ended = watch.ended;
        ended.sort_unstable();
        assert_eq!(ended, (0..9).collect::<Vec<_>>(), "every end is reported once");
    }
    let again = model.generate(&requests, &Shift, &options, &mut Unwatched).expect("replies");
    assert_eq!(again[8], alone(&model, &requests[8], &[]));
}

#[test]
fn what_memory_does_not_hold_is_refused_before_anything_is_made() {
    let model = model();
    let requests = [greedy(5, 5), greedy(200, 100)];
    let with =
        |cache_tokens| GenerateOptions { cache_tokens: Some(cache_tokens), ..GenerateOptions::default() };
    let mut watch = Noting { order: Vec::new(), ended: Vec::new(), most: usize::MAX };
    match model.generate(&requests, &Shift, &with(256), &mut watch) {
        Err(error @ Error::NoRoom { index: 1, tokens: 300, .. }) => {
            assert!(error.to_string().contains("allow fewer new tokens"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(watch.order.is_empty());
    assert!(model.generate(&requests, &Shift, &with(300), &mut Unwatched).is_ok());
}

#[test]
fn a_prompt_of_several_chunks_is_that_of_the_whole_forward() {
    let model = model();
    // Beyond two borders of chunks, and then some.
    let mut prompt: Vec<u32> =
        (0..9001_u32).map(|n| n.wrapping_mul(2_654_435_761) >> 7).map(|n| n % VOCABULARY).collect();
    let request = Request { adapter: false, ..Request::greedy(prompt.clone(), 4) };
    let reply = alone(&model, &request, &[]);
    for id in reply.ids {
        let batch = descant_model::Batch::new([prompt.as_slice()], VOCABULARY as usize).unwrap();
        let hidden = model.hidden(&batch, &descant_model::Bare);
        let last = hidden.narrow(0, prompt.len() - 1, 1);
        let logits: Vec<f32> = model.logits(last).into_data().try_to_vec().expect("f32");
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        assert_eq!(id as usize, best, "behind {} tokens", prompt.len());
        prompt.push(id);
    }
}

#[test]
fn turns_of_a_conversation_are_what_each_prompt_gets_alone_and_reuse_what_is_there() {
    let (model, overlay) = (model(), Shift);
    let mut random = Random(3);
    let mut session = Session::new(&model, &overlay);
    let options = GenerateOptions::default();
    let mut prompt: Vec<u32> = (0..70).map(|_| random.below(VOCABULARY as usize) as u32).collect();
    let mut before = 0;
    let one = |session: &mut Session<'_>, request: &Request, watch: &mut dyn Watch| {
        session.reply(std::slice::from_ref(request), &options, watch).expect("a reply").remove(0)
    };
    for turn in 0..8 {
        let mut request = Request { stream: turn, max_new_tokens: 20, ..Request::greedy(prompt.clone(), 20) };
        if turn % 2 == 1 {
            request.sampling = Sampling { temperature: 1.0, top_p: 0.9, seed: 2, ..Sampling::default() };
        }
        let reply = one(&mut session, &request, &mut Unwatched);
        assert_eq!(reply.ids, alone(&model, &request, &[]).ids, "turn {turn}");
        // A side that joins later has everything computed once more.
        let made_anew = turn == 0 || turn == 2;
        assert_eq!(session.reused(), [if turn == 0 { 0 } else { before }], "turn {turn}");
        // The same again needs no pass at all, and another beginning all of it.
        assert_eq!(one(&mut session, &request, &mut Unwatched), reply);
        assert_eq!(session.reused(), [prompt.len() - 1]);
        if turn == 4 {
            let mut other = request.clone();
            other.prompt[3] += 1;
            let reply = one(&mut session, &other, &mut Unwatched);
            assert_eq!((reply, session.reused()), (alone(&model, &other, &[]), &[0][..]));
            one(&mut session, &request, &mut Unwatched);
        }
        // The base has a side of its own, alone or beside the other, and an end by the watcher loses nothing.
        if turn >= 2 {
            let base = Request { adapter: false, ..request.clone() };
            let mut watch = Noting { order: Vec::new(), ended: Vec::new(), most: 3 };
            let stopped = one(&mut session, &base, &mut watch);
            assert_eq!(stopped.ids, alone(&model, &base, &[]).ids[..3]);
            assert_eq!(session.reused(), [if made_anew { 0 } else { before }], "turn {turn}, base");
            let both = [base, request.clone()];
            let replies = session.reply(&both, &options, &mut Unwatched).expect("replies");
            assert_eq!(replies[0], alone(&model, &both[0], &[]), "turn {turn}");
            assert_eq!(replies[1], alone(&model, &request, &[]), "turn {turn}");
            let there = prompt.len() - 1;
            assert_eq!(session.reused(), [there, if made_anew { 0 } else { there }], "turn {turn}, both");
        }
        before = prompt.len() - 1;
        // As a template does: of the reply something is left, then the next message.
        prompt.extend_from_slice(&reply.ids[5..15]);
        prompt.extend((0..random.below(60)).map(|_| random.below(VOCABULARY as usize) as u32));
    }
}
