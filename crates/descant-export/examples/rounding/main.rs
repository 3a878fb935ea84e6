//! What each rule of packing experts keeps of a fine-tune: the table of docs/export.md, made again.
//!
//! ```sh
//! cargo xtask rounding                    three rates, three seeds: an hour on two cores
//! cargo xtask rounding seeds=1 prompts=20
//! cargo xtask rounding seed=2             one seed alone
//! ```
//!
//! Trains the embedded default with experts alone, writes the merge by every rule, and evaluates base, adapter and
//! merges: loss and language asked for on held-out rows, loss and answers on rows that ask for no language. The rules
//! that this program does not offer are in `repack.rs`. It drives the binary, whose path is the first argument.

mod measure;
mod repack;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use measure::{Figures, measure};
use repack::{Rule, repack};

/// What can go wrong here ends the program with its text.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Peak learning rate and steps, smallest update first.
const RATES: [(&str, usize); 3] = [("3e-4", 100), ("1e-3", 100), ("5e-3", 60)];
/// Seeds of the adapter's first values and of the order of rows.
const SEEDS: [u64; 3] = [3407, 1, 2];

/// Where things are, and how much is asked.
pub(crate) struct Bench {
    pub(crate) descant: PathBuf,
    pub(crate) model: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) work: PathBuf,
    pub(crate) prompts: usize,
}

