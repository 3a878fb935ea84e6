//! Fetches a model or a data set into a folder and verifies it:
//!
//! ```sh
//! cargo run -p descant-hub --example fetch -- hf://openai/gpt-oss-20b /data/hub
//! ```
//!
//! A third argument is the address of another hub, for instance of the one that
//! `cargo run -p descant-testkit --example hub` starts.

use descant_hub::{Cache, Event, Hub, HubConfig, Reference, Watch};

/// Says what happens to files.
struct Lines;

impl Watch for Lines {
    #[expect(clippy::print_stderr, reason = "an example talks")]
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Planned { files, bytes, present, .. } => {
                eprintln!("{files} files, {bytes} bytes, {present} of them here");
            }
            Event::Finished { file } => eprintln!("{file}"),
            Event::Again { what, error, .. } => eprintln!("{what}: {error}, trying again"),
            _ => {}
        }
    }
}

#[expect(clippy::print_stdout, reason = "the path is the example's data")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: fetch hf://OWNER/NAME CACHE [ENDPOINT]";
    let reference = Reference::parse(&arguments.next().ok_or(usage)?)?;
    let cache = Cache::new(arguments.next().ok_or(usage)?);
    let mut config = HubConfig::default();
    if let Some(endpoint) = arguments.next() {
        config.endpoint = endpoint;
    }
    let fetched = Hub::new(config, cache.clone())?.download(&reference, false, &Lines)?;
    let checked = cache.verify(&fetched.snapshot, |_| {})?;
    println!("{} ({} files verified)", fetched.snapshot.path.display(), checked.len());
    Ok(())
}
