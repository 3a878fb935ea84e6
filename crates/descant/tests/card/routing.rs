//! How often a step of generation sends a token to other experts than a forward over the same ids, and how far the
//! log-probabilities that it reports are from that forward's.
//!
//! `DESCANT_CARD_MODEL` names a model directory to count on beside the random ones; nothing is asked of its counts.

use std::path::PathBuf;

use descant_kernels::cuda::{take_routing, watch_routing};
use descant_kernels::read_floats;
use descant_model::{Bare, Batch, GenerateOptions, GptOss, Overlay, Request, Sampling, Unwatched};

use crate::decoded::adapter;
use crate::{card, models};

const SEQUENCES: usize = 8;
const PROMPT: usize = 100;
const NEW: usize = 100;

/// The experts of each row in each layer, sorted.
type Choices = Vec<Vec<Vec<u32>>>;

/// What the launches of `layers` layers chose for a row each, whose slots lie behind each other.
fn choices(launches: &[Vec<u32>], top_k: usize) -> Choices {
    let sorted = |row: &[u32]| {
        let mut row = row.to_vec();
        row.sort_unstable();
        row
    };
    launches.iter().map(|layer| layer.chunks_exact(top_k).map(sorted).collect()).collect()
}

/// Pairs of a layer and a token whose experts differ, and all; tokens that differ in any layer, and of those that do and
/// those that do not the differences of log-probabilities.
#[derive(Debug, Default)]
struct Found {
    choices: [usize; 2],
    tokens: usize,
    same: Vec<f32>,
    other: Vec<f32>,
}

/// Of so many sequences of drawn tokens, by a step and by a forward; with `shift` the forward of other ids: the control.
fn count(model: &GptOss, overlay: &dyn Overlay, shift: u32) -> Found {
    let config = &model.config;
    let (layers, top_k, vocabulary) =
        (config.num_hidden_layers, config.num_experts_per_tok, config.vocab_size as u32);
    let prompt = |n: usize| (0..PROMPT).map(|i| ((i * 7919 + n * 31 + 13) as u32) % vocabulary).collect();
    let sampling = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
    let request = |n: usize| Request { sampling, stream: n as u64, ..Request::greedy(prompt(n), NEW) };
    let requests: Vec<Request> = (0..SEQUENCES).map(request).collect();
    let options = GenerateOptions { log_probabilities: Some(0), ..GenerateOptions::default() };
    take_routing();
    watch_routing(true);
    let made = model.generate(&requests, overlay, &options, &mut Unwatched).expect("replies");
    let launches = take_routing();
    let steps: Vec<Vec<u32>> =
        launches.into_iter().filter(|launch| launch.len() == SEQUENCES * top_k).collect();
    // A step computes the token before the one it chooses, the first the prompt's last; those behind were queued ahead.
    assert!(steps.len() >= NEW * layers, "{} layers were computed in steps", steps.len());
    let steps = choices(&steps[..NEW * layers], top_k);

    let whole: Vec<Vec<u32>> = requests
        .iter()
        .zip(&made)
        .map(|(request, made)| {
            let ids = request.prompt.iter().chain(&made.ids);
            ids.map(|id| (id + shift) % vocabulary).collect()
        })
        .collect();
    let batch = Batch::new(whole.iter().map(Vec::as_slice), config.vocab_size).expect("a batch");
    let hidden = model.hidden(&batch, overlay);
    let length = PROMPT + NEW;
    let rows: Vec<usize> = (0..SEQUENCES * NEW).map(|i| i / NEW * length + PROMPT + i % NEW - 1).collect();
    let targets: Vec<u32> = made.iter().flat_map(|made| made.ids.iter().copied()).collect();
    let losses = read_floats(model.token_losses(hidden, &rows, &targets)).expect("losses");
    watch_routing(false);
    let whole = SEQUENCES * length * top_k;
    let launches: Vec<Vec<u32>> = take_routing().into_iter().filter(|launch| launch.len() == whole).collect();
    let forward = choices(&launches, top_k);
    assert_eq!(forward.len(), layers, "a launch a layer");

    let mut found = Found::default();
    for (sequence, made) in made.iter().enumerate() {
        for step in 0..NEW {
            let differ = (0..layers)
                .filter(|layer| {
                    steps[step * layers + layer][sequence]
                        != forward[*layer][sequence * length + PROMPT + step - 1]
                })
                .count();
            found.choices[0] += differ;
            found.choices[1] += layers;
            found.tokens += usize::from(differ > 0);
            let difference = (made.log_probabilities[step] + losses[sequence * NEW + step]).abs();
            if differ > 0 { found.other.push(difference) } else { found.same.push(difference) }
        }
    }
    found
}

fn told(values: &mut [f32]) -> String {
    values.sort_by(f32::total_cmp);
    let Some(last) = values.last() else { return "none".to_owned() };
    let at = |part: f64| values[((values.len() - 1) as f64 * part) as usize];
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    format!(
        "{} tokens, mean {mean:.5}, median {:.5}, 90 % {:.5}, 99 % {:.5}, largest {last:.4}",
        values.len(),
        at(0.5),
        at(0.9),
        at(0.99)
    )
}

fn say(name: &str, found: &mut Found) {
    let [differ, all] = found.choices;
    println!("{name}: {differ} of {all} choices of a layer differ, in {} tokens", found.tokens);
    println!("  log-probabilities where none differs: {}", told(&mut found.same));
    println!("  where one does: {}", told(&mut found.other));
}

#[test]
#[ignore = "needs a card"]
fn a_step_chooses_the_experts_of_a_forward_but_for_near_ties() {
    let card = card();
    for case in [models::varied(), models::all().swap_remove(1)] {
        let model = case.load(&card);
        let adapter = adapter(&case, &model);
        let mut found = count(&model, &adapter, 0);
        say(case.name, &mut found);
        let [differ, all] = found.choices;
        assert!(differ * 20 < all, "{differ} of {all}");
        let [differ, all] = count(&model, &adapter, 1).choices;
        assert!(differ * 4 > all, "the control: {differ} of {all} choices for other tokens differ");
    }
    let Some(dir) = std::env::var_os("DESCANT_CARD_MODEL").map(PathBuf::from) else { return };
    let model = GptOss::load(&dir, &card).expect("the model loads");
    say(&dir.display().to_string(), &mut count(&model, &Bare, 0));
}
