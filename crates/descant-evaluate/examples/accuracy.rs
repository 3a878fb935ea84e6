//! How often the language judge is right on texts whose language is known, and how many replies it judges in a second.
//!
//! ```text
//! cargo run --release -p descant-evaluate --example accuracy [FILE | FILE:COLUMN=CODE]...
//! ```
//!
//! Without arguments: the questions of the suite `mgsm`, and the reasoning in the data of the tiny model. A file is
//! `mgsm_CODE.tsv` (its first column), rows with `text` and `language`, or training rows with `reasoning_language` and
//! `analysis`; `FILE:COLUMN=CODE` names column and language of any other rows. Each set is judged as whole texts and a
//! sentence at a time; where it has several languages, also as mixtures of two. The judge does not know the language.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement talks")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use descant_evaluate::{Answer, Asked, Detector, Language, Suite, judge, letters_weight, sentences};
use descant_harmony::read::{Columns, each_object};
use descant_harmony::{TextEncoder as _, Tokenizer};
use serde_json::{Map, Value};

type Failure = Box<dyn std::error::Error>;

const TINY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss/data/multilingual-thinking-tiny.jsonl");
/// Mixtures of each kind.
const MIXTURES: usize = 700;
/// Characters of a reply whose judging is timed.
const REPLY: usize = 500;
/// Seconds for which replies are judged.
const SECONDS: f64 = 3.0;

/// A text, and the code of its language.
type Labelled = (String, &'static str);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Failure> {
    let mut sets = Vec::new();
    if arguments.is_empty() {
        sets.push(("suite mgsm, questions".to_owned(), of_suite(&Suite::load("mgsm")?)?));
        sets.push(("reasoning of the tiny model's data".to_owned(), of_file(TINY)?));
    }
    // Files of one kind are one set: mgsm_de.tsv and mgsm_fr.tsv are two languages of the same.
    let mut tables = Vec::new();
    for argument in arguments {
        let texts = of_file(argument)?;
        let is_table = Path::new(argument).extension().is_some_and(|ending| ending == "tsv");
        if is_table { tables.extend(texts) } else { sets.push((argument.clone(), texts)) }
    }
    if !tables.is_empty() {
        sets.insert(0, ("questions of all tables".to_owned(), tables));
    }
    let detector = Detector::new(&[]);
    for (name, texts) in &sets {
        println!("{name}");
        count("whole texts", texts, &detector);
        let alone: Vec<Labelled> = texts
            .iter()
            .flat_map(|(text, code)| sentences(text).into_iter().map(|one| (one.trim().to_owned(), *code)))
            .collect();
        count("a sentence at a time", &alone, &detector);
        mixtures(texts, &detector);
    }
    if let Some((_, texts)) = sets.first() {
        speed(texts, &detector)?;
    }
    Ok(())
}

/// The code of a language by its name or code.
fn code(name: &str) -> Result<&'static str, Failure> {
    let language = Language::from_code(name).or_else(|| Language::from_name(name));
    Ok(language.ok_or_else(|| format!("`{name}` is not a language that can be asked for"))?.code())
}

fn of_suite(suite: &Suite) -> Result<Vec<Labelled>, Failure> {
    let mut texts = Vec::new();
    for question in &suite.questions {
        let tag = question.tags.iter().find_map(|tag| tag.strip_prefix("question:"));
        texts.push((question.user().to_owned(), code(tag.ok_or("a question without a language")?)?));
    }
    Ok(texts)
}

fn of_file(argument: &str) -> Result<Vec<Labelled>, Failure> {
    if let Some((name, _)) = argument.rsplit_once(".tsv") {
        let language = code(name.rsplit_once('_').ok_or("expected NAME_CODE.tsv")?.1)?;
        let text = std::fs::read_to_string(argument)?;
        let first = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
        return Ok(text.lines().map(|line| (first(line), language)).collect());
    }
    let named = argument.rsplit_once(':').and_then(|(file, rest)| Some((file, rest.split_once('=')?)));
    let (file, column) = named.map_or((argument, None), |(file, column)| (file, Some(column)));
    let mut texts = Vec::new();
    let mut failed: Option<Failure> = None;
    each_object(Path::new(file), Columns::All, |_, row| {
        match labelled(&row?, column) {
            Ok(found) => texts.push(found),
            Err(error) => failed = failed.take().or(Some(error)),
        }
        Ok(())
    })?;
    failed.map_or(Ok(texts), |error| Err(format!("{file}: {error}").into()))
}

fn labelled(row: &Map<String, Value>, column: Option<(&str, &str)>) -> Result<Labelled, Failure> {
    let text = |key: &str| row.get(key).and_then(Value::as_str).ok_or_else(|| format!("no text in `{key}`"));
    Ok(match column {
        Some((column, language)) => (text(column)?.to_owned(), code(language)?),
        None if row.contains_key("text") => (text("text")?.to_owned(), code(text("language")?)?),
        None => (text("analysis")?.to_owned(), code(text("reasoning_language")?)?),
    })
}

