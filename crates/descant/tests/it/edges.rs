//! Which crate may know which. A new edge is the rarest change there is: it begins here, in the table.
//!
//! Read from the manifests, so that no build is needed and every kind of dependency counts: normal, build, dev,
//! and those for one target only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Folder of a crate, and the crates of ours it may depend on.
const EDGES: [(&str, &[&str]); 15] = [
    ("crates/cubecl-llvm-stub", &[]),
    ("crates/descant-files", &[]),
    ("crates/descant-quant", &[]),
    ("crates/descant-workers", &[]),
    // Tests only: what other crates' tests share.
    ("crates/descant-testkit", &["descant-files", "descant-quant"]),
    ("crates/descant-hub", &["descant-files", "descant-testkit"]),
    ("crates/descant-harmony", &["descant-files"]),
    ("crates/descant-evaluate", &["descant-files", "descant-harmony", "descant-testkit"]),
    ("crates/descant-kernels", &["descant-quant"]),
    ("crates/descant-model", &["descant-files", "descant-kernels", "descant-quant", "descant-testkit"]),
    ("crates/descant-lora", &["descant-files", "descant-kernels", "descant-model"]),
    (
        "crates/descant-export",
        &["descant-files", "descant-lora", "descant-model", "descant-quant", "descant-testkit"],
    ),
    (
        "crates/descant-train",
        &[
            "descant-files",
            "descant-harmony",
            "descant-kernels",
            "descant-lora",
            "descant-model",
            "descant-testkit",
            "descant-workers",
        ],
    ),
    (
        "crates/descant",
        &[
            "descant-evaluate",
            "descant-export",
            "descant-files",
            "descant-harmony",
            "descant-hub",
            "descant-kernels",
            "descant-lora",
            "descant-model",
            "descant-testkit",
            "descant-train",
            "descant-workers",
        ],
    ),
    ("xtask", &[]),
];

/// What only these crates may depend on: terminals stay in the binary, tensors out of text and files, and only
/// the hub opens sockets.
const FENCES: [(&str, &[&str]); 17] = [
    ("anstream", &["crates/descant"]),
    ("anyhow", &["crates/descant", "xtask"]),
    (
        "burn",
        &[
            "crates/descant",
            "crates/descant-kernels",
            "crates/descant-lora",
            "crates/descant-model",
            "crates/descant-train",
        ],
    ),
    ("burn-cubecl", &["crates/descant-kernels"]),
    ("burn-flex", &["crates/descant-kernels"]),
    ("clap", &["crates/descant"]),
    ("cubecl", &["crates/descant-kernels"]),
    ("cudarc", &["crates/descant-kernels"]),
    ("hf-hub", &[]),
    ("indicatif", &["crates/descant"]),
    ("lingua", &["crates/descant-evaluate"]),
    ("minijinja", &["crates/descant-harmony"]),
    ("parquet", &["crates/descant-harmony"]),
    ("reqwest", &[]),
    ("tokenizers", &["crates/descant-harmony"]),
    ("tracing-subscriber", &["crates/descant"]),
    ("ureq", &["crates/descant-hub"]),
];

/// Folder of each crate, and everything its manifest depends on.
type Manifests = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn manifests() -> Manifests {
    let mut folders: Vec<_> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| format!("crates/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    folders.push("xtask".to_owned());
    folders.retain(|folder| root().join(folder).join("Cargo.toml").is_file());
    let read = |folder: String| {
        let text = std::fs::read_to_string(root().join(&folder).join("Cargo.toml")).unwrap();
        let mut names = BTreeSet::new();
        dependencies(&toml::from_str(&text).unwrap(), &mut names);
        (folder, names)
    };
    folders.into_iter().map(read).collect()
}

/// Collects the names in every `*dependencies` table, also under `[target.*]`.
fn dependencies(table: &toml::Table, names: &mut BTreeSet<String>) {
    for (key, value) in table {
        let Some(inner) = value.as_table() else { continue };
        if key.ends_with("dependencies") {
            let name = |(key, value): (&String, &toml::Value)| {
                value.get("package").and_then(toml::Value::as_str).unwrap_or(key).to_owned()
            };
            names.extend(inner.iter().map(name));
        } else {
            dependencies(inner, names);
        }
    }
}

/// Everything in `manifests` that the tables do not allow.
fn violations(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for (folder, names) in manifests {
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| known == folder) else {
            found.push(format!("{folder} is not in the table"));
            continue;
        };
        let ours = names.iter().filter(|name| name.starts_with("descant") || *name == "xtask");
        found.extend(ours.filter(|n| !allowed.contains(&n.as_str())).map(|n| format!("{folder} -> {n}")));
        let fenced =
            FENCES.iter().filter(|(name, users)| names.contains(*name) && !users.contains(&folder.as_str()));
        found.extend(fenced.map(|(name, _)| format!("{folder} -> {name}")));
    }
    let missing = EDGES.iter().filter(|(folder, _)| !manifests.contains_key(*folder));
    found.extend(missing.map(|(folder, _)| format!("{folder} is in the table only")));
    found
}

#[test]
fn crates_know_only_what_the_table_allows() {
    let manifests = manifests();
    assert_eq!(violations(&manifests), Vec::<String>::new());
    assert!(manifests["crates/descant-train"].contains("descant-lora"), "the manifests are really read");
    assert!(manifests["crates/descant-harmony"].contains("tiktoken-rs"), "dev-dependencies count");
}

#[test]
fn a_wrong_edge_in_a_manifest_is_found() {
    let add = |folder: &str, section: &str, line: &str| {
        let mut manifests = manifests();
        let names = manifests.entry(folder.to_owned()).or_default();
        dependencies(&toml::from_str(&format!("[{section}]\n{line}\n")).unwrap(), names);
        violations(&manifests)
    };
    let lora = "descant-lora.workspace = true";
    assert_eq!(add("crates/descant-model", "dependencies", lora), ["crates/descant-model -> descant-lora"]);
    assert_eq!(
        add("crates/descant-model", "dev-dependencies", lora),
        ["crates/descant-model -> descant-lora"]
    );
    let target = "target.'cfg(unix)'.build-dependencies";
    assert_eq!(add("crates/descant-files", target, lora), ["crates/descant-files -> descant-lora"]);
    let renamed = "files = { package = \"descant-files\", path = \"../descant-files\" }";
    assert_eq!(
        add("crates/descant-quant", "dependencies", renamed),
        ["crates/descant-quant -> descant-files"]
    );
    assert_eq!(
        add("crates/descant-harmony", "dependencies", "burn = \"1\""),
        ["crates/descant-harmony -> burn"]
    );
    assert_eq!(add("crates/descant-train", "dependencies", "clap = \"4\""), ["crates/descant-train -> clap"]);
    assert_eq!(add("crates/descant-new", "dependencies", ""), ["crates/descant-new is not in the table"]);
    let mut fewer = manifests();
    fewer.remove("xtask");
    assert_eq!(violations(&fewer), ["xtask is in the table only"]);
}
