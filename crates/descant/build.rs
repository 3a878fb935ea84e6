//! Notes for `descant --version --verbose`: the commit that is built, the target and the compiler.
//!
//! Without git, or outside a checkout, the commit is unknown; nothing fails for it.

use std::env::var;
use std::path::Path;
use std::process::Command;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let git = |arguments: &[&str]| said(Command::new("git").arg("-C").arg(&root).args(arguments));
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let compiler = said(Command::new(var("RUSTC").unwrap_or_default()).arg("--version"));
    println!("cargo::rustc-env=DESCANT_COMMIT={commit}");
    println!("cargo::rustc-env=DESCANT_TARGET={}", var("TARGET").unwrap_or_default());
    println!("cargo::rustc-env=DESCANT_RUSTC={}", compiler.unwrap_or_else(|| "unknown".to_owned()));
    println!("cargo::rerun-if-changed=build.rs");
    // A commit moves the branch, a switch moves HEAD. A file that is not there would build again each time.
    let branch = git(&["symbolic-ref", "-q", "HEAD"]);
    for name in ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        let file = git(&["rev-parse", "--git-path", name]).map(|file| root.join(file));
        if let Some(file) = file.filter(|file| file.is_file()) {
            println!("cargo::rerun-if-changed={}", file.display());
        }
    }
}

/// What a command says, if it ends well.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}
