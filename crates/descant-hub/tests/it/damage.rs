//! Servers that cut, flip, lie about lengths, stall or answer something else: no bad file is accepted, and what came
//! is not fetched twice.

use std::time::Duration;

use descant_hub::{Error, Fetched, Hub, Reference};
use descant_testkit::loopback::Fault;

use crate::support::{MODEL, Notes, SHARD, SHARD_BYTES, World, chain, noise};

/// A download in which requests for the first shard meet these faults, one after the other.
fn with_faults(faults: &[Fault]) -> (World, Result<Fetched, Error>) {
    let world = World::new();
    for fault in faults {
        world.hub.fail(&world.hub.target_of(MODEL, SHARD), 1, fault.clone());
    }
    let result = world.download();
    (world, result)
}

/// The ranges in which the first shard was asked of the store.
fn ranges(world: &World) -> Vec<Option<String>> {
    let target = world.hub.target_of(MODEL, SHARD);
    let asked = world.hub.seen().into_iter().filter(|seen| seen.at_store && seen.target.contains(&target));
    asked.map(|seen| seen.range).collect()
}

#[test]
fn a_cut_at_any_byte_is_gone_on_with_by_range() {
    let mut random = noise(77, 64).into_iter().map(usize::from);
    let mut cuts: Vec<usize> = vec![1, 4095, SHARD_BYTES - 1];
    cuts.extend((0..12).map(|_| random.next().unwrap() * 390 + random.next().unwrap()));
    for cut in cuts {
        let (world, result) = with_faults(&[Fault::Cut(cut)]);
        result.unwrap_or_else(|error| panic!("cut at {cut}: {}", chain(&error)));
        assert_eq!(world.bad_blobs(), Vec::<String>::new(), "cut at {cut}");
        assert_eq!(ranges(&world), [None, Some(format!("bytes={cut}-"))], "cut at {cut}");
    }
}

#[test]
fn a_cut_before_the_first_byte_starts_again() {
    let (world, result) = with_faults(&[Fault::Cut(0), Fault::Hang]);
    result.unwrap();
    assert_eq!(ranges(&world), [None, None, None]);
}

#[test]
fn a_later_run_goes_on_where_the_last_one_stopped() {
    let world = World::new();
    let target = world.hub.target_of(MODEL, SHARD);
    world.hub.fail(&target, 1, Fault::Cut(70_000));
    // Nothing comes any more: the first run gives up.
    world.hub.fail(&target, 3, Fault::Hang);
    let error = world.download().unwrap_err();
    assert!(matches!(error, Error::GaveUp { tries: 4, .. }), "{}", chain(&error));
    let left: Vec<_> = world.tree().into_iter().filter(|(name, _)| name.ends_with(".incomplete")).collect();
    assert_eq!(left.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), [70_000]);
    assert!(world.cache().find(&Reference::parse("hf://openai/gpt-oss-20b").unwrap()).is_err());
    world.hub.forget();
    let notes = Notes::default();
    world.download_with(world.config(), "hf://openai/gpt-oss-20b", &notes).unwrap();
    assert_eq!(ranges(&world), [Some("bytes=70000-".to_owned())]);
    assert!(notes.all().iter().any(|event| event.contains("from: 70000")), "{:?}", notes.all());
    assert_eq!(world.bad_blobs(), Vec::<String>::new());
    assert!(!world.tree().iter().any(|(name, _)| name.ends_with(".incomplete")));
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is_and_fetched_again() {
    for at in [0, 1, 4096, SHARD_BYTES / 2, SHARD_BYTES - 1] {
        let (world, result) = with_faults(&[Fault::Flip(at)]);
        result.unwrap();
        assert_eq!(ranges(&world), [None, None], "from the first byte");
        assert_eq!(world.bad_blobs(), Vec::<String>::new());
    }
    let (world, result) = with_faults(&[Fault::Flip(5), Fault::Flip(5)]);
    let error = result.unwrap_err();
    assert!(matches!(&error, Error::Checksum { file, kind: "SHA-256", .. } if file == SHARD), "{error:?}");
    assert_eq!(world.bad_blobs(), Vec::<String>::new());
    assert!(!world.tree().iter().any(|(name, _)| name.contains(&world.hub.target_of(MODEL, SHARD))
        && !name.contains("lock")
        && !name.ends_with(".incomplete")));
}

#[test]
fn a_flipped_byte_in_a_small_file_is_found_by_gits_hash() {
    let world = World::new();
    world.hub.fail("/chat_template.jinja", 2, Fault::Flip(3));
    let error = world.download().unwrap_err();
    assert!(matches!(&error, Error::Checksum { kind: "git SHA-1", .. }), "{error:?}");
    assert_eq!(world.bad_blobs(), Vec::<String>::new());
    world.download().unwrap();
}

