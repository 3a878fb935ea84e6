//! `cargo xtask`: builds the binary with the right features and runs it, and runs the checks of CI.
//!
//! Arguments of `descant` are passed on unchanged.

mod consumers;
mod docs;
mod fuzz;
mod miri;
mod phrases;
mod tool;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use tool::{BINARY, NVRTC, TESTS, cargo, root, say};

const HELP: &str = "\
Usage: cargo xtask [--cuda] COMMAND [ARGUMENTS]

Commands:
  train, plan, evaluate, report, generate, chat, score, data, tokenizer, export, init, bench, download,
  doctor, completions, man
           build descant (optimized) and run it with these arguments. Without a settings file, `train`,
           `plan` and `evaluate` use the embedded default: the tiny model under fixtures/. Only `download`,
           `train --recipe NAME` and `doctor` are built with network code
  kernels  compile every CUDA kernel for every architecture and compare its resources with
           docs/kernels.md, or update that page with --update; needs NVRTC, but no GPU
  crash    kill, signal and starve `descant train` on a micro model, and compare its files with those of
           an uninterrupted run; arguments: kills=100 signals=50 soak=0 seed=1 control=0
  fuzz     fuzz the code that parses untrusted input, guided by coverage:
           DOOR... --seconds N --seed N, or --list
  consumers
           open every export format with its consumer, in an environment that it creates from PyPI;
           arguments: --model DIR --adapter DIR --rows FILE --json, or --quick for the part without
           torch, which takes half a minute
  tutorial follow docs/tutorial.md from its first command to its last, with a hub on this machine, and
           compare every output it shows; two minutes
  rounding measure how much of a fine-tune each rounding rule for experts keeps, as in docs/export.md;
           takes an hour; arguments: seeds=3 prompts=60 rates=3, or seed=N for one
  miri     run the tests of number formats, names and packing under Miri; needs a nightly toolchain with
           Miri, else exits with status 2
  book     build the pages under docs as a site with mdBook, which it installs on first use
  spelling check texts for misspellings with codespell, which it downloads from PyPI on first use, and for
           phrases that xtask/src/phrases.rs rejects
  package  create the archive of every library crate, as for crates.io, without compiling it
  ci       run every check: format, lints, spelling, tests, documentation, packages, the CUDA feature, the kernels

Options:
  --cuda   build with the CUDA backend [default: CPU only]";

/// Commands that are handed to the binary.
const PASSED_ON: [&str; 16] = [
    "train",
    "plan",
    "evaluate",
    "report",
    "generate",
    "chat",
    "score",
    "data",
    "tokenizer",
    "export",
    "init",
    "bench",
    "download",
    "doctor",
    "completions",
    "man",
];

