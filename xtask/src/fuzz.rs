//! `cargo xtask fuzz`: builds the targets of `crates/descant-testkit/fuzz` for libFuzzer and runs them.
//!
//! On the stable toolchain: the flags make LLVM count edges and comparisons, and libFuzzer does the rest. What it finds
//! is kept under `fixtures/fuzz/DOOR`, from where every later run begins.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::tool::{cargo, root, say, target};

/// Every door: its name, how many edges a run of [`SECONDS`] covers at least, and what comes in by it. The edges are
/// some 85 % of what was seen, since machines are not equally fast; a door that covers fewer no longer reaches what it
/// did.
const DOORS: &str = include_str!("../../crates/descant-testkit/fuzz/doors.txt");

/// What makes LLVM count; `fuzzing` is for code that wants to know.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
/// Named, so that build scripts and macros are built without the flags.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Seconds, where none are given.
const SECONDS: u64 = 60;
/// Doors that run at the same time.
const JOBS: usize = 2;

pub(crate) const HELP: &str = "\
Usage: cargo xtask fuzz DOOR... [--seconds N] [--jobs N] [--seed N]
       cargo xtask fuzz all [--seconds N] [--jobs N] [--seed N]
       cargo xtask fuzz --list

Fuzzes doors for N seconds each [default: 60], 2 at a time; needs a C++ compiler. Exits with status 1 if there is a
finding, or if a run of 60 s or more covers fewer edges than doors.txt requires; findings are saved under
fixtures/fuzz/DOOR. Corpora are kept in fuzz/corpus/DOOR in the build folder and used again; with a seed, a door
starts from nothing, so two runs try the same inputs first. `all` also runs a door with a deliberate fault, which must
be found.";

/// The names of all doors.
fn doors() -> impl Iterator<Item = &'static str> {
    DOORS.lines().filter_map(|line| line.split_whitespace().next())
}

/// The edges that a door covers at least.
fn least_edges(door: &str) -> u64 {
    let mut fields = DOORS.lines().map(str::split_whitespace);
    let of_door = fields.find_map(|mut line| (line.next() == Some(door)).then(|| line.next()));
    of_door.flatten().and_then(|edges| edges.parse().ok()).unwrap_or(0)
}

/// What is wanted.
struct Wanted {
    doors: Vec<&'static str>,
    seconds: u64,
    jobs: usize,
    seed: Option<u64>,
    control: bool,
}

impl Wanted {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut wanted = Self { doors: Vec::new(), seconds: SECONDS, jobs: JOBS, seed: None, control: false };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let text = arguments.next().with_context(|| format!("{argument} wants a number"))?;
                text.parse::<u64>()
                    .ok()
                    .filter(|n| (1..=1 << 20).contains(n))
                    .with_context(|| format!("{argument} {text}"))
            };
            match argument.as_str() {
                "--seconds" => wanted.seconds = number()?,
                "--jobs" => wanted.jobs = number()? as usize,
                "--seed" => wanted.seed = Some(number()?),
                "all" => {
                    wanted.doors.extend(doors());
                    wanted.control = true;
                }
                name => match doors().find(|door| *door == name) {
                    Some(door) => wanted.doors.push(door),
                    None => bail!("no door `{name}`\n\n{DOORS}\n{HELP}"),
                },
            }
        }
        if wanted.doors.is_empty() {
            bail!("which door?\n\n{DOORS}\n{HELP}");
        }
        Ok(wanted)
    }
}

