//! Generation: the batch, the stop ids and the cache must not change what a prompt gets.

use std::path::Path;

use burn::tensor::Device;
use descant_model::{
    Bare, Batch, Error, GenerateOptions, Go, GptOss, NewToken, Overlay, Request, Sampling, Site, StopReason,
    Unwatched, Watch, log_sum_exp, stop_ids,
};

fn dir() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden/parity-a")
}

fn model() -> GptOss {
    GptOss::load(&dir(), &Device::flex()).expect("the golden model loads")
}

fn greedy(prompts: &[Vec<u32>], max_new_tokens: usize) -> Vec<Request> {
    prompts.iter().map(|ids| Request::greedy(ids.clone(), max_new_tokens)).collect()
}

fn free() -> GenerateOptions {
    GenerateOptions::default()
}

/// Greedy by running the whole sequence again for every token.
fn without_cache(model: &GptOss, prompt: &[u32], n: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    for _ in 0..n {
        let batch = Batch::new([ids.as_slice()], model.config.vocab_size).expect("valid");
        let logits: Vec<f32> =
            model.logits(model.hidden(&batch, &Bare)).into_data().try_to_vec().expect("f32");
        let last = &logits[logits.len() - model.config.vocab_size..];
        let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).expect("not empty");
        ids.push(best as u32);
    }
    ids.split_off(prompt.len())
}

#[test]
fn cached_batched_generation_equals_running_everything_again() {
    let model = model();
    let prompts: Vec<Vec<u32>> = vec![vec![5], (0..23).map(|i| i * 11 % 512).collect(), vec![400, 3, 77]];
    let out = model.generate(&greedy(&prompts, 20), &Bare, &free(), &mut Unwatched).expect("generates");
    for (prompt, out) in prompts.iter().zip(&out) {
        assert_eq!(out.ids, without_cache(&model, prompt, 20));
        assert_eq!(out.stop, StopReason::Length);
    }
}

#[test]
fn a_stop_id_ends_its_own_sequence_only() {
    let model = model();
    let prompts: Vec<Vec<u32>> = vec![vec![5], vec![400, 3, 77]];
    let prompts = greedy(&prompts, 12);
    let free = model.generate(&prompts, &Bare, &free(), &mut Unwatched).expect("generates");
    let stop = free[0].ids[4];
    let with_stop = GenerateOptions { stop_ids: vec![stop], ..GenerateOptions::default() };
    let out = model.generate(&prompts, &Bare, &with_stop, &mut Unwatched).expect("generates");
    let end = free[0].ids.iter().position(|&id| id == stop).expect("it is there");
    assert_eq!(out[0].ids, free[0].ids[..=end]);
    assert_eq!(out[0].stop, StopReason::StopToken);
    assert!(!free[1].ids.contains(&stop) && out[1] == free[1], "the other continues");
}

#[test]
fn the_stop_ids_are_those_of_generation_config() {
    assert_eq!(stop_ids(&dir()).expect("reads"), [511]);
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-gpt-oss");
    assert_eq!(stop_ids(&tiny).expect("reads"), [1519, 1516, 1529]);
}

#[test]
fn nothing_asked_is_nothing_done() {
    let model = model();
    assert!(model.generate(&[], &Bare, &free(), &mut Unwatched).expect("generates").is_empty());
    let out = model.generate(&greedy(&[vec![1]], 0), &Bare, &free(), &mut Unwatched).expect("generates");
    assert!(out[0].ids.is_empty() && out[0].stop == StopReason::Length);
    assert!(model.generate(&greedy(&[vec![]], 3), &Bare, &free(), &mut Unwatched).is_err());
}

/// Keeps what it receives, and ends where it is configured to.
#[derive(Default)]
struct Keeping {
    told: Vec<(usize, usize, u32, Option<f32>)>,
    ended: Vec<(usize, StopReason)>,
    end: Option<(usize, usize, Go)>,
}

