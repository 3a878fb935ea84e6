//! Measures the whole path of a data set: render, tokenize, parse, mask, pack. For `docs/benchmarks.md`.
//!
//! ```text
//! throughput MODEL_DIR FILE [ROUNDS]
//! ```
//!
//! Prints one line for one thread and one for two; MB are those of the rendered text. The best of the rounds counts,
//! since other work on the machine only ever makes a round slower. Where the system tells it (Linux), the rate per
//! second of processor time stands beside it, which other work does not change.
#![allow(clippy::print_stdout, reason = "a measuring program prints what it measured")]

use descant_harmony::Renderer;
use descant_harmony::pack::{Packed, best_fit};
use descant_harmony::prepare::{PrepareOptions, prepare};
use descant_harmony::read::{ReadOptions, read};
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, file, rounds @ ..] = arguments.as_slice() else {
        return Err("usage: throughput MODEL_DIR FILE [ROUNDS]".into());
    };
    let rounds: u32 = rounds.first().map_or(Ok(5), |rounds| rounds.parse())?;
    let start = Instant::now();
    let renderer = Renderer::load(&PathBuf::from(model), None)?;
    println!("load model directory: {:.2} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let set = read(&PathBuf::from(file), &ReadOptions::default())?;
    println!("read {} rows: {:.3} s", set.rows.len(), start.elapsed().as_secs_f64());
    let options = PrepareOptions::default();
    let mut bytes = 0;
    for row in &set.rows {
        for view in renderer.views(&row.body, &options.render, options.views)? {
            bytes += view.rendered.text.len();
        }
    }
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let (mut best, mut best_busy) = (f64::INFINITY, f64::INFINITY);
        let mut summary = String::new();
        for _ in 0..rounds {
            // A new one each round: it remembers words, and a second round would know them all.
            let renderer = Renderer::load(&PathBuf::from(model), None)?;
            let (start, busy) = (Instant::now(), processor_s());
            let prepared = pool.install(|| prepare(&renderer, &set, &options))?;
            let lengths: Vec<usize> = prepared.examples.iter().map(|example| example.ids.len()).collect();
            let capacity = lengths.iter().copied().max().unwrap_or(0).max(4096);
            let bins = best_fit(&lengths, capacity)?;
            let packed: Vec<Packed> = bins
                .iter()
                .map(|bin| {
                    Packed::new(bin.iter().map(|at| {
                        let example = &prepared.examples[*at];
                        (*at, example.ids.as_slice(), example.mask.weights.as_slice())
                    }))
                })
                .collect();
            best = best.min(start.elapsed().as_secs_f64());
            best_busy = best_busy.min(processor_s() - busy);
            let tokens: usize = packed.iter().map(|pack| pack.ids.len()).sum();
            summary = format!("{} examples, {tokens} tokens, {} packs", lengths.len(), packed.len());
        }
        let (rate, busy_rate) = (bytes as f64 / best / 1e6, bytes as f64 / best_busy / 1e6);
        println!(
            "{threads} thread(s): {rate:.2} MB/s by the clock, {busy_rate:.2} MB per processor second ({bytes} bytes, {summary})"
        );
    }
    Ok(())
}

/// Processor time of this process in all its threads; not a number where the system does not tell.
fn processor_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // User and system time are the 14th and 15th field, in hundredths of a second, after a name in brackets.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    if ticks.len() == 2 { (ticks[0] + ticks[1]) / 100.0 } else { f64::NAN }
}
