//! `cargo xtask tutorial`: walks docs/tutorial.md from the first command to the last, against the binary it is given and
//! a hub on this machine, and compares every output that the page shows.

use std::path::Path;
use std::process::ExitCode;

use descant_testkit::scratch;
use descant_testkit::walk::Walk;

fn main() -> ExitCode {
    let folder = scratch();
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let walked = std::env::args().nth(1).ok_or("usage: tutorial BINARY".to_owned()).and_then(|binary| {
        let page = std::fs::read_to_string(root.join("docs/tutorial.md"));
        let page = page.map_err(|error| format!("docs/tutorial.md: {error}"))?;
        Walk { binary: Path::new(&binary), root, folder: folder.path(), shorten: &[] }.run(&page)
    });
    match walked {
        Ok(walked) => {
            say(&format!(
                "{} blocks of commands run, {} lines of output as on the page; not compared: {} lines of progress; not \
                 run: {} that would download the published model",
                walked.run, walked.compared, walked.by_the_clock, walked.not_run
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "what a person reads")]
fn say(text: &str) {
    eprintln!("{text}");
}