/// The command.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    if arguments.iter().any(|argument| argument == "--list") {
        say(DOORS.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = Wanted::parse(arguments)?;
    let root = root()?;
    let place = target(&root).join("fuzz");
    let program = build(&root, &place)?;
    if wanted.control {
        // From nothing: what an earlier run found must be found again.
        for old in [place.join("planted"), place.join("corpus/planted")] {
            let _ = std::fs::remove_dir_all(old);
        }
        let found = fuzz(&program, &place, &place.join("planted"), "planted", 30, None)?;
        say(&found.line());
        if found.finding.is_none() {
            say("the fault on purpose was not found: nothing that follows would mean anything");
            return Ok(ExitCode::FAILURE);
        }
    }
    // Each worker takes the next door; what came of it is said at once.
    let next = AtomicUsize::new(0);
    let work = || -> Result<bool> {
        let mut failed = false;
        while let Some(door) = wanted.doors.get(next.fetch_add(1, Ordering::Relaxed)) {
            let kept = root.join("fixtures/fuzz").join(door);
            let outcome = fuzz(&program, &place, &kept, door, wanted.seconds, wanted.seed)?;
            say(&outcome.line());
            failed |= outcome.finding.is_some();
        }
        Ok(failed)
    };
    let failed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..wanted.jobs.min(wanted.doors.len())).map(|_| scope.spawn(work)).collect();
        let mut failed = false;
        for worker in workers {
            failed |= worker.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        anyhow::Ok(failed)
    })?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn build(root: &Path, place: &Path) -> Result<PathBuf> {
    let manifest = root.join("crates/descant-testkit/fuzz/Cargo.toml");
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--target", TARGET, "--manifest-path"]).arg(manifest);
    build.arg("--target-dir").arg(place.join("build")).env("RUSTFLAGS", FLAGS);
    if !build.status().context("cargo")?.success() {
        bail!("the targets do not build");
    }
    Ok(place.join("build").join(TARGET).join("release/descant-fuzz"))
}

/// Fuzzes a door until its time is up.
fn fuzz(
    program: &Path,
    place: &Path,
    kept: &Path,
    door: &'static str,
    seconds: u64,
    seed: Option<u64>,
) -> Result<Outcome> {
    let corpus = place.join(seed.map_or("corpus", |_| "corpus-of-a-seed")).join(door);
    if seed.is_some() {
        // It may not be there.
        let _ = std::fs::remove_dir_all(&corpus);
    }
    for folder in [&corpus, kept] {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let mut run = Command::new(program);
    run.env("DESCANT_DOOR", door).env("DESCANT_CORPUS", &corpus).env_remove("RUST_BACKTRACE");
    // The first folder receives what is new.
    run.arg(&corpus).arg(kept);
    run.arg(format!("-artifact_prefix={}/", kept.display())).arg(format!("-max_total_time={seconds}"));
    run.args(["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=1024", "-max_len=65536"]);
    run.args(seed.map(|seed| format!("-seed={seed}")));
    run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = run.spawn().with_context(|| format!("{}", program.display()))?;
    let mut outcome = Outcome { door, ..Outcome::default() };
    for line in BufReader::new(child.stderr.take().context("it was piped")?).split(b'\n') {
        outcome.read(&String::from_utf8_lossy(&line.context("reading from libFuzzer")?));
    }
    outcome.processor_seconds = processor_seconds(child.id());
    let status = child.wait().context("libFuzzer")?;
    if !status.success() && outcome.finding.is_none() {
        outcome.finding = Some(format!("it ended with {status}"));
    }
    if outcome.finding.is_none() {
        outcome.finding = outcome.too_little(seconds);
    }
    // A fixture's folder is there when there is a fixture.
    let _ = std::fs::remove_dir(kept);
    Ok(outcome)
}

/// Seconds of processor time of a process that has ended and was not waited for yet: on a busy machine less than what
/// the clock says. 0 where the system does not report it.
fn processor_seconds(process: u32) -> u64 {
    /// Ticks of a second, on every Linux that this builds for.
    const TICKS: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name of the program, which may hold anything, ends with the last parenthesis; 11 fields later come the ticks
    // in the program and in the system.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    ticks / TICKS
}

/// What came of a door.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    door: &'static str,
    executions: u64,
    per_second: u64,
    processor_seconds: u64,
    coverage: u64,
    corpus: u64,
    finding: Option<String>,
    kept: Option<String>,
}

