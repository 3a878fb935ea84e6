//! Files of a crate do not import each other in circles.
//!
//! Read as text, so that no build is needed. An edge goes from a file to the file in which a `crate::`, `super::` or
//! child path ends; a name that the path's module only re-exports leads on to where it comes from. Tests inside files
//! do not count, and neither does what a `mod.rs` does for others: declaring files and re-exporting their names.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Crates with circles that are still to be opened.
const NOT_YET_FREE: [&str; 0] = [];

/// A file by the path of its module; the root is empty.
type Module = Vec<String>;

/// The files of a crate with their code, comments and tests taken out.
fn files(source: &Path) -> BTreeMap<Module, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![source.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let module = module(path.strip_prefix(source).unwrap());
                found.insert(module, code(&std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

fn module(file: &Path) -> Module {
    let mut names: Module =
        file.with_extension("").iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    if names.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        names.pop();
    }
    names
}

/// The code before the tests, without comments, and without `pub(in path)`, which imports nothing.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n").replace("pub(in super::", "pub(in ")
}

/// Every path of names joined by `::`, as it is written.
fn paths(code: &str) -> Vec<Vec<&str>> {
    let name = |char: char| char.is_alphanumeric() || char == '_';
    let joined = code.split(|char: char| !name(char) && char != ':');
    let paths = joined.map(|path| path.split("::").collect::<Vec<_>>());
    // One that ends in a brace is `braces`' business.
    paths
        .filter(|path| path.len() > 1 && path.iter().all(|name| !name.is_empty() && !name.contains(':')))
        .collect()
}

/// Statements that re-export: the path up to the names, and the names.
fn re_exports(code: &str) -> Vec<(Vec<&str>, Vec<&str>)> {
    let mut found = Vec::new();
    for statement in code.split(';') {
        let Some(at) = statement.rfind("pub use ").map(|at| at + 8).or_else(|| {
            let at = statement.rfind(") use ")?;
            statement[..at]
                .rsplit('\n')
                .next()
                .is_some_and(|line| line.trim_start().starts_with("pub("))
                .then_some(at + 6)
        }) else {
            continue;
        };
        let statement = &statement[at..];
        let (path, names) = match statement.split_once('{') {
            Some((path, names)) => (path.trim_end_matches("::"), names.trim_end().trim_end_matches('}')),
            None => statement.rsplit_once("::").unwrap_or(("", statement)),
        };
        let names = names.split(',').map(|name| name.rsplit(" as ").next().unwrap_or(name).trim());
        found.push((path.trim().split("::").collect(), names.filter(|name| !name.is_empty()).collect()));
    }
    found
}

/// The code without its re-exports.
fn without_re_exports(code: &str) -> String {
    let kept = code.split_inclusive(';').map(|statement| {
        let is_use = re_exports(statement).iter().any(|(path, _)| !path.is_empty());
        if is_use { statement.rfind("pub").map_or("", |at| &statement[..at]) } else { statement }
    });
    kept.collect()
}

/// Where a path ends that is written in `from`; nothing when it leaves the crate.
fn target(files: &BTreeMap<Module, String>, from: &Module, path: &[&str]) -> Option<Module> {
    let mut at = from.clone();
    let mut rest = path;
    match rest[0] {
        "crate" => (at, rest) = (Module::new(), &rest[1..]),
        "self" => rest = &rest[1..],
        "super" => {
            while let Some(("super", after)) = rest.split_first().map(|(first, after)| (*first, after)) {
                at.pop();
                rest = after;
            }
        }
        child => {
            at.push(child.to_owned());
            if !files.contains_key(&at) {
                return None;
            }
            rest = &rest[1..];
        }
    }
    while let Some(name) = rest.first() {
        let mut below = at.clone();
        below.push((*name).to_owned());
        if files.contains_key(&below) {
            (at, rest) = (below, &rest[1..]);
            continue;
        }
        // The module may only pass the name on.
        let passes = |(_, names): &(Vec<&str>, Vec<&str>)| names.contains(name);
        let exports = re_exports(&files[&at]);
        let Some((path, _)) = exports.iter().find(|export| passes(export)) else { break };
        let next = target(files, &at, path).filter(|next| *next != at);
        let Some(next) = next else { break };
        at = next;
    }
    Some(at)
}

/// Which files a file leans on.
fn edges(files: &BTreeMap<Module, String>) -> BTreeMap<&Module, BTreeSet<Module>> {
    let lean = |(module, code): (&Module, &String)| {
        let code = without_re_exports(code);
        let mut to = BTreeSet::new();
        for path in paths(&code) {
            to.extend(target(files, module, &path));
        }
        for (path, names) in braces(&code) {
            for name in names {
                let whole: Vec<&str> = path.iter().copied().chain(name.split("::")).collect();
                to.extend(target(files, module, &whole));
            }
        }
        to.remove(module);
        to
    };
    files.iter().map(|entry| (entry.0, lean(entry))).collect()
}

/// `use path::{names}`; of names that have braces of their own, as far as those.
fn braces(code: &str) -> Vec<(Vec<&str>, Vec<&str>)> {
    let mut found = Vec::new();
    for statement in code.split(';') {
        let Some(start) = statement.rfind("use ") else { continue };
        let Some((path, names)) = statement[start + 4..].split_once("::{") else { continue };
        let names = names.trim_end().trim_end_matches('}').split(',').filter(|name| !name.contains('}'));
        let names = names.map(|name| name.split(" as ").next().unwrap_or(name).trim());
        let names = names.map(|name| name.split("::{").next().unwrap_or(name));
        found.push((path.trim().split("::").collect(), names.filter(|name| !name.is_empty()).collect()));
    }
    found
}

/// Files that reach themselves, in groups that reach each other.
fn circles(source: &Path) -> Vec<String> {
    let files = files(source);
    let edges = edges(&files);
    let reached = |from: &Module| {
        let mut seen: BTreeSet<&Module> = BTreeSet::new();
        let mut waiting: Vec<&Module> = edges[from].iter().collect();
        while let Some(next) = waiting.pop() {
            if seen.insert(next) {
                waiting.extend(&edges[next]);
            }
        }
        seen
    };
    let name = |module: &Module| if module.is_empty() { "the root".to_owned() } else { module.join("::") };
    let mut groups = BTreeSet::new();
    for from in files.keys() {
        let group: Vec<&Module> = reached(from).into_iter().filter(|to| reached(to).contains(from)).collect();
        if group.contains(&from) {
            groups.insert(group.into_iter().map(name).collect::<Vec<_>>().join(", "));
        }
    }
    groups.into_iter().collect()
}

fn crates() -> Vec<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.join("src").is_dir());
    found.push(folder.join("../xtask"));
    found.sort_unstable();
    found
}

