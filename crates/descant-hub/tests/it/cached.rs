//! What needs no network: caches that others filled, plain directories, and that no socket is opened.

use descant_hub::{Checked, Error, Outcome, Reference, check_dir};

use crate::support::{SHARD, World, model_files, noise};

fn write(path: &std::path::Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), bytes).unwrap();
}

#[test]
fn finding_and_verifying_open_no_socket() {
    let world = World::new();
    let reference = Reference::parse("hf://openai/gpt-oss-20b").unwrap();
    let nothing = world.cache().find(&reference).unwrap_err();
    assert!(nothing.to_string().contains("is not in the cache"), "{nothing}");
    assert_eq!(world.hub.connections(), 0);
    world.download().unwrap();
    let before = world.hub.connections();
    assert!(before > 0);
    let snapshot = world.cache().find(&reference).unwrap();
    let checked = world.cache().verify(&snapshot, |_| {}).unwrap();
    assert!(checked.iter().all(|c| matches!(c.outcome, Outcome::Verified(_))), "{checked:?}");
    assert_eq!(world.hub.connections(), before);
}

#[test]
fn a_snapshot_that_lacks_a_shard_is_not_taken() {
    let world = World::new();
    let snapshot = world.download().unwrap().snapshot;
    std::fs::remove_file(std::fs::canonicalize(snapshot.path.join(SHARD)).unwrap()).unwrap();
    let error = world.cache().find(&snapshot.reference).unwrap_err();
    assert!(matches!(&error, Error::NotCached { missing, .. } if missing.contains(SHARD)), "{error:?}");
    assert_eq!(world.download().unwrap().new_files, 1);
    assert!(world.cache().find(&snapshot.reference).is_ok());
}

#[test]
fn a_directory_tells_pointers_and_cut_files() {
    let dir = tempfile::tempdir().unwrap();
    let header = br#"{"a":{"dtype":"U8","shape":[6],"data_offsets":[0,6]}}"#;
    let mut whole = (header.len() as u64).to_le_bytes().to_vec();
    whole.extend_from_slice(header);
    whole.extend_from_slice(b"abcdef");
    for (name, bytes) in [
        ("config.json", &br#"{"model_type": "gpt_oss"}"#[..]),
        ("tokenizer.json", b"{}"),
        ("model.safetensors", &whole),
    ] {
        write(&dir.path().join(name), bytes);
    }
    let outcome = |bytes: &[u8]| {
        write(&dir.path().join("model.safetensors"), bytes);
        let checked = check_dir(dir.path()).unwrap();
        let weights: Vec<Checked> = checked.into_iter().filter(|c| c.name == "model.safetensors").collect();
        format!("{:?}", weights[0].outcome)
    };
    assert_eq!(outcome(&whole), "Consistent");
    assert!(outcome(&whole[..whole.len() - 1]).contains("Length"));
    assert!(outcome(&[&whole[..], b"x"].concat()).contains("Length"));
    assert!(
        outcome(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n").contains("Pointer")
    );
    for junk in [&b""[..], b"1234567", &[0xff; 64], &noise(1, 5000)] {
        assert!(outcome(junk).contains("Damaged"), "{junk:?}");
    }
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    assert!(check_dir(dir.path()).unwrap_err().to_string().ends_with("it has no tokenizer.json"));
    assert!(!model_files().is_empty());
}
