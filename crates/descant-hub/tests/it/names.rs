//! Hostile names in lists and indices: refused, and nothing is written outside.

use descant_hub::{Error, Reference};
use serde_json::json;

use crate::support::{MODEL, ROWS, World, chain, model_files, noise};

/// Names that lead somewhere else on some system.
fn hostile() -> Vec<String> {
    let mut names: Vec<String> = [
        "../x",
        "../../x",
        "a/../../x",
        "..",
        "/x",
        "/etc/x",
        "//server/x",
        "C:x",
        "C:/x",
        "c:\\x",
        "\\\\server\\x",
        "..\\x",
        "a\\..\\x",
        "a\\x",
        "./x",
        "a/./x",
        "a//x",
        "a/../x",
        "NUL",
        "nul",
        "con",
        "a/aux",
        "COM1",
        "lpt9",
        "x.",
        "x ",
        "a./x",
        "a /x",
        "x\u{0}",
        "x\ny",
        "x\ty",
        "x\u{1b}[2J",
        "x\u{7f}",
        "a.txt:stream",
        "~/../x",
        "...",
        ".. /x",
        "../.locks/x",
        "../refs/main",
        "../../models--openai--gpt-oss-20b/refs/main",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("n".repeat(300));
    names.push("n/".repeat(600));
    names
}

#[test]
fn hostile_names_in_an_index_are_refused() {
    let names = hostile();
    assert!(names.len() >= 40);
    for name in names {
        let world = World::new();
        let shard = format!("{name}.safetensors");
        let mut files = model_files();
        let index = json!({"weight_map": {"a": shard}}).to_string();
        files.iter_mut().find(|(name, _)| *name == "model.safetensors.index.json").unwrap().1 =
            index.into_bytes();
        world.hub.publish(MODEL, &files);
        // The server has such a file, and would give it.
        let entry = json!({"rfilename": shard, "size": 5, "blobId": "a".repeat(40)});
        world.hub.list_also(MODEL, entry);
        let result = world.download();
        let plain = descant_files_would_take(&shard) && !shard.contains('/');
        if plain {
            // The ending makes it harmless, as in `x .safetensors`; then the server does not give what it listed.
            assert!(result.is_err(), "{name:?}");
        } else {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Incompatible { .. }), "{name:?}: {}", chain(&error));
        }
        nothing_outside(&world, &name);
    }
}

#[test]
fn hostile_names_of_rows_are_refused() {
    for name in hostile() {
        let world = World::new();
        world.hub.publish(ROWS, &[]);
        let file = format!("{name}/train.parquet");
        let entry = json!({"rfilename": file, "size": 7, "blobId": "a".repeat(40)});
        world.hub.list_also(ROWS, entry);
        let reference = "hf://datasets/HuggingFaceH4/Multilingual-Thinking";
        let error = world.download_with(world.config(), reference, &()).unwrap_err();
        if descant_files_would_take(&file) {
            assert!(matches!(error, Error::Refused { .. }), "{name:?}: {}", chain(&error));
        } else {
            assert!(matches!(error, Error::Incompatible { .. }), "{name:?}: {}", chain(&error));
        }
        nothing_outside(&world, &name);
    }
}

#[test]
fn hostile_names_that_no_run_needs_are_not_touched() {
    let world = World::new();
    for name in hostile() {
        world.hub.list_also(MODEL, json!({"rfilename": name, "size": 5, "blobId": "a".repeat(40)}));
    }
    world.download().unwrap();
    nothing_outside(&world, "all of them");
    assert_eq!(world.bad_blobs(), Vec::<String>::new());
}

#[test]
fn lists_that_contradict_themselves_are_refused() {
    for entry in [
        json!({"rfilename": "config.json", "size": 5, "blobId": "a".repeat(40)}),
        json!({"rfilename": "x", "size": 5, "blobId": "../../../../x"}),
        json!({"rfilename": "x", "size": 1_u64 << 60}),
        json!({"rfilename": 7}),
        json!("x"),
    ] {
        let world = World::new();
        world.hub.list_also(MODEL, entry.clone());
        let error = world.download().unwrap_err();
        assert!(matches!(error, Error::Listing { .. }), "{entry}: {}", chain(&error));
        assert_eq!(world.tree(), vec![], "{entry}");
    }
}

#[test]
fn a_link_that_leads_out_of_the_cache_is_not_followed() {
    let world = World::new();
    let outside = world.dir.path().join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    let refs = world.cache().root().join("models--openai--gpt-oss-20b");
    std::fs::create_dir_all(&refs).unwrap();
    std::os::unix::fs::symlink(&outside, refs.join("refs")).unwrap();
    world.hub.publish(MODEL, &[("config.json", noise(1, 10))]);
    assert!(world.download().is_err());
    std::fs::create_dir_all(refs.join("snapshots")).unwrap();
    let reference = Reference::parse("hf://openai/gpt-oss-20b@x%2Fy").unwrap();
    assert!(world.cache().find(&reference).is_err());
    assert_eq!(outside.read_dir().unwrap().count(), 0);
}

/// Whether a name is a plain relative path, by the only judge there is.
fn descant_files_would_take(name: &str) -> bool {
    Reference::parse(&format!("hf://datasets/a/b/{name}")).is_ok()
}

/// Everything lies in the cache's own folders.
fn nothing_outside(world: &World, name: &str) {
    for (path, _) in world.tree() {
        let inside = [
            "hub/models--openai--gpt-oss-20b/",
            "hub/datasets--HuggingFaceH4--Multilingual-Thinking/",
            "hub/.locks/",
        ];
        assert!(inside.iter().any(|folder| path.starts_with(folder)), "{name:?}: {path}");
    }
}
