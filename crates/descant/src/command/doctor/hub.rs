//! The hub: its cache, the token, the network.

use serde_json::json;

use super::check::Check;
use super::machine::contents;
use crate::hub::Places;
use crate::words::size;

pub(super) fn checks(places: &Places) -> Vec<Check> {
    vec![cache(places), token(places), network(places)]
}

fn cache(places: &Places) -> Check {
    let cache = match places.cache() {
        Ok(cache) => cache,
        Err(error) => {
            let check = Check::note("hub cache", format!("{error:#}"), json!({"folder": null}));
            return check.bad("set HOME or HF_HUB_CACHE");
        }
    };
    let folder = cache.root();
    let (_, bytes) = contents(folder);
    let names = descant_files::list(folder).unwrap_or_default();
    let repositories =
        names.iter().filter(|name| name.starts_with("models--") || name.starts_with("datasets--"));
    let repositories = repositories.count();
    let free = descant_files::free_bytes(folder).ok().flatten();
    let facts = json!({"folder": folder, "repositories": repositories, "bytes": bytes, "free_bytes": free});
    let free = free.map_or_else(|| "an unknown amount".to_owned(), size);
    let are = if repositories == 1 { "repository" } else { "repositories" };
    let text = format!("{}: {repositories} {are}, {}, {free} free", folder.display(), size(bytes));
    Check::ok("hub cache", text, facts)
}

/// Whether there is one; nothing of it is shown.
fn token(places: &Places) -> Check {
    match places.token_and_endpoint().map(|(token, _)| token) {
        None => Check::note("token", "not checked: this build cannot download", json!({"present": null})),
        Some(true) => Check::ok("token", "yes; it is sent only to the hub", json!({"present": true})),
        Some(false) => Check::note("token", "no; public repositories need none", json!({"present": false}))
            .or_note("for private and gated ones set HF_TOKEN, or `hf auth login`"),
    }
}

fn network(places: &Places) -> Check {
    let endpoint = places.token_and_endpoint().map(|(_, endpoint)| endpoint);
    let facts = |answers: Option<bool>, seconds: Option<f64>| json!({"endpoint": endpoint, "answers": answers, "seconds": seconds});
    match places.reach() {
        None => {
            Check::note("network", "not checked: offline, or this build cannot download", facts(None, None))
        }
        Some(Ok(time)) => {
            let text = format!("{} answers in {} ms", endpoint.unwrap_or("the hub"), time.as_millis());
            Check::ok("network", text, facts(Some(true), Some(time.as_secs_f64())))
        }
        Some(Err(error)) => {
            let check = Check::note("network", format!("{error:#}"), facts(Some(false), None));
            check.or_note(
                "cached repositories work with --offline; otherwise check HTTPS_PROXY, SSL_CERT_FILE and HF_ENDPOINT",
            )
        }
    }
}
