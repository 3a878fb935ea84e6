//! What a good hub gives: one form of the weights, pinned, in the shared cache, fetched once.

use descant_hub::{Cache, Error, Hub, HubConfig, Reference, Refusal};
use descant_testkit::loopback::Fault;

use crate::support::{MODEL, Notes, ROWS, SHARD, World, model_files, noise};

#[test]
fn a_model_comes_whole_pinned_and_without_what_no_run_needs() {
    let world = World::new();
    let notes = Notes::default();
    let fetched = world.download_with(world.config(), "hf://openai/gpt-oss-20b", &notes).unwrap();
    let snapshot = &fetched.snapshot;
    assert_eq!(snapshot.commit.as_str(), world.commit);
    assert_eq!(snapshot.reference.to_string(), format!("hf://openai/gpt-oss-20b@{}", world.commit));
    let names: Vec<&str> = fetched.files.iter().map(|(name, ..)| name.as_str()).collect();
    let unwanted = ["README.md", "metal/model.bin", "original/model.safetensors"];
    let mut wanted: Vec<_> = model_files().into_iter().filter(|(name, _)| !unwanted.contains(name)).collect();
    wanted.sort();
    assert_eq!(names, wanted.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    assert_eq!(fetched.new_files, names.len());
    for (name, bytes) in &wanted {
        assert_eq!(&std::fs::read(snapshot.path.join(name)).unwrap(), bytes, "{name}");
    }
    let asked: Vec<String> = world.hub.seen().into_iter().map(|seen| seen.target).collect();
    assert!(!asked.iter().any(|target| unwanted.iter().any(|name| target.ends_with(name))), "{asked:?}");
    assert_eq!(notes.count("Finished"), names.len());
    // The layout that the Python libraries read.
    let root = world.cache().root().join("models--openai--gpt-oss-20b");
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).unwrap(), world.commit);
    let link = std::fs::read_link(root.join("snapshots").join(&world.commit).join(SHARD)).unwrap();
    assert_eq!(link.parent().unwrap(), std::path::Path::new("../../blobs"));
    assert!(!world.tree().iter().any(|(name, _)| name.contains("incomplete") || name.contains(".tmp-")));
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let world = World::new();
    world.download().unwrap();
    world.hub.forget();
    let again = world.download().unwrap();
    assert_eq!(again.new_files, 0);
    let asked: Vec<String> = world.hub.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(asked, ["/api/models/openai/gpt-oss-20b/revision/main?blobs=true"]);
}

#[test]
fn a_new_commit_fetches_what_changed_and_keeps_the_old_one() {
    let world = World::new();
    let old = world.download().unwrap().snapshot;
    let mut files = model_files();
    files[1].1 = b"{{ other }}".to_vec();
    let commit = world.hub.publish(MODEL, &files);
    let new = world.download().unwrap();
    assert_eq!((new.new_files, new.snapshot.commit.as_str()), (1, commit.as_str()));
    assert_eq!(std::fs::read(old.path.join("chat_template.jinja")).unwrap(), model_files()[1].1);
    let pinned = world.cache().find(&old.reference).unwrap();
    assert_eq!(pinned.path, old.path, "a pinned run finds what it was pinned to");
    let main = world.cache().find(&Reference::parse("hf://openai/gpt-oss-20b").unwrap()).unwrap();
    assert_eq!(main.path, new.snapshot.path);
}

#[test]
fn a_data_set_is_its_training_rows() {
    let world = World::new();
    let reference = "hf://datasets/HuggingFaceH4/Multilingual-Thinking";
    let fetched = world.download_with(world.config(), reference, &()).unwrap();
    assert!(fetched.snapshot.path.ends_with("data/train-00000-of-00001.parquet"));
    assert_eq!(std::fs::read(&fetched.snapshot.path).unwrap(), noise(4, 7000));
    assert_eq!(fetched.files.len(), 1);
    assert_eq!(world.cache().find(&fetched.snapshot.reference).unwrap(), fetched.snapshot);
    let named = format!("{reference}/data/train-00000-of-00001.parquet");
    let found = world.cache().find(&Reference::parse(&named).unwrap()).unwrap();
    assert_eq!(found.path, fetched.snapshot.path);
    let missing = world.download_with(world.config(), &format!("{reference}/data/nothing.parquet"), &());
    assert!(matches!(missing, Err(Error::Incompatible { .. })), "{missing:?}");
}