/// One check of CI: what it is called, cargo's arguments, a variable to set.
type Check = (&'static str, &'static [&'static str], Option<(&'static str, &'static str)>);

/// Builds what compiles the kernels. Over the whole workspace, as the tests: cargo would build the dependencies of
/// one package alone with other features, and so again.
const KERNELS: [&str; 6] = ["build", "--workspace", NVRTC[0], NVRTC[1], "--example", "kernels"];

/// The order lets later checks reuse what earlier ones built: lints and documentation share their dependencies.
const CHECKS: [Check; 12] = [
    ("format", &["fmt", "--all", "--check"], None),
    ("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], None),
    ("spelling", &["xtask", "spelling"], None),
    ("packages", &["xtask", "package"], None),
    ("documentation", &["doc", "--workspace", "--no-deps"], Some(("RUSTDOCFLAGS", "-D warnings"))),
    ("tests", &TESTS, None),
    // What it needs the tests have built.
    ("kills", &["xtask", "crash"], None),
    ("consumers", &["xtask", "consumers", "--quick"], None),
    // Always the same first inputs: what is new is for longer runs to find.
    ("fuzz", &["xtask", "fuzz", "all", "--seconds", "60", "--seed", "1"], None),
    (
        "no network",
        &["clippy", "--package", "descant", "--no-default-features", "--", "-D", "warnings"],
        None,
    ),
    ("kernels", &KERNELS, None),
    (
        "cuda",
        &[
            "clippy",
            "--package",
            "descant",
            "--package",
            "descant-kernels",
            "--all-targets",
            "--features",
            "descant/cuda",
            "--",
            "-D",
            "warnings",
        ],
        None,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(arguments).unwrap_or_else(|error| {
        say(&format!("error: {error:#}"));
        ExitCode::from(2)
    })
}

fn run(mut arguments: Vec<String>) -> Result<ExitCode> {
    let cuda = arguments.first().is_some_and(|first| first == "--cuda");
    if cuda {
        arguments.remove(0);
    }
    match arguments.first().map(String::as_str) {
        Some("ci") if arguments.len() == 1 => checks(),
        Some("fuzz") => fuzz::run(&arguments[1..]),
        Some("book") if arguments.len() == 1 => docs::book(),
        Some("spelling") if arguments.len() == 1 => docs::spelling(),
        Some("package") if arguments.len() == 1 => package(),
        Some("consumers") => consumers::run(&arguments[1..]),
        Some("miri") if arguments.len() == 1 => miri::run(),
        Some("kernels") => kernels(&arguments[1..]),
        Some("crash") => with_tests("crash", &arguments[1..]),
        Some("tutorial") if arguments.len() == 1 => with_tests("tutorial", &[]),
        Some("rounding") => rounding(&arguments[1..]),
        Some(command) if PASSED_ON.contains(&command) => descant(cuda, &arguments),
        Some("help" | "--help" | "-h") => {
            say(HELP);
            Ok(ExitCode::SUCCESS)
        }
        Some(other) => bail!("no command `{other}`\n\n{HELP}"),
        None => bail!("no command\n\n{HELP}"),
    }
}

/// Builds the binary and becomes it, as far as the system allows.
fn descant(cuda: bool, arguments: &[String]) -> Result<ExitCode> {
    let root = root()?;
    let mut run = cargo();
    let profile = if cuda { "release" } else { "cpu" };
    run.args(["run", "--profile", profile, "--package", "descant", "--manifest-path"])
        .arg(root.join("Cargo.toml"));
    // The first training must not wait for network code to be compiled.
    run.args(["--no-default-features", "--features", "languages"]);
    let recipe = arguments.iter().any(|argument| argument.starts_with("--recipe"));
    let fetches = arguments.first().is_some_and(|command| match command.as_str() {
        "download" | "doctor" => true,
        command => command == "train" && recipe,
    });
    let features = [("cuda", cuda), ("hub", fetches)].into_iter().filter(|(_, wanted)| *wanted);
    run.args(features.flat_map(|(name, _)| ["--features", name]));
    let called_as = if cuda { "cargo xtask --cuda" } else { "cargo xtask" };
    run.args(["--", "--called-as", called_as, "--root"]).arg(&root).args(arguments);
    exec(run)
}

/// Makes the archives that crates.io would get, of all crates but the programs. They are not compiled: tests and
/// documentation have done that.
fn package() -> Result<ExitCode> {
    let mut archives = cargo();
    archives.current_dir(root()?).args(["package", "--no-verify", "--allow-dirty", "--quiet"]);
    archives.args(["--workspace", "--exclude", "descant", "--exclude", "xtask"]);
    let made = archives.status().context("cargo package")?.success();
    Ok(if made { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compiles the kernels and compares them with the record, or writes that.
fn kernels(options: &[String]) -> Result<ExitCode> {
    let root = root()?;
    if !cargo().current_dir(&root).args(KERNELS).status().context("cargo")?.success() {
        return Ok(ExitCode::FAILURE);
    }
    exec(kernels_of(&root, options)?)
}

/// Builds the binary as the tests do, with faults in it, and runs the example that drives it.
fn with_tests(example: &str, arguments: &[String]) -> Result<ExitCode> {
    let built = cargo().current_dir(root()?).args(TESTS).arg("--no-run").status().context("cargo")?;
    if !built.success() {
        return Ok(ExitCode::FAILURE);
    }
    let here = std::env::current_exe().context("the path of this program")?;
    let mut harness = Command::new(here.with_file_name("examples").join(example));
    harness.arg(here.with_file_name("descant")).args(arguments);
    exec(harness)
}

/// Builds the binary and the example that trains with it, exports and measures.
fn rounding(arguments: &[String]) -> Result<ExitCode> {
    let mut build = cargo();
    build.current_dir(root()?).args(BINARY).args(["--example", "rounding"]);
    if !build.status().context("cargo")?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let here = std::env::current_exe().context("the path of this program")?;
    let mut example = Command::new(here.with_file_name("examples").join("rounding"));
    example.arg(here.with_file_name("descant")).args(arguments);
    exec(example)
}

/// The example that lies beside this program.
fn kernels_of(root: &Path, options: &[String]) -> Result<Command> {
    let here = std::env::current_exe().context("the path of this program")?;
    let mut run = Command::new(here.with_file_name("examples").join("kernels"));
    run.current_dir(root).arg("docs/kernels.md").args(options);
    Ok(run)
}

/// Runs every check, all of them even when one fails, and says how long each took.
fn checks() -> Result<ExitCode> {
    let root = root()?;
    let mut failed = Vec::new();
    let mut report = Vec::new();
    for (name, arguments, variable) in CHECKS {
        say(&format!("== {name}: cargo {}", arguments.join(" ")));
        let start = Instant::now();
        let mut status =
            cargo().current_dir(&root).args(arguments).envs(variable).status().context("cargo")?;
        if name == "kernels" && status.success() {
            status = kernels_of(&root, &[])?.status().context("the check of the kernels")?;
        }
        let seconds = start.elapsed().as_secs();
        let result = if status.success() { "ok" } else { "FAILED" };
        report.push(format!("{name:<14} {seconds:>5} s  {result}"));
        if !status.success() {
            failed.push(name);
        }
    }
    say(&report.join("\n"));
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Replaces this process, so that signals and exit status are the command's own.
#[cfg(unix)]
fn exec(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    Err(command.stdin(Stdio::inherit()).exec()).context("cargo")
}

#[cfg(not(unix))]
fn exec(mut command: Command) -> Result<ExitCode> {
    let status = command.stdin(Stdio::inherit()).status().context("cargo")?;
    Ok(status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(code as u8)))
}
