//! What every task needs: cargo, the root of the repository, and a line for people.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// The part of the CUDA feature that needs neither burn's CUDA backend nor a card.
pub(crate) const NVRTC: [&str; 2] = ["--features", "descant-kernels/nvrtc"];

/// Every test.
pub(crate) const TESTS: [&str; 4] = ["test", "--workspace", NVRTC[0], NVRTC[1]];

/// The binary, with what it depends on compiled as for the tests.
pub(crate) const BINARY: [&str; 6] = ["build", "--workspace", NVRTC[0], NVRTC[1], "--bin", "descant"];

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Cargo sets these for us alone; a build of another package must not see them. Build scripts look at some of them,
    // as ring's does, and would run again for each way in which cargo was called.
    let ours = |name: &OsString| {
        name.to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
    };
    for name in std::env::vars_os().map(|(name, _)| name).filter(ours) {
        cargo.env_remove(name);
    }
    cargo
}

/// The repository.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    Path::new(&manifest).parent().map(Path::to_owned).context("xtask is in the repository's root")
}

#[expect(clippy::print_stderr, reason = "talk goes to standard error; data is the binary's")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

/// Where this workspace builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}
