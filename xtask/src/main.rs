//! `cargo xtask`: builds the binary as it should be built and runs it; the checks that CI runs.
//!
//! No logic of its own: everything after the command goes to `descant` as it is.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

const HELP: &str = "\
Usage: cargo xtask [--cuda] COMMAND [ARGUMENTS]

Commands:
  train, evaluate, generate, score, init
           build descant (optimized) and run it with these arguments; without a settings
           file `train` and `evaluate` take the embedded default: the tiny model under fixtures/
  crash    kill, signal and starve `descant train` on a micro model and compare bytes;
           arguments: kills=100 signals=50 soak=0 seed=1
  ci       every check: format, lints, tests, documentation, the CUDA feature

Options:
  --cuda   build with the CUDA backend [default: CPU only]";

/// Commands that are handed to the binary.
const PASSED_ON: [&str; 5] = ["train", "evaluate", "generate", "score", "init"];

/// One check of CI: what it is called, cargo's arguments, a variable to set.
type Check = (&'static str, &'static [&'static str], Option<(&'static str, &'static str)>);

/// The order lets later checks reuse what earlier ones built: lints and documentation share their dependencies.
const CHECKS: [Check; 6] = [
    ("format", &["fmt", "--all", "--check"], None),
    ("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], None),
    ("documentation", &["doc", "--workspace", "--no-deps"], Some(("RUSTDOCFLAGS", "-D warnings"))),
    ("tests", &["test", "--workspace"], None),
    ("kills", &["xtask", "crash"], None),
    ("cuda", &["clippy", "--package", "descant", "--features", "cuda", "--", "-D", "warnings"], None),
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
        Some(command) if PASSED_ON.contains(&command) => descant(cuda, &arguments),
        Some("crash") => crash(&arguments[1..]),
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
    run.args(["run", "--release", "--package", "descant", "--manifest-path"]).arg(root.join("Cargo.toml"));
    if cuda {
        run.args(["--features", "cuda"]);
    }
    run.args(["--", "--root"]).arg(&root).args(arguments);
    exec(run)
}

/// Builds the binary as the tests do, and the harness that disturbs it.
fn crash(arguments: &[String]) -> Result<ExitCode> {
    let root = root()?;
    let mut build = cargo();
    // Of the whole workspace, so that its dependencies are those that the tests have built.
    if !build.current_dir(&root).args(["build", "--workspace", "--bins"]).status().context("cargo")?.success()
    {
        bail!("the build failed");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = root.join(target).join("debug");
    let mut harness = Command::new(folder.join("crash"));
    harness.arg(folder.join("descant")).args(arguments);
    exec(harness)
}

/// Runs every check, all of them even when one fails, and says how long each took.
fn checks() -> Result<ExitCode> {
    let root = root()?;
    let mut failed = Vec::new();
    let mut report = Vec::new();
    for (name, arguments, variable) in CHECKS {
        say(&format!("== {name}: cargo {}", arguments.join(" ")));
        let start = Instant::now();
        let status = cargo().current_dir(&root).args(arguments).envs(variable).status().context("cargo")?;
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

/// The cargo that runs us.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Cargo sets these for us alone; a build of another package must not see them.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        cargo.env_remove(name);
    }
    cargo
}

/// The repository.
fn root() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    Path::new(&manifest).parent().map(Path::to_owned).context("xtask lies in the repository's root")
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

#[expect(clippy::print_stderr, reason = "talk goes to standard error; data is the binary's")]
fn say(text: &str) {
    eprintln!("{text}");
}