#[test]
fn no_files_import_each_other_in_circles() {
    let mut checked = 0;
    for path in crates() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let found = circles(&path.join("src"));
        if NOT_YET_FREE.contains(&name) {
            assert!(!found.is_empty(), "{name} is free of circles: take it off the list");
            continue;
        }
        assert_eq!(found, Vec::<String>::new(), "{name}");
        checked += 1;
    }
    assert!(checked >= 9, "{checked}");
}

#[test]
fn the_files_of_harmony_lie_on_a_line() {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../descant-harmony/src"));
    let files = files(source);
    let line = ["row", "read", "text", "tokens", "messages", "examples"];
    let place = |module: &Module| line.iter().position(|name| module.first().is_some_and(|at| at == name));
    let mut between = 0;
    for (from, to) in edges(&files) {
        for to in to {
            let (Some(here), Some(there)) = (place(from), place(&to)) else { continue };
            assert!(there <= here, "{} leans on {}", from.join("::"), to.join("::"));
            between += usize::from(there < here);
        }
    }
    assert!(between > 30, "the edges are really read: {between}");
}

#[test]
fn a_planted_circle_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let found = || circles(dir.path());
    put("lib.rs", "mod a;\nmod b;\npub use a::A;\npub use b::{B, C as D};\n");
    put("a.rs", "use crate::b::B;\npub struct A(B);\n");
    put("b/mod.rs", "mod c;\npub use c::{B, C};\n");
    put("b/c.rs", "//! See [`crate::a`].\n// use crate::a::A;\npub struct B;\npub struct C;\n");
    assert_eq!(found(), Vec::<String>::new());
    for planted in [
        "use crate::a::A;",
        "use super::super::a::A;",
        "use crate::A;",
        "use crate::{\n    A,\n};",
        "fn f(_: crate::A) {}",
    ] {
        put("b/c.rs", &format!("{planted}\npub struct B;\npub struct C;\n"));
        assert_eq!(found(), ["a, b::c"], "{planted}");
    }
    put("b/c.rs", "pub struct B;\n\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n");
    assert_eq!(found(), Vec::<String>::new(), "tests do not count");
    put("b/mod.rs", "mod c;\npub use c::B;\npub struct Own;\nfn f() { c::g() }\n");
    put("b/c.rs", "use super::Own;\npub struct B(Own);\npub fn g() {}\n");
    assert_eq!(found(), ["b, b::c"], "a parent and its child");
}
