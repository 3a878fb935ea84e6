//! `cargo xtask book` and `cargo xtask spelling`: the pages under `docs` as a site, and their spelling.
//!
//! Both use an external tool at a pinned version, installed into the build folder on first use. Links between pages are
//! checked by a test of the binary (`links.rs`), which needs neither.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::tool::{cargo, root, say, target};

/// mdBook, from crates.io.
const MDBOOK: &str = "0.5.4";
/// codespell, from PyPI: a list of common misspellings, so that no name of ours needs a dictionary.
const CODESPELL: &str = "2.4.3";
/// What is spelled: texts for people, help texts (which docs/cli.md repeats) and settings.
const SPELLED: [&str; 9] = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "THIRD-PARTY.md",
    "docs",
    "crates",
    "xtask",
    "scripts",
    "recipes/multilingual-thinking/README.md",
];
/// Other languages, figures, and files that are not texts.
const PASSED_OVER: &str =
    "*.zh.md,*.jsonl,*.json,*.png,*.parquet,*.rs,*.cu,*.cuh,*.lock,fixtures,tests,suites,*.py";
/// Words of other languages in quoted replies.
const KNOWN: &str = "ist,somme";

/// The site, in `book` under the build folder.
pub(crate) fn book() -> Result<ExitCode> {
    let root = root()?;
    let tools = target(&root).join("tools");
    let mdbook = tools.join("bin").join(format!("mdbook{}", std::env::consts::EXE_SUFFIX));
    let is_ours = |path: &Path| {
        let said = Command::new(path).arg("--version").output();
        said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains(MDBOOK))
    };
    if !is_ours(&mdbook) {
        say(&format!("installing mdbook {MDBOOK} under {}: some minutes, once", tools.display()));
        let mut install = cargo();
        install.args(["install", "mdbook", "--locked", "--version", MDBOOK, "--root"]).arg(&tools);
        if !install.status().context("cargo install")?.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    let out = target(&root).join("book");
    let built = Command::new(mdbook).arg("build").arg(&root).arg("--dest-dir").arg(&out).status();
    if !built.context("mdbook")?.success() {
        return Ok(ExitCode::FAILURE);
    }
    say(&format!("open {}", out.join("index.html").display()));
    Ok(ExitCode::SUCCESS)
}

/// Fails on misspellings and on phrases of `phrases.rs`.
pub(crate) fn spelling() -> Result<ExitCode> {
    let root = root()?;
    let folder = target(&root).join("tools").join(format!("codespell-{CODESPELL}"));
    if !folder.join("codespell_lib").is_dir() {
        say(&format!("fetching codespell {CODESPELL} from PyPI into {}", folder.display()));
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
        pip.arg(&folder).arg(format!("codespell=={CODESPELL}")).env("PIP_ROOT_USER_ACTION", "ignore");
        if !pip.status().context("python3 -m pip")?.success() {
            bail!("pip could not fetch codespell {CODESPELL}");
        }
    }
    let mut check = Command::new("python3");
    check.current_dir(&root).env("PYTHONPATH", &folder).args(["-m", "codespell_lib", "--skip", PASSED_OVER]);
    check.args(["--ignore-words-list", KNOWN]).args(SPELLED);
    let spelled = check.status().context("codespell")?.success();
    let phrases = crate::phrases::find(&root)?;
    for phrase in &phrases {
        say(phrase);
    }
    Ok(if spelled && phrases.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
