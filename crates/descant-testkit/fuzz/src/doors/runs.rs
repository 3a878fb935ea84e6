//! Settings, checkpoints, and what a hub answers.

use descant_hub::Listing;

use super::Opened;
use crate::settings::{DEFAULT_TOML, resolve_text};

/// The text of a settings file; behind a zero byte, what is given to `--set`.
pub(super) fn settings() -> Opened {
    let door = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let (file, sets) = text.split_once('\0').unwrap_or((&text, ""));
        let sets: Vec<String> = sets.split('\0').filter(|set| !set.is_empty()).map(str::to_owned).collect();
        let Ok(resolved) = resolve_text("run.toml", file, &sets) else { return };
        if resolved.settings.validate().is_ok() {
            let again =
                resolve_text("run.toml", &resolved.text, &[]).expect("what is written down reads back");
            assert_eq!(again.sha256, resolved.sha256);
        }
    };
    let text = resolve_text("default", DEFAULT_TOML, &[]).expect("the embedded default").text;
    let sets = "\0train.learning_rate=2e-4\0evaluate.efforts=[\"low\", \"high\"]\0data.loss.final=0.5";
    (Box::new(door), vec![text.clone().into_bytes(), (text + sets).into_bytes(), sets.as_bytes().to_vec()])
}

/// The first line of a manifest; its sum is put below it, or nothing would get further.
pub(super) fn checkpoint() -> Opened {
    let door = |bytes: &[u8]| {
        let sum = descant_files::sha256(bytes);
        let _ = descant_train::checkpoint::read_manifest(&[bytes, b"\n", sum.as_bytes(), b"\n"].concat());
        let _ = descant_train::checkpoint::read_manifest(bytes);
    };
    let seed = r#"{"format":1,"step":120,"version":"0.0.0","identity":[["a","b"]],"logs":{"metrics.jsonl":3},"files":[{"name":"state.json","bytes":2,"sha256":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}]}"#;
    (Box::new(door), vec![seed.as_bytes().to_vec()])
}

pub(super) fn listing() -> Opened {
    let door = |bytes: &[u8]| {
        if let Ok(listing) = Listing::parse(bytes) {
            assert!(listing.files.values().all(|file| file.size.is_none_or(|size| size <= 1 << 44)));
        }
    };
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let sha256 = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let seed = serde_json::json!({"sha": commit, "siblings": [
        {"rfilename": "config.json", "size": 2, "blobId": commit},
        {"rfilename": "model.safetensors", "size": 9, "blobId": commit,
         "lfs": {"sha256": sha256, "size": 9, "pointerSize": 134}}]});
    (Box::new(door), vec![seed.to_string().into_bytes()])
}