impl Outcome {
    /// Takes what a line of libFuzzer's says.
    fn read(&mut self, line: &str) {
        let number_after = |mark: &str| {
            let rest = line.split(mark).nth(1)?.trim_start();
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        if line.starts_with('#') {
            self.coverage = number_after(" cov: ").unwrap_or(self.coverage);
            self.corpus = number_after(" corp: ").unwrap_or(self.corpus);
        }
        self.executions = number_after("stat::number_of_executed_units:").unwrap_or(self.executions);
        self.per_second = number_after("stat::average_exec_per_sec:").unwrap_or(self.per_second);
        if let Some(finding) = line.strip_prefix("finding: ") {
            self.finding = Some(finding.to_owned());
        } else if line.contains("ERROR: libFuzzer:") && self.finding.is_none() {
            self.finding = Some(line.to_owned());
        }
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.kept = Some(path.to_owned());
        }
    }

    /// What is wrong with a run of so many seconds that found nothing.
    fn too_little(&self, seconds: u64) -> Option<String> {
        let least = least_edges(self.door);
        if self.executions == 0 {
            Some("nothing was executed".to_owned())
        } else if seconds >= SECONDS && self.coverage < least {
            Some(format!("{} edges; doors.txt says at least {least}", self.coverage))
        } else {
            None
        }
    }

    fn line(&self) -> String {
        let Self { door, executions, per_second, processor_seconds, coverage, corpus, .. } = self;
        let figures = format!(
            "{door:<14} {executions:>10} executions {per_second:>8} a second {processor_seconds:>5} s of a processor  \
             coverage {coverage:>6}  corpus {corpus:>5}"
        );
        let finding = self.finding.iter().map(|finding| format!("  FOUND: {finding}"));
        let kept = self.kept.iter().map(|kept| format!("  kept as {kept}"));
        std::iter::once(figures).chain(finding).chain(kept).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_read() {
        let mut outcome = Outcome::default();
        for line in [
            "INFO: Seed: 1",
            "#2\tINITED cov: 11 ft: 12 corp: 1/1b exec/s: 0 rss: 28Mb",
            "#2930000\tDONE   cov: 634 ft: 2012 corp: 310/41Kb lim: 4096 exec/s: 293000 rss: 28Mb",
            "stat::number_of_executed_units: 2930000",
            "stat::average_exec_per_sec:     293000",
        ] {
            outcome.read(line);
        }
        let expected = Outcome {
            executions: 2_930_000,
            per_second: 293_000,
            coverage: 634,
            corpus: 310,
            ..Outcome::default()
        };
        assert_eq!(outcome, expected);
        for line in [
            "finding: panicked at x",
            "==1== ERROR: libFuzzer: deadly signal",
            "Test unit written to a/crash-1",
        ] {
            outcome.read(line);
        }
        assert_eq!(outcome.finding.as_deref(), Some("panicked at x"));
        assert_eq!(outcome.kept.as_deref(), Some("a/crash-1"));
    }

    #[test]
    fn a_run_that_covers_too_little_is_a_finding() {
        assert!(doors().all(|door| least_edges(door) > 0), "every door says what it covers");
        let least = least_edges("config");
        let of =
            |coverage, executions| Outcome { door: "config", coverage, executions, ..Outcome::default() };
        assert_eq!(of(least, 1).too_little(SECONDS), None);
        assert!(of(least - 1, 1).too_little(SECONDS).is_some_and(|said| said.contains("at least")));
        assert_eq!(of(least - 1, 1).too_little(SECONDS - 1), None, "a short run is not judged");
        assert!(of(least, 0).too_little(1).is_some());
    }

    #[test]
    fn doors_and_numbers_are_checked() {
        let parse = |text: &str| Wanted::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let wanted = parse("config names --seconds 5 --jobs 1").expect("both are doors");
        assert_eq!(
            (wanted.doors, wanted.seconds, wanted.jobs, wanted.control),
            (vec!["config", "names"], 5, 1, false)
        );
        assert!(parse("all").expect("all are doors").doors.len() >= 10);
        for wrong in ["nothing", "config --seconds", "config --seconds 0", "config --seconds x", "--jobs 2"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