#[test]
fn a_left_over_that_is_not_the_beginning_of_the_file_is_thrown_away() {
    let world = World::new();
    let blobs = world.cache().root().join("models--openai--gpt-oss-20b/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(format!("{}.descant.incomplete", world.hub.target_of(MODEL, SHARD)));
    for length in [1000, SHARD_BYTES, SHARD_BYTES + 1] {
        std::io::Write::write_all(&mut std::fs::File::create(&part).unwrap(), &noise(66, length)).unwrap();
        world.download().unwrap();
        assert_eq!(world.bad_blobs(), Vec::<String>::new(), "{length}");
        std::fs::remove_file(blobs.join(world.hub.target_of(MODEL, SHARD))).unwrap();
    }
}

#[test]
fn wrong_lengths_are_never_accepted() {
    for fault in [
        Fault::Short(1),
        Fault::Short(SHARD_BYTES),
        Fault::Long(1),
        Fault::AnnounceMore(1),
        Fault::LoginPage,
        Fault::Status(304, None),
    ] {
        let (world, result) = with_faults(&vec![fault.clone(); 8]);
        let error = result.unwrap_err();
        assert!(!matches!(error, Error::Stopped), "{fault:?}: {}", chain(&error));
        assert_eq!(world.bad_blobs(), Vec::<String>::new(), "{fault:?}");
        let found = world.cache().find(&Reference::parse("hf://openai/gpt-oss-20b").unwrap());
        assert!(found.is_err(), "{fault:?}");
        // The same files from a server that behaves.
        let better = World::new();
        better.download().unwrap();
        if !matches!(fault, Fault::Status(..)) {
            let (world, result) = with_faults(&[fault]);
            result.unwrap();
            assert_eq!(world.bad_blobs(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_server_that_does_not_stop_cannot_fill_the_disk() {
    let world = World::new();
    world.hub.fail(&world.hub.target_of(MODEL, SHARD), 4, Fault::Long(3_000_000));
    let notes = Notes::default();
    let error = world.download_with(world.config(), "hf://openai/gpt-oss-20b", &notes).unwrap_err();
    assert!(chain(&error).contains("were announced"), "{}", chain(&error));
    let bytes =
        |event: &String| event.strip_prefix("Received { bytes: ")?.strip_suffix(" }")?.parse::<usize>().ok();
    let kept: usize = notes.all().iter().filter_map(bytes).sum();
    assert!(kept < 4 * SHARD_BYTES + 100_000, "{kept}");
}

#[test]
fn servers_that_do_not_know_ranges_start_from_the_first_byte() {
    let (world, result) = with_faults(&[Fault::Cut(50_000), Fault::IgnoreRange]);
    result.unwrap();
    assert_eq!(ranges(&world), [None, Some("bytes=50000-".into())]);
    assert_eq!(world.bad_blobs(), Vec::<String>::new());
    let (world, result) = with_faults(&[Fault::Cut(50_000), Fault::OtherRange]);
    result.unwrap();
    assert_eq!(ranges(&world), [None, Some("bytes=50000-".into()), None]);
    assert_eq!(world.bad_blobs(), Vec::<String>::new());
}

#[test]
fn a_connection_that_stalls_is_left() {
    let (world, result) = with_faults(&[Fault::Stall(30_000, Duration::from_secs(20))]);
    let begun = std::time::Instant::now();
    result.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(ranges(&world), [None, Some("bytes=30000-".into())]);
}

#[test]
fn busy_servers_are_asked_again_when_they_say() {
    let world = World::new();
    let target = world.hub.target_of(MODEL, SHARD);
    for (status, wait) in [(429, Some(0)), (503, None), (500, None)] {
        world.hub.fail(&target, 1, Fault::Status(status, wait));
    }
    world.hub.fail("/api/", 1, Fault::Status(429, Some(0)));
    let notes = Notes::default();
    world.download_with(world.config(), "hf://openai/gpt-oss-20b", &notes).unwrap();
    assert_eq!(notes.count("Again"), 4);
    let waits = |seconds| {
        let world = World::new();
        world.hub.fail("/api/", 1, Fault::Status(429, Some(seconds)));
        let begun = std::time::Instant::now();
        (world.download(), begun.elapsed())
    };
    let (result, took) = waits(1);
    result.unwrap();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    let (result, took) = waits(4000);
    assert!(matches!(result, Err(Error::Later { seconds: 4000, .. })), "{result:?}");
    assert!(took < Duration::from_secs(10));
    let (world, result) = with_faults(&vec![Fault::Status(500, None); 9]);
    assert!(matches!(result, Err(Error::GaveUp { tries: 4, .. })));
    assert_eq!(world.bad_blobs(), Vec::<String>::new());
}

#[test]
fn a_pointer_of_lfs_is_no_file() {
    let (world, result) = with_faults(&vec![Fault::Pointer; 9]);
    let error = chain(&result.unwrap_err());
    assert!(error.contains("announced") || error.contains("pointer"), "{error}");
    assert_eq!(world.bad_blobs(), Vec::<String>::new());
}

#[test]
fn a_damaged_cache_is_found_and_mended_when_asked() {
    let world = World::new();
    let fetched = world.download().unwrap();
    let shard = std::fs::canonicalize(fetched.snapshot.path.join(SHARD)).unwrap();
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[77] ^= 1;
    std::io::Write::write_all(&mut std::fs::File::create(&shard).unwrap(), &bytes).unwrap();
    let damaged = |world: &World| {
        let checked = world.cache().verify(&fetched.snapshot, |_| {}).unwrap();
        assert_eq!(checked.len(), 7);
        let bad = checked.into_iter().filter(|c| matches!(c.outcome, descant_hub::Outcome::Damaged(_)));
        bad.map(|c| c.name).collect::<Vec<_>>()
    };
    assert_eq!(damaged(&world), [SHARD]);
    assert_eq!(world.download().unwrap().new_files, 0, "by length alone it looks whole");
    let hub = Hub::new(world.config(), world.cache()).unwrap();
    let mended = hub.download(&fetched.snapshot.reference, true, &()).unwrap();
    assert_eq!(mended.new_files, 1);
    assert_eq!(damaged(&world), Vec::<String>::new());
}