/// Right, unsure and wrong, and in which languages.
fn count(what: &str, texts: &[Labelled], detector: &Detector) {
    let mut of: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    let mut taken_for: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (text, language) in texts {
        let found = detector.language(text, "").verdict;
        let at = match found {
            found if found == *language => 0,
            "unsure" => 1,
            "mixed" => 2,
            _ => 3,
        };
        of.entry(language).or_default()[at] += 1;
        if at == 3 {
            *taken_for.entry((language, found)).or_default() += 1;
        }
    }
    let sum = |at: usize| of.values().map(|counts| counts[at]).sum::<usize>();
    let percent = |count: usize, all: usize| 100.0 * count as f64 / all.max(1) as f64;
    let n = texts.len();
    println!(
        "  {what}: right {} of {n} ({:.2} %), unsure {} ({:.2} %), mixed {}, wrong {} ({:.2} %)",
        sum(0),
        percent(sum(0), n),
        sum(1),
        percent(sum(1), n),
        sum(2),
        sum(3),
        percent(sum(3), n)
    );
    let mut worst: Vec<(f64, &str, usize, usize)> = of
        .iter()
        .map(|(language, counts)| {
            let all = counts.iter().sum();
            (percent(counts[0], all), *language, counts[0], all)
        })
        .filter(|(share, ..)| *share < 100.0)
        .collect();
    worst.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
    for (share, language, right, all) in worst.iter().take(4) {
        let others = taken_for.iter().filter(|((of, _), _)| of == language);
        let others: Vec<String> = others.map(|((_, found), times)| format!("{found} {times}")).collect();
        let others =
            if others.is_empty() { String::new() } else { format!(", taken for {}", others.join(", ")) };
        println!("    {language}: right {right} of {all} ({share:.2} %){others}");
    }
}

/// Two texts of different languages, half and half, and three to one.
fn mixtures(texts: &[Labelled], detector: &Detector) {
    let languages: std::collections::BTreeSet<&str> = texts.iter().map(|(_, code)| *code).collect();
    if languages.len() < 2 {
        return;
    }
    let mut state = 1_u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(state) * n as u128) >> 64) as usize
    };
    for (share, what) in [(0.5, "half and half, mixed"), (0.75, "three quarters of one, that one")] {
        let (mut right, mut n, mut off, mut tries) = (0, 0, 0.0, 0);
        while n < MIXTURES && tries < 100 * MIXTURES {
            tries += 1;
            let [(a, of_a), (b, of_b)] = [&texts[below(texts.len())], &texts[below(texts.len())]];
            let (weight_a, weight_b) = (letters_weight(a) as f64, letters_weight(b) as f64);
            let is = weight_a / (weight_a + weight_b).max(1.0);
            // Whole texts only, so that every sentence is one: those pairs that happen to have the share.
            if of_a == of_b || (is - share).abs() > 0.03 {
                continue;
            }
            n += 1;
            let found = detector.language(&format!("{a}\n{b}"), "");
            right += usize::from(found.verdict == if share > 0.6 { *of_a } else { "mixed" });
            let share = found.shares.iter().find(|(code, _)| code == of_a).map_or(0.0, |(_, share)| *share);
            off += (share - is).abs();
        }
        if n > 0 {
            let off = 100.0 * off / n as f64;
            println!("  {what}: {right} of {n}; mean error of the share {off:.1} points");
        }
    }
}

/// Replies that are judged in a second, whole: Harmony, end, both languages, answer.
fn speed(texts: &[Labelled], detector: &Detector) -> Result<(), Failure> {
    let tokenizer = Tokenizer::gpt_oss()?;
    let answer = Answer::from_json(&serde_json::json!({"kind": "number", "value": "42"}))?;
    let replies = texts.iter().map(|(text, _)| {
        let body: String = text.chars().cycle().take(REPLY - 20).collect();
        tokenizer.encode_rendered(&format!(
            "<|channel|>analysis<|message|>{body}<|end|><|start|>assistant<|channel|>final<|message|>The answer is 42.<|return|>"
        ))
    });
    let replies: Vec<Vec<u32>> = replies.collect::<Result<_, _>>()?;
    let asked =
        || Asked { prompt: "Compute.", language: None, answer_language: None, answer: &answer, tools: &[] };
    // Once for the models, which are read when they are first used.
    replies.iter().take(50).for_each(|ids| _ = judge(ids, asked(), &tokenizer, detector));
    let clock = Clock::start();
    let mut judged = 0_u64;
    for ids in replies.iter().cycle() {
        judged += u64::from(judge(ids, asked(), &tokenizer, detector).right == Some(true));
        if clock.seconds() > SECONDS {
            break;
        }
    }
    let rate = judged as f64 / clock.seconds();
    println!("speed: {rate:.0} replies of {REPLY} characters a second {}, one thread", clock.what());
    Ok(())
}

/// Seconds of a processor where the system reports it, so that other work does not count.
struct Clock {
    wall: Instant,
    processor: Option<f64>,
}

impl Clock {
    fn start() -> Self {
        Self { wall: Instant::now(), processor: Self::processor() }
    }

    fn seconds(&self) -> f64 {
        let since = self.processor.and_then(|start| Some(Self::processor()? - start));
        since.unwrap_or_else(|| self.wall.elapsed().as_secs_f64())
    }

    fn what(&self) -> &'static str {
        if self.processor.is_some() { "of a processor" } else { "by the clock" }
    }

    /// The first number there is nanoseconds on a processor.
    fn processor() -> Option<f64> {
        let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
        Some(text.split_whitespace().next()?.parse::<u64>().ok()? as f64 / 1e9)
    }
}
