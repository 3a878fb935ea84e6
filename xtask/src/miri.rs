//! `cargo xtask miri`: tests of what reads packed numbers, names and lengths, run by an interpreter that sees undefined
//! behaviour.
//!
//! Needs a nightly toolchain with Miri, which CI has not; without one nothing is run, and the status says so. The tests
//! are the usual ones, with fewer cases; foreign code cannot be interpreted and is not reached by these.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::tool::{root, say, target};

/// A package, and which of its tests. Those that are left out of the first read 400,000 numbers, which takes an
/// interpreter minutes and shows it no other code.
const RUNS: [(&str, &str); 3] = [
    (
        "descant-quant",
        "--test it -- --skip nf4::decoding_is_bit_exact --skip nf4::encoding_gives --skip nf4::both_code_books",
    ),
    ("descant-files", "--test it names::"),
    ("descant-harmony", "--test it packing::"),
];

/// The command.
pub(crate) fn run() -> Result<ExitCode> {
    let root = root()?;
    let version = miri(&root).arg("--version").stderr(Stdio::null()).output();
    let Some(version) = version.ok().filter(|output| output.status.success()) else {
        say("not run: no nightly toolchain with Miri (rustup toolchain install nightly --component miri)");
        return Ok(ExitCode::from(2));
    };
    say(String::from_utf8_lossy(&version.stdout).trim());
    let mut failed = false;
    for (package, tests) in RUNS {
        say(&format!("== {package} {tests}"));
        let mut run = miri(&root);
        run.args(["test", "--locked", "--package", package]).args(tests.split(' '));
        failed |= !run.status().context("cargo miri")?.success();
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// `cargo miri` of the nightly toolchain; its builds lie apart from all others.
fn miri(root: &Path) -> Command {
    let mut miri = Command::new("rustup");
    miri.args(["run", "nightly", "cargo", "miri"]).current_dir(root);
    // What cargo, rustup and a shell have set is for the toolchain of the other builds.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO", "RUST", "__CARGO"].iter().any(|of| text.starts_with(of)) && !KEPT.contains(&&*text) {
            miri.env_remove(&name);
        }
    }
    // Tests read fixtures and write folders of their own.
    miri.env("CARGO_TARGET_DIR", target(root).join("miri")).env("MIRIFLAGS", "-Zmiri-disable-isolation");
    miri
}

/// Where the toolchains lie and whether there is a network.
const KEPT: [&str; 3] = ["CARGO_HOME", "CARGO_NET_OFFLINE", "RUSTUP_HOME"];
