//! A hub on this machine, to try a download or the whole tutorial without a network:
//!
//! ```sh
//! cargo run -p descant-testkit --example hub -- \
//!     models/openai/gpt-oss-20b=fixtures/tiny-gpt-oss \
//!     datasets/HuggingFaceH4/Multilingual-Thinking=fixtures/tiny-gpt-oss/data/multilingual-thinking-tiny-efforts.parquet
//! ```
//!
//! Each argument is a repository and the folder, or the one file, that it publishes. A file is published as
//! `data/train-00000-of-00001` with its extension. The hub runs until standard input ends, and then
//! prints the requests that it received.

use std::io::{Read as _, stdin};
use std::path::Path;

use descant_testkit::loopback::LoopbackHub;

#[expect(clippy::print_stdout, reason = "the address is the example's data")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hub = LoopbackHub::start();
    for argument in std::env::args().skip(1) {
        let (repo, path) = argument.split_once('=').ok_or("expected REPOSITORY=PATH")?;
        let commit = hub.publish_path(repo, Path::new(path))?;
        println!("{repo} at {commit}");
    }
    println!("HF_ENDPOINT={}", hub.endpoint());
    stdin().read_to_end(&mut Vec::new())?;
    for seen in hub.seen() {
        let place = if seen.at_store { "store" } else { "hub" };
        let token = if seen.authorization.is_some() { "with a token" } else { "without a token" };
        let target = seen.target.split('?').next().unwrap_or_default();
        println!("{place} {} {target} {} {token}", seen.method, seen.range.as_deref().unwrap_or("whole"));
    }
    Ok(())
}
