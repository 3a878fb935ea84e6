//! Model directories with one thing wrong: each is its own error and names file and tensor.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use descant_model::{Bare, Batch, Error, GptOss};
use descant_testkit::shard::{Dtype, Tensors, file_of, tensors_of};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden").join(name)
}

fn tensors(path: &Path) -> Tensors {
    tensors_of(&std::fs::read(path).expect("the fixture is there"))
}

#[expect(clippy::disallowed_methods, reason = "a test's own folder need not survive a crash")]
fn put(path: PathBuf, bytes: impl AsRef<[u8]>) {
    std::fs::write(path, bytes).expect("writes");
}

fn save(dir: &Path, file: &str, tensors: &Tensors) {
    put(dir.join(file), file_of(tensors));
}

/// A copy of parity-a whose tensors went through `change`.
fn changed(change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    put(dir.path().join("config.json"), std::fs::read(golden("parity-a/config.json")).expect("reads"));
    let mut tensors = tensors(&golden("parity-a/model.safetensors"));
    change(&mut tensors);
    save(dir.path(), "model.safetensors", &tensors);
    dir
}

fn load(dir: &Path) -> Result<GptOss, Error> {
    GptOss::load(dir, &Device::flex())
}

fn loss(model: &GptOss) -> Vec<f32> {
    let ids: Vec<u32> = (0..20).map(|i| i * 7 % 256).collect();
    let batch = Batch::new([ids.as_slice()], 256).expect("valid");
    model.logits(model.hidden(&batch, &Bare)).into_data().try_to_vec().expect("f32")
}

const SCALES: &str = "model.layers.2.mlp.experts.down_proj_scales";
const BIAS: &str = "model.layers.1.self_attn.k_proj.bias";

#[test]
fn a_missing_tensor_is_named() {
    let dir = changed(|t| {
        t.remove(BIAS);
    });
    assert!(matches!(load(dir.path()), Err(Error::TensorMissing { name, .. }) if name == BIAS));
}

#[test]
fn an_extra_tensor_is_named() {
    let dir = changed(|t| {
        let copy = t[BIAS].clone();
        t.insert("model.layers.9.self_attn.k_proj.bias".into(), copy);
    });
    assert!(
        matches!(load(dir.path()), Err(Error::TensorExtra { name, .. }) if name == "model.layers.9.self_attn.k_proj.bias")
    );
}

#[test]
fn a_misshapen_tensor_is_named() {
    let dir = changed(|t| t.get_mut(SCALES).expect("is there").1 = vec![8, 3, 64]);
    assert!(matches!(
        load(dir.path()),
        Err(Error::TensorShape { name, expected, actual, .. })
            if name == SCALES && expected == [8, 64, 3] && actual == [8, 3, 64]
    ));
}

#[test]
fn a_mistyped_tensor_is_named() {
    let dir = changed(|t| t.get_mut(BIAS).expect("is there").0 = Dtype::I16);
    assert!(matches!(load(dir.path()), Err(Error::TensorType { name, .. }) if name == BIAS));
    let dir = changed(|t| t.get_mut(SCALES).expect("is there").0 = Dtype::I8);
    assert!(matches!(load(dir.path()), Err(Error::TensorType { name, .. }) if name == SCALES));
}

#[test]
fn values_that_are_no_numbers_are_named_with_their_place() {
    let dir = changed(|t| t.get_mut(BIAS).expect("is there").2[6..8].copy_from_slice(&[0xc0, 0x7f]));
    assert!(matches!(load(dir.path()), Err(Error::TensorNotFinite { name, element: 3, .. }) if name == BIAS));
    let dir = changed(|t| t.get_mut(SCALES).expect("is there").2[17] = 255);
    assert!(
        matches!(load(dir.path()), Err(Error::TensorNotFinite { name, element: 17, .. }) if name == SCALES)
    );
}

#[test]
fn a_directory_without_weights_and_a_broken_shard_are_told_apart() {
    let dir = changed(|_| {});
    put(dir.path().join("model.safetensors"), b"not a shard");
    assert!(matches!(load(dir.path()), Err(Error::Shard { .. })));
    std::fs::remove_file(dir.path().join("model.safetensors")).expect("removes");
    assert!(matches!(load(dir.path()), Err(Error::NoWeights { .. })));
}

