//! How a kernel is launched is written once, in `cuda/geometry.rs` and `cuda/plain.rs`, from where both the host and the
//! file of CUDA C++ have it. Sources are read as text, so that a number written a second time is found without a card.

use std::path::Path;

/// Where such numbers may be written.
const OWNERS: [&str; 2] = ["cuda/geometry.rs", "cuda/plain.rs"];

/// Files of `src` whose names end so: the name from there, and the text.
fn files(ends: &[&str]) -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![src.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("a folder of sources");
        for path in entries.map(|entry| entry.expect("an entry of it").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if ends.iter().any(|end| path.extension().is_some_and(|of| of == *end)) {
                found.push((name(&src, &path), std::fs::read_to_string(&path).expect("a text")));
            }
        }
    }
    assert!(!found.is_empty(), "sources");
    found
}

fn name(src: &Path, path: &Path) -> String {
    path.strip_prefix(src).expect("it lies there").to_string_lossy().replace('\\', "/")
}

/// Without comments, and without the tests of a file of Rust.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().expect("a first part");
    text.lines()
        .map(|line| line.split("//").next().expect("a first part"))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// What stands behind each of these.
fn behind<'a>(code: &'a str, what: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(what).map(move |(at, _)| code[at + what.len()..].trim_start())
}

fn is_number(text: &str) -> bool {
    text.trim_start().starts_with(|c: char| c.is_ascii_digit())
}

/// Arguments of a call, from behind its bracket.
fn arguments(call: &str) -> Vec<&str> {
    let (mut depth, mut start, mut all) = (0, 0, Vec::new());
    for (at, c) in call.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => {
                all.push(call[start..at].trim());
                break;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                all.push(call[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    all
}

#[test]
fn no_kernel_writes_how_many_threads_it_has() {
    let mut kernels = 0;
    for (file, text) in files(&["cu", "cuh"]) {
        let code = code(&text);
        for bound in behind(&code, "__launch_bounds__(") {
            kernels += 1;
            assert!(!is_number(bound), "{file}: __launch_bounds__ of {}", &bound[..bound.len().min(8)]);
        }
        for index in behind(&code, "blockIdx.x *").chain(behind(&code, "blockIdx.y *")) {
            assert!(!is_number(index), "{file}: a block's number times {}", &index[..index.len().min(8)]);
        }
        for line in code.lines().filter(|line| line.contains("THREADS")) {
            let value =
                line.trim().strip_prefix("#define ").and_then(|line| line.split_once(' ')).map(|of| of.1);
            assert!(!value.is_some_and(is_number), "{file}: {line}");
            // What is made of the host's numbers may have one in it.
            let is_plain = |value: &str| {
                value.split([',', ';']).next().is_some_and(|of| of.trim().parse::<u32>().is_ok())
            };
            assert!(!behind(line, "THREADS =").any(is_plain), "{file}: {line}");
        }
    }
    assert!(kernels > 50, "{kernels} kernels were found");
}

#[test]
fn no_launch_writes_its_threads() {
    let mut launches = 0;
    for (file, text) in files(&["rs"]) {
        let code = code(&text);
        for call in behind(&code, ".launch(").chain(behind(&code, ".launch_early(")) {
            let [_, grid, threads, _, _] = arguments(call)[..] else { continue };
            launches += 1;
            assert!(!is_number(threads), "{file}: a block of {threads} threads");
            assert!(!behind(grid, "div_ceil(").any(is_number), "{file}: a grid of {grid}");
        }
        if OWNERS.contains(&file.as_str()) {
            continue;
        }
        for block in behind(&code, "Block::of(").chain(behind(&code, "threads:")) {
            assert!(!is_number(block), "{file}: a block of {}", &block[..block.len().min(8)]);
        }
        for value in behind(&code, "THREADS: u32 =").chain(behind(&code, "THREADS: usize =")) {
            assert!(!is_number(value), "{file}: THREADS of {}", &value[..value.len().min(8)]);
        }
    }
    assert!(launches > 40, "{launches} launches were found");
}