impl Watch for Keeping {
    fn token(&mut self, token: &NewToken<'_>) -> Go {
        self.told.push((token.sequence, token.step, token.id, token.log_probability));
        match self.end {
            Some((sequence, step, go)) if (sequence, step) == (token.sequence, token.step) => go,
            _ => Go::On,
        }
    }

    fn ended(&mut self, sequence: usize, stop: StopReason) {
        self.ended.push((sequence, stop));
    }
}

/// An overlay that changes much: the product of `x` and its sign, cut to the width of the site.
struct Loud<'a>(&'a GptOss);

impl Overlay for Loud<'_> {
    fn delta(
        &self,
        site: Site,
        x: &burn::tensor::Tensor<2>,
        _: &descant_kernels::Groups,
    ) -> Option<burn::tensor::Tensor<2>> {
        let dims = self.0.config.site_dims(site.kind);
        (site.kind == descant_model::SiteKind::Output).then(|| {
            let rows = x.dims()[0];
            x.clone().sum_dim(1).expand([rows, dims.d_out])
        })
    }
}

#[test]
fn a_watcher_is_told_every_token_in_order_and_may_end_one_or_all() {
    let model = model();
    let prompts = greedy(&[vec![5], vec![400, 3, 77], vec![9, 9]], 8);
    let mut all = Keeping::default();
    let free_run = model.generate(&prompts, &Bare, &free(), &mut all).expect("generates");
    for (sequence, reply) in free_run.iter().enumerate() {
        let told: Vec<_> = all.told.iter().filter(|token| token.0 == sequence).collect();
        assert_eq!(told.iter().map(|token| token.1).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
        assert_eq!(told.iter().map(|token| token.2).collect::<Vec<_>>(), reply.ids);
        assert!(told.iter().all(|token| token.3.is_none()), "nobody asked");
    }
    assert_eq!(all.ended, [0, 1, 2].map(|sequence| (sequence, StopReason::Length)));

    let mut one = Keeping { end: Some((1, 2, Go::EndSequence)), ..Keeping::default() };
    let out = model.generate(&prompts, &Bare, &free(), &mut one).expect("generates");
    assert_eq!((out[1].ids.as_slice(), out[1].stop), (&free_run[1].ids[..3], StopReason::Stopped));
    assert_eq!([&out[0], &out[2]], [&free_run[0], &free_run[2]], "the others do not notice");

    let mut everything = Keeping { end: Some((1, 2, Go::EndAll)), ..Keeping::default() };
    let out = model.generate(&prompts, &Bare, &free(), &mut everything).expect("generates");
    assert_eq!(out.iter().map(|reply| reply.ids.len()).collect::<Vec<_>>(), [3, 3, 2]);
    assert!(out.iter().all(|reply| reply.stop == StopReason::Stopped));
    assert_eq!(everything.told.len(), 8, "nothing is reported after the end");
    let mut ended: Vec<usize> = everything.ended.iter().map(|end| end.0).collect();
    ended.sort_unstable();
    assert_eq!(ended, [0, 1, 2], "every end is reported once");
}

#[test]
fn each_prompt_has_its_own_length_and_overlay() {
    let model = model();
    let loud = Loud(&model);
    let alone = |ids: &[u32], n, adapter| {
        let request = Request { adapter, ..Request::greedy(ids.to_vec(), n) };
        model.generate(&[request], &loud, &free(), &mut Unwatched).expect("generates").remove(0)
    };
    let mixed: Vec<(&[u32], usize, bool)> = vec![
        (&[5, 6], 9, true),
        (&[5, 6], 4, false),
        (&[77], 0, true),
        (&[400, 3], 6, true),
        (&[8], 7, false),
    ];
    let requests: Vec<Request> = mixed
        .iter()
        .map(|(ids, n, adapter)| Request { adapter: *adapter, ..Request::greedy(ids.to_vec(), *n) })
        .collect();
    let out = model.generate(&requests, &loud, &free(), &mut Unwatched).expect("generates");
    for (out, (ids, n, adapter)) in out.iter().zip(&mixed) {
        assert_eq!(out.ids.len(), *n);
        assert_eq!(*out, alone(ids, *n, *adapter));
    }
    assert_ne!(out[0].ids[..4], out[1].ids, "the overlay shows");
}

#[test]
fn the_same_seed_gives_the_same_text_whatever_the_batch() {
    let model = model();
    let request = |ids: &[u32], stream| Request {
        sampling: Sampling {
            temperature: 1.3,
            top_k: 40,
            top_p: 0.95,
            repetition_penalty: 1.2,
            seed: 11,
            ..Sampling::default()
        },
        stream,
        ..Request::greedy(ids.to_vec(), 15)
    };
    let mine = request(&[5, 6, 7], 3);
    let alone =
        model.generate(std::slice::from_ref(&mine), &Bare, &free(), &mut Unwatched).expect("generates");
    let others: Vec<Request> = (0..5).map(|i| request(&[i, 2 * i + 1], u64::from(i))).collect();
    for place in 0..=others.len() {
        let mut all = others.clone();
        all.insert(place, mine.clone());
        let out = model.generate(&all, &Bare, &free(), &mut Unwatched).expect("generates");
        assert_eq!(out[place], alone[0], "at {place}");
    }
    let other = model.generate(&[request(&[5, 6, 7], 4)], &Bare, &free(), &mut Unwatched).expect("generates");
    assert_ne!(other, alone, "another stream draws other numbers");
}

#[test]
fn log_probabilities_are_those_of_the_whole_forward_before_any_filter() {
    let model = model();
    let options = GenerateOptions { log_probabilities: Some(3), ..GenerateOptions::default() };
    let sampling =
        Sampling { temperature: 2.0, top_k: 5, repetition_penalty: 1.5, seed: 2, ..Sampling::default() };
    let prompt = vec![5u32, 6, 7];
    let request = Request { sampling, ..Request::greedy(prompt.clone(), 6) };
    let mut watch = Keeping::default();
    let out = model.generate(&[request], &Bare, &options, &mut watch).expect("generates").remove(0);
    let whole = [prompt.clone(), out.ids.clone()].concat();
    let batch = Batch::new([whole.as_slice()], model.config.vocab_size).expect("valid");
    let logits: Vec<f32> = model.logits(model.hidden(&batch, &Bare)).into_data().try_to_vec().expect("f32");
    let rows = logits.chunks_exact(model.config.vocab_size).skip(prompt.len() - 1);
    for (step, row) in rows.take(out.ids.len()).enumerate() {
        let of = |id: u32| (f64::from(row[id as usize]) - log_sum_exp(row)) as f32;
        assert!((out.log_probabilities[step] - of(out.ids[step])).abs() < 1e-4);
        assert_eq!(watch.told[step].3, Some(out.log_probabilities[step]));
        assert_eq!(out.top[step].len(), 3);
        assert!(out.top[step].iter().all(|(id, value)| (value - of(*id)).abs() < 1e-4));
        assert!(out.top[step].is_sorted_by(|a, b| a.1 >= b.1));
    }
}

#[test]
fn a_full_context_is_an_end_and_a_prompt_beyond_it_an_error() {
    let mut model = model();
    model.config.max_context = 10;
    let request = Request::greedy((1..8).collect(), 20);
    let out = model.generate(&[request], &Bare, &free(), &mut Unwatched).expect("generates").remove(0);
    assert_eq!((out.ids.len(), out.stop), (3, StopReason::Context));
    for tokens in [10, 11] {
        let requests = greedy(&[vec![1], (0..tokens).collect()], 5);
        match model.generate(&requests, &Bare, &free(), &mut Unwatched) {
            Err(Error::PromptTooLong { index: 1, context: 10, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn sampling_out_of_range_is_refused() {
    let sampling = Sampling { top_p: 0.0, ..Sampling::default() };
    let request = Request { sampling, ..Request::greedy(vec![1], 1) };
    let error = model().generate(&[request], &Bare, &free(), &mut Unwatched).expect_err("refused");
    assert!(error.to_string().contains("top-p is 0"), "{error}");
}
