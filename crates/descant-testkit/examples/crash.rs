//! `cargo xtask crash`: kills, signals, full disks and a soak, against the binary it is given.
//!
//! Says what it did and how often; ends with 1 when a run did not end with the bytes of one that nobody disturbed.
//! With `control=1` it breaks a rule for each harness and ends with 1 unless every one of them is seen.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use descant_testkit::crash::disk::full_disks;
use descant_testkit::crash::soak::soak;
use descant_testkit::crash::{Bytes, Subject};
use descant_testkit::micro::Options;
use descant_testkit::scratch;

const USAGE: &str =
    "usage: crash BINARY [kills=100] [signals=50] [soak=0] [seed=1] [cards=1] [control=0] [folder=PATH]";
/// Steps of a run that is killed or sent signals.
const STEPS: u64 = 60;
/// Too small for the settings, for the log, for the first checkpoint, for a third beside two.
const SMALL_DISKS: [&str; 4] = ["8k", "20k", "48k", "148k"];
/// The share of kills that must fall into a save.
const IN_SAVE: f64 = 0.4;

struct Wanted {
    binary: PathBuf,
    kills: usize,
    signals: usize,
    soak: u64,
    seed: u64,
    /// Processes that share each run.
    cards: usize,
    control: bool,
    /// Where runs are made: in memory when absent, which is fast; a disk makes saves long.
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = wanted().and_then(|wanted| if wanted.control { controls(&wanted) } else { run(&wanted) });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn wanted() -> Result<Wanted, String> {
    let mut arguments = std::env::args().skip(1);
    let binary = arguments.next().ok_or(USAGE)?.into();
    let mut wanted =
        Wanted { binary, kills: 100, signals: 50, soak: 0, seed: 1, cards: 1, control: false, folder: None };
    for argument in arguments {
        let (key, value) = argument.split_once('=').ok_or(USAGE)?;
        if key == "folder" {
            wanted.folder = Some(value.into());
            continue;
        }
        let value: u64 = value.parse().map_err(|_| USAGE)?;
        match key {
            "kills" => wanted.kills = value as usize,
            "signals" => wanted.signals = value as usize,
            "soak" => wanted.soak = value,
            "seed" => wanted.seed = value,
            "cards" => wanted.cards = value as usize,
            "control" => wanted.control = value > 0,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(wanted)
}

/// A subject, and what it does when nobody disturbs it.
struct Undisturbed {
    subject: Subject,
    bytes: Bytes,
    length: Duration,
}

impl Undisturbed {
    fn new(wanted: &Wanted, dir: &Path) -> Result<Self, String> {
        let subject = subject(wanted, dir, "subject", STEPS)?;
        let start = Instant::now();
        let bytes = subject.run(&dir.join("whole"))?;
        let mut length = start.elapsed();
        let mut subject = subject;
        if wanted.cards > 1 {
            // What is disturbed is shared; what it must end with is what one process makes.
            subject.cards = Some(wanted.cards);
            let start = Instant::now();
            if subject.run(&dir.join("shared"))? != bytes {
                return Err(format!("{} processes end with other bytes than one", wanted.cards));
            }
            length = start.elapsed();
        }
        say(&format!("a run: {STEPS} steps in {:.2} s", length.as_secs_f64()));
        Ok(Self { subject, bytes, length })
    }
}

fn subject(wanted: &Wanted, dir: &Path, name: &str, steps: u64) -> Result<Subject, String> {
    let place = dir.join(name);
    std::fs::create_dir(&place)
        .and_then(|()| Subject::new(&wanted.binary, &place, &Options::default(), steps))
        .map_err(|e| e.to_string())
}

fn place(wanted: &Wanted) -> Result<tempfile::TempDir, String> {
    wanted.folder.as_ref().map_or_else(|| Ok(scratch()), tempfile::tempdir_in).map_err(|e| e.to_string())
}

fn run(wanted: &Wanted) -> Result<(), String> {
    let dir = place(wanted)?;
    let dir = dir.path();
    let Undisturbed { subject: micro, bytes, length } = Undisturbed::new(wanted, dir)?;
    if wanted.kills > 0 {
        let start = Instant::now();
        let tally = micro.kill(dir, &bytes, wanted.kills, length, wanted.seed)?;
        let share = tally.in_save as f64 / tally.kills as f64;
        say(&format!(
            "kills: {} over {} runs, {} ({:.0} %) inside a save; all bytes equal; {:.1} s",
            tally.kills,
            tally.runs,
            tally.in_save,
            100.0 * share,
            start.elapsed().as_secs_f64()
        ));
        if share < IN_SAVE && tally.kills >= 50 {
            return Err(format!("only {:.0} % of the kills fell into a save", 100.0 * share));
        }
    }
    if wanted.signals > 0 {
        let start = Instant::now();
        let ended = micro.signals(dir, &bytes, wanted.signals, length, wanted.seed)?;
        say(&format!(
            "signals: {} sent, {ended} ended a run, each with its status; all bytes equal; {:.1} s",
            wanted.signals,
            start.elapsed().as_secs_f64()
        ));
    }
    if wanted.cards == 1 {
        say(&full_disks(&micro, dir, &bytes, &SMALL_DISKS)?);
    }
    if wanted.soak > 0 {
        let micro = subject(wanted, dir, "soak", wanted.soak)?;
        say(&soak(&micro, dir, wanted.soak, wanted.seed)?);
    }
    Ok(())
}

/// Each harness against something that is wrong.
fn controls(wanted: &Wanted) -> Result<(), String> {
    let dir = place(wanted)?;
    let dir = dir.path();
    let Undisturbed { subject: mut micro, bytes, length } = Undisturbed::new(wanted, dir)?;
    let seen = |what: &str, result: Result<String, String>| match result {
        Ok(said) => Err(format!("control: {what} was not seen: {said}")),
        Err(error) => {
            let error = error.lines().next().unwrap_or_default().to_owned();
            say(&format!("control: {what} is seen: {error}"));
            Ok(())
        }
    };
    let roomy = full_disks(&micro, dir, &bytes, &["16m"]);
    if !roomy.as_ref().is_ok_and(|said| said.contains("may not mount")) {
        seen("a disk that never is full", roomy)?;
    }
    micro.broken = Some("uncut:0");
    let killed = micro.kill(&made(dir, "uncut")?, &bytes, wanted.kills, length, wanted.seed);
    seen("a log that is not cut on resuming", killed.map(|tally| format!("{tally:?}")))?;
    micro.broken = None;
    micro.sets.push("train.seed=1".to_owned());
    let signalled = micro.signals(&made(dir, "seed")?, &bytes, 4, length, wanted.seed);
    seen("another seed", signalled.map(|ended| format!("{ended} ended")))
}

fn made(dir: &Path, name: &str) -> Result<PathBuf, String> {
    let made = dir.join(name);
    std::fs::create_dir(&made).map_err(|e| e.to_string())?;
    Ok(made)
}

#[expect(clippy::print_stderr, reason = "a program of the tests talks to its user")]
fn say(text: &str) {
    eprintln!("{text}");
}
