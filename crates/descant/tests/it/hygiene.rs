//! Where code may be unsafe, that the lints which guard the rest are on everywhere, and how wide CUDA C++ is.
//!
//! That every `unsafe` has its SAFETY, and that nothing outside tests calls `unwrap`, is clippy's to find
//! (`undocumented_unsafe_blocks`, `unwrap_used`), with warnings denied in CI. Here it is made sure that nobody turns
//! them off, and that `unsafe` stays in the modules that need it.

use std::path::{Path, PathBuf};

use crate::binary::root;

/// Modules that talk to a device or its libraries, the matrix product that hands out parts of its output to threads,
/// the memory map, and the counting allocator of the tests.
const UNSAFE: [&str; 17] = [
    "crates/descant-files/src/map.rs",
    "crates/descant-kernels/src/cpu/matmul.rs",
    "crates/descant-kernels/src/cuda/args.rs",
    "crates/descant-kernels/src/cuda/boxes.rs",
    "crates/descant-kernels/src/cuda/brake.rs",
    "crates/descant-kernels/src/cuda/driver.rs",
    "crates/descant-kernels/src/cuda/ending.rs",
    "crates/descant-kernels/src/cuda/event.rs",
    "crates/descant-kernels/src/cuda/graph.rs",
    "crates/descant-kernels/src/cuda/host.rs",
    "crates/descant-kernels/src/cuda/launch.rs",
    "crates/descant-kernels/src/cuda/library.rs",
    "crates/descant-kernels/src/cuda/lt.rs",
    "crates/descant-kernels/src/cuda/nccl/group.rs",
    "crates/descant-kernels/src/cuda/nccl/library.rs",
    "crates/descant-kernels/src/cuda/program.rs",
    "crates/descant-testkit/src/heap.rs",
];

/// Lints that must be on in the root manifest, as they are there.
const LINTS: [&str; 3] =
    ["unsafe_code = \"deny\"", "unwrap_used = \"warn\"", "undocumented_unsafe_blocks = \"warn\""];

/// Whether a text has the keyword, in code.
fn is_unsafe(text: &str) -> bool {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let starts =
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern", "unsafe(", "-> unsafe"];
    code.into_iter().any(|line| starts.iter().any(|start| line.contains(start)))
}

/// What is wrong with a source file.
fn findings(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if is_unsafe(text) != UNSAFE.contains(&name) {
        found.push(format!("{name}: unsafe, or listed as unsafe, but not both"));
    }
    let off = |line: &&str| {
        let lint =
            line.contains("clippy::unwrap_used") || line.contains("clippy::undocumented_unsafe_blocks");
        lint && (line.contains("allow(") || line.contains("expect("))
    };
    found.extend(text.lines().filter(off).map(|line| format!("{name}: {}", line.trim())));
    found
}

/// Columns of a line of CUDA C++ at most, as `.clang-format` has it.
const COLUMNS: usize = 120;

/// Lines of CUDA C++ that are too long, or end in blanks.
fn ragged(name: &str, text: &str) -> Vec<String> {
    let bad = |line: &str| line.chars().count() > COLUMNS || line.ends_with([' ', '\t', '\r']);
    text.lines().zip(1..).filter(|(line, _)| bad(line)).map(|(_, at)| format!("{name}:{at}")).collect()
}

/// Files under a folder with one of these endings.
fn sources(folder: &Path, endings: &[&str], all: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            sources(&path, endings, all);
        } else if path.extension().is_some_and(|extension| endings.iter().any(|ending| extension == *ending))
        {
            all.push(path);
        }
    }
}

#[test]
fn unsafe_code_stays_where_it_is_and_its_lints_are_on() {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.push(root().join("xtask"));
    let mut all = Vec::new();
    for folder in folders.iter().filter(|folder| folder.join("Cargo.toml").is_file()) {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        // The stub is not a member, and compiles nothing.
        let inherits = manifest.contains("[lints]\nworkspace = true") || folder.ends_with("cubecl-llvm-stub");
        assert!(inherits, "{} does not inherit the lints", folder.display());
        sources(&folder.join("src"), &["rs"], &mut all);
    }
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for lint in LINTS {
        assert!(manifest.lines().any(|line| line == lint), "{lint}");
    }
    let found: Vec<String> = all
        .iter()
        .flat_map(|path| {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
            findings(&name, &std::fs::read_to_string(path).unwrap())
        })
        .collect();
    assert_eq!(found, Vec::<String>::new());
    assert!(all.len() > 150, "the files are really read: {}", all.len());
}

#[test]
fn what_should_not_be_is_found() {
    let safe = "// unsafe { }\nlet x = \"unsafe-inline\";";
    assert_eq!(findings("crates/a/src/b.rs", safe), Vec::<String>::new());
    for code in
        ["    unsafe { f() }", "unsafe impl Send for X {}", "pub unsafe fn f() {}", "#[unsafe(no_mangle)]"]
    {
        assert_eq!(findings("crates/a/src/b.rs", code).len(), 1, "{code}");
    }
    assert_eq!(findings(UNSAFE[0], "fn f() {}").len(), 1, "listed without need");
    let off = "#[allow(clippy::unwrap_used, reason = \"x\")]";
    assert_eq!(findings("crates/a/src/b.rs", off).len(), 1);
}

#[test]
fn cuda_code_keeps_to_its_columns() {
    let config = std::fs::read_to_string(root().join(".clang-format")).unwrap();
    assert!(config.contains(&format!("ColumnLimit: {COLUMNS}\n")), "the formatter has another limit");
    let mut all = Vec::new();
    sources(&root().join("crates"), &["cu", "cuh"], &mut all);
    let found: Vec<String> = all
        .iter()
        .flat_map(|path| ragged(&path.display().to_string(), &std::fs::read_to_string(path).unwrap()))
        .collect();
    assert_eq!(found, Vec::<String>::new(), "clang-format -i does it");
    assert!(all.len() > 20, "the files are really read: {}", all.len());
    let long = "/".repeat(COLUMNS + 1);
    assert_eq!(ragged("a.cu", &format!("int x;\n{long}\nint y; \n{}", &long[1..])), ["a.cu:2", "a.cu:3"]);
}