impl Bench {
    /// Runs the binary and returns its standard output.
    pub(crate) fn run(&self, arguments: &[String]) -> Result<String> {
        let output = Command::new(&self.descant).arg("-q").args(arguments).output()?;
        // Status 1 is a result too: done, with a negative result.
        if !matches!(output.status.code(), Some(0 | 1)) {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("descant {}: {why}", arguments.join(" ")).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let descant = arguments.next().ok_or("the path of the binary is missing")?.into();
    let (mut seeds, mut prompts, mut rates) = (SEEDS.to_vec(), 60, RATES.len());
    for argument in arguments {
        let (key, value) = argument.split_once('=').ok_or("expected seeds=, seed=, prompts= or rates=")?;
        match key {
            "seeds" => seeds.truncate(value.parse()?),
            "seed" => seeds = vec![value.parse()?],
            "prompts" => prompts = value.parse()?,
            "rates" => rates = value.parse()?,
            _ => return Err(format!("no argument `{key}`").into()),
        }
    }
    if seeds.is_empty() || rates == 0 {
        return Err("nothing to do: seeds and rates are 1 or more".into());
    }
    repack::check();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let model = root.join("fixtures/tiny-gpt-oss");
    let work = root.join(format!("target/rounding-{}", std::process::id()));
    std::fs::create_dir_all(&work)?;
    let bench = Bench { descant, data: model.join("data"), model, work, prompts };
    measure::other_rows(&bench)?;
    let base = measure(&bench, &bench.model, None)?;
    // A seed at a time, so that whoever stops it has every rate.
    let mut all: Vec<Vec<Vec<Row>>> = vec![Vec::new(); rates.min(RATES.len())];
    for seed in seeds {
        for (of_rate, (rate, steps)) in all.iter_mut().zip(RATES) {
            of_rate.push(one(&bench, rate, steps, seed, &base)?);
        }
    }
    for (of_rate, (rate, steps)) in all.iter().zip(RATES) {
        print(rate, steps, &base, of_rate);
    }
    // After an error it stays, to be looked at.
    Ok(std::fs::remove_dir_all(&bench.work)?)
}

/// A model and what it does.
#[derive(Clone)]
struct Row {
    name: &'static str,
    figures: Figures,
    /// Size of the update in shares of the weight, along it, error where A reads; for what we packed.
    survival: Option<[f64; 3]>,
}

/// Trains once and measures every merge.
fn one(bench: &Bench, rate: &str, steps: usize, seed: u64, base: &Figures) -> Result<Vec<Row>> {
    let run = bench.work.join(format!("lr{rate}-seed{seed}"));
    let mut arguments = vec!["train".to_owned()];
    let settings = [
        format!("model.path={}", bench.model.display()),
        format!("data.path={}", bench.data.join("multilingual-thinking-tiny-efforts.jsonl").display()),
        "data.held_out=".to_owned(),
        "lora.targets=[\"gate_up_proj\", \"down_proj\"]".to_owned(),
        format!("train.learning_rate={rate}"),
        format!("train.max_steps={steps}"),
        format!("train.seed={seed}"),
        format!("run.folder={}", run.display()),
    ];
    arguments.extend(settings.into_iter().flat_map(|set| ["--set".to_owned(), set]));
    bench.run(&arguments)?;
    let adapter = run.join("adapter");
    let mut rows =
        vec![Row { name: "adapter", figures: measure(bench, &bench.model, Some(&adapter))?, survival: None }];
    let said = |rows: &[Row]| {
        let row = rows.last().unwrap_or(&rows[0]);
        let survival = row.survival.map_or(String::new(), |[update, along, lost]| {
            format!("; update {:.1} %, along {along:.2}, A-error {lost:.2}", 100.0 * update)
        });
        let figures = row.figures.line(base, &rows[0].figures);
        progress(&format!("{rate} seed {seed}: {} {figures}{survival}", row.name));
    };
    said(&rows);
    let export = |name: &str, more: &[&str]| -> Result<PathBuf> {
        let out = run.join(name);
        let mut arguments: Vec<String> = ["export", "--allow-loss"].map(str::to_owned).into();
        for (flag, path) in [("--adapter", &adapter), ("--model", &bench.model), ("--out", &out)] {
            arguments.extend([flag.to_owned(), path.display().to_string()]);
        }
        arguments.extend(more.iter().map(|more| (*more).to_owned()));
        bench.run(&arguments)?;
        Ok(out)
    };
    let bf16 = export("bf16", &["--to", "bf16"])?;
    for (name, rule) in [("MXFP4 feedback", "feedback"), ("MXFP4 nearest", "nearest")] {
        let out = export(rule, &["--to", "mxfp4", "--experts", rule])?;
        let account: Value = serde_json::from_slice(&std::fs::read(out.join("export.json"))?)?;
        let figure = |key: &str| account["experts_survival"][key].as_f64().ok_or("no survival");
        let survival = Some([figure("update")?, figure("along")?, figure("a_error")?]);
        rows.push(Row { name, figures: measure(bench, &out, None)?, survival });
        said(&rows);
    }
    for (name, rule) in [("MXFP4 OCP", Rule::Ocp), ("MXFP4 round up", Rule::Up)] {
        let out = run.join(name.replace(' ', "-"));
        repack(&run.join("nearest"), &bf16, rule, &out)?;
        rows.push(Row { name, figures: measure(bench, &out, None)?, survival: None });
        said(&rows);
    }
    for name in ["bf16", "feedback", "nearest", "MXFP4-OCP", "MXFP4-round-up"] {
        std::fs::remove_dir_all(run.join(name))?;
    }
    Ok(rows)
}

/// The table of one rate: means over the seeds, and the gain kept as a range.
#[expect(clippy::print_stdout, reason = "an example shows what it measured")]
fn print(rate: &str, steps: usize, base: &Figures, all: &[Vec<Row>]) {
    let seeds = all.len() as f64;
    println!("\nLearning rate {rate}, {steps} steps, {} seeds:\n", all.len());
    println!(
        "| | update | along | A-error | held-out loss | gain kept | language asked | right | other rows: loss | right |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    println!("| base | | | | {:.4} | | {} |", base.loss, base.shares());
    for (at, row) in all[0].iter().enumerate() {
        let mean = |figure: &dyn Fn(&[Row]) -> f64| all.iter().map(|rows| figure(rows)).sum::<f64>() / seeds;
        let kept: Vec<f64> =
            all.iter().map(|rows| rows[at].figures.gain_kept(base, &rows[0].figures)).collect();
        let (least, most) =
            kept.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(*x), b.max(*x)));
        let survival = if row.survival.is_some() {
            let [update, along, lost] =
                [0, 1, 2].map(|i| mean(&|rows| rows[at].survival.map_or(0.0, |found| found[i])));
            format!("{:.1} % | {along:.2} | {lost:.2}", 100.0 * update)
        } else {
            " | |".to_owned()
        };
        println!(
            "| {} | {survival} | {:.4} | {:.0} to {:.0} % | {:.0} % | {:.0} % | {:.4} | {:.0} % |",
            row.name,
            mean(&|rows| rows[at].figures.loss),
            100.0 * least,
            100.0 * most,
            100.0 * mean(&|rows| rows[at].figures.hit),
            100.0 * mean(&|rows| rows[at].figures.right),
            mean(&|rows| rows[at].figures.other_loss),
            100.0 * mean(&|rows| rows[at].figures.other_right),
        );
    }
}

#[expect(clippy::print_stderr, reason = "talk goes to standard error")]
fn progress(text: &str) {
    eprintln!("{text}");
}
