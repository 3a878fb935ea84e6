//! How fast a data set becomes packed training sequences: render, tokenize, mask and pack, by number of threads.
//!
//! ```sh
//! cargo run --release -p descant-harmony --example throughput -- FILE [MODEL_DIR]
//! ```
//!
//! Each measurement is a process of its own within this one: a fresh tokenizer, so that nothing is remembered from the
//! one before, and the best and the median of five. Bytes are those of the rendered text. Reading the file and loading
//! the tokenizer are not counted. `scripts/bench_harmony.py` does the same rows in Python and prints both side by side.

#![expect(clippy::print_stdout, reason = "an example is a program of its own")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use descant_harmony::pack::{Packed, PackedOrder};
use descant_harmony::prepare::{PrepareOptions, prepare};
use descant_harmony::read::{DataSet, ReadOptions, read};
use descant_harmony::vocabulary::gpt_oss_tokenizer;
use descant_harmony::{ChatTemplate, RenderOptions, Renderer, TextEncoder as _, Tokenizer, ViewPolicy};

const ROUNDS: usize = 5;
const CAPACITY: usize = 8192;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let file = PathBuf::from(arguments.next().ok_or("usage: throughput FILE [MODEL_DIR]")?);
    let set = read(&file, &ReadOptions::default())?;
    let bytes = match arguments.next() {
        Some(dir) => std::fs::read(PathBuf::from(dir).join("tokenizer.json"))?,
        None => gpt_oss_tokenizer()?,
    };
    let rendered = rendered_bytes(&fresh(&bytes)?, &set)?;
    println!("{} rows, {:.2} MB rendered", set.rows.len(), rendered as f64 / 1e6);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let mut seconds = Vec::new();
        let mut tokens = 0;
        for _ in 0..ROUNDS {
            let renderer = fresh(&bytes)?;
            let start = Instant::now();
            tokens = pool.install(|| packed_tokens(&renderer, &set))?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let rate = |seconds: f64| rendered as f64 / 1e6 / seconds;
        let (best, median) = (rate(seconds[0]), rate(seconds[ROUNDS / 2]));
        println!("{threads} threads: best {best:.1} MB/s, median {median:.1} MB/s, {tokens} tokens");
    }
    // The engine alone, on the same text: every row's text once, nothing remembered, then all of it remembered.
    let renderer = fresh(&bytes)?;
    let texts: Vec<String> = texts(&renderer, &set)?;
    for round in ["first time", "from memory"] {
        let start = Instant::now();
        let mut tokens = 0;
        for text in &texts {
            tokens += renderer.tokenizer().encode_rendered(text)?.len();
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("tokenizer alone, {round}: {:.1} MB/s, {tokens} tokens", rendered as f64 / 1e6 / seconds);
    }
    Ok(())
}

fn fresh(bytes: &[u8]) -> Result<Renderer, Box<dyn Error>> {
    Ok(Renderer::new(Tokenizer::from_bytes(bytes, "tokenizer.json")?, ChatTemplate::official()?))
}

fn texts(renderer: &Renderer, set: &DataSet) -> Result<Vec<String>, Box<dyn Error>> {
    let mut texts = Vec::new();
    for row in &set.rows {
        let conversation = row.conversation().ok_or("rendered text; expected conversations")?;
        texts.push(renderer.render(conversation, &RenderOptions::default())?.text);
    }
    Ok(texts)
}

fn rendered_bytes(renderer: &Renderer, set: &DataSet) -> Result<usize, Box<dyn Error>> {
    Ok(texts(renderer, set)?.iter().map(String::len).sum())
}

/// Everything that happens to a data set before the first step.
fn packed_tokens(renderer: &Renderer, set: &DataSet) -> descant_harmony::Result<usize> {
    let options = PrepareOptions { views: ViewPolicy::WholeRow, ..PrepareOptions::default() };
    let examples = prepare(renderer, set, &options)?.examples;
    let lengths = examples.iter().map(|example| example.ids.len()).collect();
    let mut order = PackedOrder::shuffled(lengths, CAPACITY, 3407)?;
    let mut tokens = 0;
    for position in 0..order.bins() as u64 {
        let bin = order.bin_at(position)?.iter().map(|at| {
            let example = &examples[*at];
            (*at, example.ids.as_slice(), example.mask.weights.as_slice())
        });
        tokens += Packed::new(bin).ids.len();
    }
    Ok(tokens)
}