/// The same tensors in two shards, with an index that went through `change`.
fn sharded(change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> tempfile::TempDir {
    let dir = changed(|_| {});
    std::fs::remove_file(dir.path().join("model.safetensors")).expect("removes");
    let all = tensors(&golden("parity-a/model.safetensors"));
    let (first, second): (Tensors, Tensors) = all.into_iter().partition(|(name, _)| name.len() % 2 == 0);
    let mut map = serde_json::Map::new();
    for (file, tensors) in [("a.safetensors", &first), ("b.safetensors", &second)] {
        save(dir.path(), file, tensors);
        map.extend(tensors.keys().map(|name| (name.clone(), file.into())));
    }
    change(&mut map);
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    put(dir.path().join("model.safetensors.index.json"), index.to_string());
    dir
}

#[test]
fn shards_give_the_same_model_as_one_file() {
    let whole = load(&golden("parity-a")).expect("loads");
    let sharded = load(sharded(|_| {}).path()).expect("loads");
    assert_eq!(loss(&whole), loss(&sharded));
}

#[test]
fn an_index_that_lies_is_refused() {
    for (name, file, said) in [
        (BIAS, "../elsewhere.safetensors", "contains the part `.` or `..`"),
        (BIAS, "/etc/passwd", "is absolute"),
        (BIAS, "..", "contains the part `.` or `..`"),
        (BIAS, "a\\b.safetensors", "contains a backslash"),
        (BIAS, "a/b.safetensors", "is in another folder"),
        ("model.unknown", "a.safetensors", "in the index and in no file"),
    ] {
        let dir = sharded(|map| {
            map.insert(name.into(), file.into());
        });
        let error = load(dir.path()).expect_err(file);
        assert!(matches!(error, Error::Index { .. }) && error.to_string().contains(said), "{error}");
    }
    let dir = sharded(|map| {
        map.insert(BIAS.into(), "c.safetensors".into());
    });
    assert!(load(dir.path()).is_err(), "a shard that is not there");
}

#[test]
fn a_config_that_denies_the_packing_refuses_packed_experts() {
    let dir = changed(|_| {});
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(golden("parity-a/config.json")).expect("reads")).expect("JSON");
    config.as_object_mut().expect("an object").remove("quantization_config");
    put(dir.path().join("config.json"), config.to_string());
    assert!(matches!(load(dir.path()), Err(Error::TensorExtra { name, .. }) if name.ends_with("_blocks")));
}

#[test]
fn tokens_outside_the_vocabulary_and_empty_sequences_are_refused() {
    assert!(matches!(Batch::new([&[1u32, 512][..]], 512), Err(Error::TokenId { position: 1, id: 512, .. })));
    assert!(matches!(Batch::new([&[1u32][..], &[][..]], 512), Err(Error::EmptySequence { index: 1 })));
}

/// The tensors of parity-a in two shards with their index, and beside them a whole file that went through `change`;
/// shards that `keep` does not want are not written.
fn beside(change: impl FnOnce(&mut Tensors), keep: impl Fn(&str) -> bool) -> tempfile::TempDir {
    let dir = changed(change);
    let all = tensors(&golden("parity-a/model.safetensors"));
    let (mut map, mut shards) = (serde_json::Map::new(), [Tensors::new(), Tensors::new()]);
    for (at, (name, tensor)) in all.into_iter().enumerate() {
        map.insert(name.clone(), format!("model-{}.safetensors", at % 2).into());
        shards[at % 2].insert(name, tensor);
    }
    for (at, shard) in shards.iter().enumerate() {
        let name = format!("model-{at}.safetensors");
        if keep(&name) {
            save(dir.path(), &name, shard);
        }
    }
    let index = serde_json::json!({ "weight_map": map });
    put(dir.path().join("model.safetensors.index.json"), index.to_string());
    dir
}

#[test]
fn an_index_whose_files_are_gone_does_not_hide_a_whole_file() {
    let plain = loss(&load(&golden("parity-a")).expect("loads"));
    for keep in [|_: &str| false, |name: &str| name.contains('1')] {
        let dir = beside(|_| {}, keep);
        assert_eq!(loss(&load(dir.path()).expect("the whole file is read")), plain);
        let files = descant_model::identity_files(dir.path()).expect("files");
        assert_eq!(files.len(), 2, "configuration and whole file: {files:?}");
    }
    let dir = beside(|_| {}, |_| false);
    std::fs::remove_file(dir.path().join("model.safetensors")).expect("removes");
    assert!(load(dir.path()).is_err(), "without a whole file the index is followed");
}

#[test]
fn an_index_and_a_whole_file_load_if_they_are_the_same_and_are_named_if_not() {
    let dir = beside(|_| {}, |_| true);
    load(dir.path()).expect("both are the same model");
    let byte = |t: &mut Tensors| *t.get_mut(BIAS).expect("is there").2.last_mut().expect("bytes") ^= 1;
    let missing = |t: &mut Tensors| drop(t.remove(BIAS));
    let more = |t: &mut Tensors| {
        let copy = t[BIAS].clone();
        t.insert("another".into(), copy);
    };
    let changes: [fn(&mut Tensors); 3] = [byte, missing, more];
    for (name, change) in [BIAS, BIAS, "another"].into_iter().zip(changes) {
        let text = load(beside(change, |_| true).path()).expect_err("they differ").to_string();
        let whole = "model.safetensors are not the same model";
        assert!(text.contains("index.json") && text.contains(whole) && text.contains(name), "{text}");
    }
}