#[test]
fn a_data_set_in_shards_comes_whole_or_not_at_all() {
    let world = World::new();
    let shard = |n: u32| (format!("data/train-0000{n}-of-00003.parquet"), noise(20 + n, 3000));
    let mut files: Vec<_> = (0..3).map(shard).collect();
    files.push(("data/test-00000-of-00001.parquet".into(), noise(30, 100)));
    let named: Vec<(&str, Vec<u8>)> = files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
    world.hub.publish("datasets/some/rows", &named);
    let reference = "hf://datasets/some/rows";
    // One of them, by its name; then the set is not taken for complete.
    let one = world.download_with(world.config(), &format!("{reference}/{}", files[1].0), &()).unwrap();
    assert!(one.snapshot.path.ends_with(&files[1].0));
    let find = || world.cache().find(&Reference::parse(reference).unwrap());
    let missing = find().unwrap_err();
    assert!(missing.to_string().contains("1 of the 3 files"), "{missing}");
    let all = world.download_with(world.config(), reference, &()).unwrap();
    assert_eq!((all.files.len(), all.new_files), (3, 2));
    assert!(all.snapshot.path.ends_with("data"));
    for (name, bytes) in &files[..3] {
        assert_eq!(&std::fs::read(all.snapshot.dir.join(name)).unwrap(), bytes);
    }
    assert!(!all.snapshot.dir.join(&files[3].0).exists(), "the other split is not fetched");
    assert_eq!(find().unwrap(), all.snapshot);
}

#[test]
fn the_first_failure_stops_the_other_files() {
    let world = World::new();
    let files: Vec<(String, Vec<u8>)> =
        (0..6).map(|n| (format!("train-0000{n}-of-00006.jsonl"), noise(40 + n, 9000 - n as usize))).collect();
    let named: Vec<(&str, Vec<u8>)> = files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
    world.hub.publish("datasets/some/rows", &named);
    // The largest come first: one is not there, the other one's server asks to wait.
    world.hub.fail(&format!("/{}", files[0].0), 1, Fault::Status(404, None));
    world.hub.fail(&format!("/{}", files[1].0), 1, Fault::Status(503, Some(30)));
    let config = HubConfig { connections: 2, ..world.config() };
    let begun = std::time::Instant::now();
    let error = world.download_with(config, "hf://datasets/some/rows", &()).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "the failure, not the stop: {error:?}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "nobody waits for the other one");
    let asked = |name: &str| world.hub.seen().iter().any(|seen| seen.target.contains(name));
    assert!(asked(&files[0].0) && !asked(&files[5].0), "what was not begun is not begun");
    // The next run, with a hub that behaves, brings them all.
    assert_eq!(world.download_with(world.config(), "hf://datasets/some/rows", &()).unwrap().files.len(), 6);
}

#[test]
fn several_files_come_at_once() {
    let world = World::new();
    // Both shards hang for a while; together they take the time of one.
    for name in [SHARD, "model-00002-of-00002.safetensors"] {
        let pause = std::time::Duration::from_millis(250);
        world.hub.fail(&world.hub.target_of(MODEL, name), 1, Fault::Stall(5000, pause));
    }
    let notes = Notes::default();
    world.download_with(world.config(), "hf://openai/gpt-oss-20b", &notes).unwrap();
    let events = notes.all();
    let at = |kind: &str, name: &str| {
        events.iter().position(|event| event.starts_with(kind) && event.contains(name)).unwrap()
    };
    assert!(at("Begun", "00002-of") < at("Finished", "00001-of"), "{events:#?}");
    assert!(at("Begun", "00001-of") < at("Finished", "00002-of"), "{events:#?}");
}

