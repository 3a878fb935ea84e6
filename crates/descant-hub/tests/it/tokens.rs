//! The token goes to its own host and nowhere else, and no text holds it.

use descant_hub::{Error, Hub, HubConfig, Reference, Refusal, Secret};
use descant_testkit::loopback::{Fault, LoopbackHub};

use crate::support::{MODEL, Notes, World, chain};

const CANARY: &str = "hf_CanaryThatMustNotBeSeen";

#[test]
fn a_token_opens_what_needs_one_and_the_store_never_sees_it() {
    let world = World::new();
    world.hub.require(MODEL, CANARY);
    let without = world.download().unwrap_err();
    assert!(matches!(without, Error::Refused { reason: Refusal::NeedsToken, .. }), "{without:?}");
    let wrong =
        world.download_with(world.with_token("hf_other"), "hf://openai/gpt-oss-20b", &()).unwrap_err();
    assert!(matches!(wrong, Error::Refused { reason: Refusal::BadToken, .. }), "{wrong:?}");
    world.hub.forget();
    let notes = Notes::default();
    world.download_with(world.with_token(CANARY), "hf://openai/gpt-oss-20b", &notes).unwrap();
    let seen = world.hub.seen();
    assert!(seen.iter().any(|request| request.at_store), "large files came from the store");
    for request in &seen {
        assert_eq!(request.authorization.is_some(), !request.at_store, "{request:?}");
        assert!(!request.at_store || !request.head.contains(CANARY), "{request:?}");
    }
    assert!(!notes.all().join("\n").contains(CANARY));
    assert!(!world.tree().iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains(CANARY)));
}

#[test]
fn no_redirect_carries_the_token_to_another_origin() {
    let elsewhere = LoopbackHub::start();
    for target in ["/api/", "/config.json", "/tokenizer.json"] {
        let world = World::new();
        // The same machine on another port, and the same port under another name.
        let port = world.hub.endpoint().rsplit(':').next().unwrap().to_owned();
        for to in [format!("{}/x", elsewhere.endpoint()), format!("http://localhost:{port}/x")] {
            world.hub.fail(target, 1, Fault::Redirect(to));
            let error = world.download_with(world.with_token(CANARY), "hf://openai/gpt-oss-20b", &());
            let text = error.map_or_else(|error| chain(&error) + &format!("{error:?}"), |_| String::new());
            assert!(!text.contains(CANARY), "{text}");
        }
        for request in world.hub.seen() {
            let foreign = request.head.to_ascii_lowercase().contains("host: localhost");
            assert!(!foreign || request.authorization.is_none(), "{request:?}");
        }
    }
    let seen = elsewhere.seen();
    assert!(!seen.is_empty(), "redirects were followed");
    assert!(!seen.iter().any(|request| request.head.contains(CANARY)), "{seen:?}");
}

#[test]
fn redirects_that_lead_astray_are_not_followed() {
    let world = World::new();
    for to in ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://u:p@127.0.0.1/x", "", "x y", "../x"] {
        world.hub.fail("/api/", 1, Fault::Redirect(to.into()));
        let error = world.download().unwrap_err();
        assert!(matches!(error, Error::Redirect { .. }), "{to}: {error:?}");
    }
    let endless = format!("{}/api/again", world.hub.endpoint());
    world.hub.fail("/api/", 50, Fault::Redirect(endless));
    let error = world.download().unwrap_err();
    assert!(matches!(error, Error::Redirect { .. }), "{error:?}");
}

#[test]
fn a_relative_redirect_stays_at_home_and_keeps_the_token() {
    let world = World::new();
    world.hub.require(MODEL, CANARY);
    let moved = "/api/models/openai/gpt-oss-20b/revision/main?blobs=true";
    world.hub.fail("/api/models/old/name", 1, Fault::Redirect(moved.into()));
    // A repository that was renamed: the list comes from its new place, the files are asked under the old name.
    let result = world.download_with(world.with_token(CANARY), "hf://old/name", &());
    assert!(matches!(result, Err(Error::Refused { reason: Refusal::NoRepo, .. })), "{result:?}");
    let seen = world.hub.seen();
    assert!(seen[1].target == moved && seen[1].authorization.is_some(), "{seen:?}");
}

#[test]
fn neither_errors_nor_signatures_are_shown() {
    let world = World::new();
    let target = world.hub.target_of(MODEL, crate::support::SHARD);
    world.hub.fail(&target, 20, Fault::Status(500, None));
    let notes = Notes::default();
    let error = world.download_with(world.with_token(CANARY), "hf://openai/gpt-oss-20b", &notes).unwrap_err();
    let text = chain(&error) + &format!("{error:?}") + &notes.all().join("\n");
    assert!(text.contains("/blob/") && !text.contains("Signature") && !text.contains(CANARY), "{text}");
    let config = HubConfig {
        proxy: Secret::new(&format!("http://u:{CANARY}@127.0.0.1:1")),
        ..world.with_token(CANARY)
    };
    assert!(!format!("{config:?}").contains(CANARY));
    let hub = Hub::new(config, world.cache()).unwrap();
    let error = hub.download(&Reference::parse("hf://openai/gpt-oss-20b").unwrap(), false, &()).unwrap_err();
    assert!(!(chain(&error) + &format!("{error:?}")).contains(CANARY), "{error:?}");
}
