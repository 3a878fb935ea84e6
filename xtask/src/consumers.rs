//! `cargo xtask consumers`: opens every form of an export with the program that it is for.
//!
//! Makes its own Python environment under `target/consumers`, from PyPI alone and with the versions that
//! `scripts/consumers` pins, and keeps it until those change. What is compared, and how, is in `consumers.py` there.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::tool::{TESTS, cargo, root, say};

/// What the environment is made of, in this order.
const REQUIREMENTS: [&str; 3] = ["requirements.txt", "requirements-alone.txt", "requirements-source.txt"];
/// The base and adapter that are taken when none are named.
const GOLDEN: [&str; 2] = ["fixtures/golden/export/base", "fixtures/golden/export/adapter-all"];

/// The command; `arguments` go on to the script.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let root = root()?;
    let built = cargo().current_dir(&root).args(TESTS).arg("--no-run").status().context("cargo")?;
    if !built.success() {
        return Ok(ExitCode::FAILURE);
    }
    let scripts = root.join("scripts/consumers");
    let folder = root.join("target/consumers");
    let python = environment(&scripts, &folder)?;
    let binary = std::env::current_exe().context("where this program lies")?.with_file_name("descant");
    let mut script = Command::new(python);
    script.arg(scripts.join("consumers.py")).arg("--descant").arg(binary);
    script.arg("--work").arg(folder.join("work")).arg("--vllm").arg(folder.join("vllm"));
    for (flag, path) in ["--model", "--adapter"].into_iter().zip(GOLDEN) {
        if !arguments.iter().any(|argument| argument == flag) {
            script.arg(flag).arg(root.join(path));
        }
    }
    let passed = script.args(arguments).status().context("consumers.py")?.success();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The Python of the environment, which is made anew when what it is to hold has changed.
fn environment(scripts: &Path, folder: &Path) -> Result<PathBuf> {
    let python = folder.join("venv/bin/python");
    let texts = REQUIREMENTS.map(|name| std::fs::read_to_string(scripts.join(name)));
    let wanted =
        texts.into_iter().collect::<std::io::Result<Vec<_>>>().context("scripts/consumers")?.concat();
    let made = folder.join("made");
    if python.is_file() && std::fs::read_to_string(&made).is_ok_and(|text| text == wanted) {
        return Ok(python);
    }
    say("making an environment from PyPI: some 6 GB under target/consumers");
    std::fs::create_dir_all(folder).context("target/consumers")?;
    step(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder.join("venv")))?;
    let file = |name: &str| scripts.join(name);
    let pip = || {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "-q"]);
        pip
    };
    step(pip().args(["install", "-r"]).arg(file(REQUIREMENTS[0])))?;
    step(pip().args(["install", "--no-deps", "-r"]).arg(file(REQUIREMENTS[1])))?;
    let wheels = folder.join("wheels");
    step(
        pip()
            .args(["download", "--no-deps", "--only-binary", ":all:", "-d"])
            .arg(&wheels)
            .arg("-r")
            .arg(file(REQUIREMENTS[2])),
    )?;
    let wheel = std::fs::read_dir(&wheels).context("wheels")?.next().context("no wheel was fetched")??;
    step(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(wheel.path()).arg(folder.join("vllm")))?;
    // Last, so that an environment that was not finished is made again.
    let mut file = std::fs::File::create(&made).context("target/consumers/made")?;
    std::io::Write::write_all(&mut file, wanted.as_bytes()).context("target/consumers/made")?;
    Ok(python)
}

fn step(command: &mut Command) -> Result<()> {
    if command.status().with_context(|| format!("{command:?}"))?.success() {
        return Ok(());
    }
    bail!("failed: {command:?}")
}