#[test]
fn a_server_that_names_no_hashes_in_its_list_is_asked_for_each() {
    let world = World::new();
    world.hub.keep_silent(MODEL);
    let fetched = world.download().unwrap();
    assert_eq!(world.bad_blobs(), Vec::<String>::new());
    assert_eq!(fetched.files.len(), 7);
    let heads = world.hub.seen().into_iter().filter(|seen| seen.method == "HEAD").count();
    assert_eq!(heads, 7);
    assert!(
        !world.hub.seen().iter().any(|seen| seen.method == "HEAD" && seen.at_store),
        "tags are the hub's"
    );
}

#[test]
fn what_is_not_there_is_said() {
    let world = World::new();
    let refusal = |reference: &str| match world.download_with(world.config(), reference, &()) {
        Err(Error::Refused { reason, .. }) => reason,
        other => panic!("{reference}: {other:?}"),
    };
    assert_eq!(refusal("hf://openai/nothing"), Refusal::NoRepo);
    assert_eq!(refusal("hf://openai/gpt-oss-20b@v9"), Refusal::NoRevision);
    assert_eq!(refusal("hf://datasets/openai/gpt-oss-20b"), Refusal::NoRepo);
    world.hub.fail("/api/", 1, Fault::Status(403, None));
    assert_eq!(refusal("hf://openai/gpt-oss-20b"), Refusal::Forbidden);
    world.hub.fail("/api/", 1, Fault::Status(401, None));
    assert_eq!(refusal("hf://openai/gpt-oss-20b"), Refusal::NeedsToken);
    assert_eq!(world.tree(), vec![], "nothing was written");
    world.hub.publish("models/meta/other", &[("config.json", br#"{"model_type": "llama"}"#.to_vec())]);
    let error = world.download_with(world.config(), "hf://meta/other", &()).unwrap_err();
    assert_eq!(error.to_string(), "meta/other: it has no tokenizer.json");
}

#[test]
fn another_architecture_is_refused_before_its_weights_are_fetched() {
    let world = World::new();
    let mut files = model_files();
    files[2].1 = br#"{"model_type": "llama"}"#.to_vec();
    world.hub.publish(MODEL, &files);
    let error = world.download().unwrap_err();
    assert_eq!(error.to_string(), "openai/gpt-oss-20b: its model_type is \"llama\"; expected \"gpt_oss\"");
    assert!(!world.hub.seen().iter().any(|seen| seen.at_store));
}

#[test]
fn a_disk_that_is_too_small_is_told_before_anything_large_is_fetched() {
    let world = World::new();
    let size = 1_u64 << 43;
    let sha256 = "a".repeat(64);
    let mut files = model_files();
    files.retain(|(name, _)| *name != SHARD);
    world.hub.publish(MODEL, &files);
    world.hub.list_also(
        MODEL,
        serde_json::json!({"rfilename": SHARD, "size": size, "lfs": {"sha256": sha256, "size": size}}),
    );
    let error = world.download().unwrap_err();
    assert!(matches!(error, Error::Space { needed, free, .. } if needed > size && free < size), "{error:?}");
    assert!(!world.hub.seen().iter().any(|seen| seen.at_store));
}

#[test]
fn a_hub_that_is_not_there_is_an_error_in_good_time() {
    let world = World::new();
    let mut config = world.config();
    // The port was given back, nobody listens there.
    config.endpoint = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let error = world.download_with(config, "hf://openai/gpt-oss-20b", &()).unwrap_err();
    assert!(matches!(error, Error::GaveUp { tries: 4, .. }), "{error:?}");
    assert_eq!(world.hub.connections(), 0);
}

#[test]
fn two_programs_that_want_the_same_file_fetch_it_once() {
    let world = World::new();
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| world.download())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for result in results {
        result.unwrap();
    }
    assert_eq!(world.bad_blobs(), Vec::<String>::new());
    let shard = world.hub.target_of(MODEL, SHARD);
    let fetched = world.hub.seen().into_iter().filter(|seen| seen.at_store && seen.target.contains(&shard));
    assert_eq!(fetched.count(), 1);
    assert!(world.hub.publish(ROWS, &[]).len() == 40);
    assert!(Hub::new(world.config(), Cache::new("unused")).is_ok());
}
