//! How fast a data set becomes packed training sequences: render, tokenize, mask and pack, by number of threads.
//!
//! ```sh
//! cargo run --release -p descant-harmony --example throughput -- FILE [MODEL_DIR]
//! ```
//!
//! Each round has a fresh tokenizer, so that nothing is remembered from the one before. Bytes are those of the rendered
//! text; reading the file and loading the tokenizer are not counted. The time on the clock is followed by the time that
//! the threads had a processor (on Linux), which other programs on the machine change less.
//! `scripts/bench_harmony.py` does the same rows in Python, in turns with this.

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
        let mut rounds = Vec::new();
        let mut tokens = 0;
        for _ in 0..ROUNDS {
            let renderer = fresh(&bytes)?;
            let watch = Watch::start();
            tokens = pool.install(|| packed_tokens(&renderer, &set))?;
            rounds.push(watch.rates(rendered));
        }
        println!("{threads} threads: {}, {tokens} tokens", shown(&rounds));
    }
    // The engine alone, on the same text: every row's text once, nothing remembered, then all of it remembered.
    let texts: Vec<String> = texts(&fresh(&bytes)?, &set)?;
    let renderer = fresh(&bytes)?;
    for round in ["first time", "from memory"] {
        let watch = Watch::start();
        let mut tokens = 0;
        for text in &texts {
            tokens += renderer.tokenizer().encode_rendered(text)?.len();
        }
        println!("tokenizer alone, {round}: {}, {tokens} tokens", shown(&[watch.rates(rendered)]));
    }
    Ok(())
}

/// Clock and processor at the start of something.
struct Watch {
    clock: Instant,
    processor: Option<f64>,
}

impl Watch {
    fn start() -> Self {
        Self { clock: Instant::now(), processor: processor_seconds() }
    }

    /// MB/s by the clock and by the processor.
    fn rates(&self, bytes: usize) -> (f64, f64) {
        let megabytes = bytes as f64 / 1e6;
        let processor = self.processor.zip(processor_seconds()).map(|(start, end)| end - start);
        (megabytes / self.clock.elapsed().as_secs_f64(), processor.map_or(f64::NAN, |s| megabytes / s))
    }
}

/// Seconds that all threads of this process had a processor; on Linux.
fn processor_seconds() -> Option<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split_whitespace().next()?.parse::<f64>().ok()?;
    }
    Some(nanoseconds / 1e9)
}

/// Best and median of both rates.
fn shown(rounds: &[(f64, f64)]) -> String {
    let of = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        format!("best {:.1}, median {:.1} MB/s", rates[rates.len() - 1], rates[rates.len() / 2])
    };
    let (clock, processor) = rounds.iter().copied().unzip();
    format!("by the clock {}; a second of processor {}", of(clock), of(processor))
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
