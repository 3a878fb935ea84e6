//! `cargo xtask consumers`: opens every form of an export with the program that it is for.
//!
//! Makes its own Python environment in the build folder, from PyPI alone and with the versions that
//! `scripts/consumers` pins, and keeps it until those change. What is compared, and how, is in `consumers.py` there.
//! `--quick` is the part without torch, in `quick.py`, which CI runs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::tool::{BINARY, cargo, root, say, target};

/// What the environment is made of, in this order.
const REQUIREMENTS: [&str; 3] = ["requirements.txt", "requirements-alone.txt", "requirements-source.txt"];
/// The base and adapter that are taken when none are named.
const GOLDEN: [&str; 2] = ["fixtures/golden/export/base", "fixtures/golden/export/adapter-all"];

/// What the quick part needs, and what of it is installed alone.
const QUICK: [&str; 2] = ["requirements-quick.txt", "requirements-quick-alone.txt"];

/// The command; `arguments` are passed to the script.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let root = root()?;
    let quick = arguments.first().is_some_and(|first| first == "--quick");
    if quick && arguments.len() > 1 {
        bail!("--quick takes nothing else: its models are the golden set's");
    }
    let built = cargo().current_dir(&root).args(BINARY).status().context("cargo")?;
    if !built.success() {
        return Ok(ExitCode::FAILURE);
    }
    let scripts = root.join("scripts/consumers");
    let folder = target(&root).join("consumers");
    if quick {
        return quickly(&root, &scripts, &folder.join("quick"));
    }
    let python = environment(&scripts, &folder)?;
    let binary = std::env::current_exe().context("the path of this program")?.with_file_name("descant");
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

/// The part without torch.
fn quickly(root: &Path, scripts: &Path, folder: &Path) -> Result<ExitCode> {
    let packages = folder.join("packages");
    let (made, wanted) = (folder.join("made"), texts(scripts, &QUICK)?);
    if !std::fs::read_to_string(&made).is_ok_and(|text| text == wanted) {
        say("fetching packages from PyPI: 250 MB under consumers in the build folder");
        // A folder instead of an environment: bare systems have pip, but not always what makes one.
        for (file, more) in QUICK.into_iter().zip([None, Some("--no-deps")]) {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--disable-pip-version-check"]);
            pip.args(["--root-user-action=ignore", "--target"]).arg(&packages).args(more);
            step(pip.arg("-r").arg(scripts.join(file)))?;
        }
        finish(&made, &wanted)?;
    }
    let binary = std::env::current_exe().context("the path of this program")?.with_file_name("descant");
    let mut script = Command::new("python3");
    script.env("PYTHONPATH", packages).arg(scripts.join("quick.py")).arg("--descant").arg(binary);
    script.arg("--golden").arg(root.join("fixtures/golden/export")).arg("--work").arg(folder.join("work"));
    let passed = script.status().context("quick.py")?.success();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What files of requirements say.
fn texts(scripts: &Path, names: &[&str]) -> Result<String> {
    let texts = names.iter().map(|name| std::fs::read_to_string(scripts.join(name)));
    Ok(texts.collect::<std::io::Result<Vec<_>>>().context("scripts/consumers")?.concat())
}

/// Written last, so that an environment that was not finished is made again.
fn finish(made: &Path, wanted: &str) -> Result<()> {
    let mut file = std::fs::File::create(made).with_context(|| made.display().to_string())?;
    std::io::Write::write_all(&mut file, wanted.as_bytes()).with_context(|| made.display().to_string())
}

/// The Python of the environment, which is made again when what it is to hold has changed.
fn environment(scripts: &Path, folder: &Path) -> Result<PathBuf> {
    let python = folder.join("venv/bin/python");
    let wanted = texts(scripts, &REQUIREMENTS)?;
    let made = folder.join("made");
    if python.is_file() && std::fs::read_to_string(&made).is_ok_and(|text| text == wanted) {
        return Ok(python);
    }
    say("making an environment from PyPI: some 6 GB under consumers in the build folder");
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
    finish(&made, &wanted)?;
    Ok(python)
}

fn step(command: &mut Command) -> Result<()> {
    if command.status().with_context(|| format!("{command:?}"))?.success() {
        return Ok(());
    }
    bail!("failed: {command:?}")
}
