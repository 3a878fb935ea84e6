//! Links between pages: each leads to a file of this repository, and to a heading that is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::binary::root;

/// Folders whose pages are looked at, and how deep.
const FOLDERS: [(&str, usize); 4] = [("", 0), ("docs", 2), ("crates", 1), ("recipes", 1)];

/// The Markdown pages.
fn pages() -> Vec<PathBuf> {
    fn collect(folder: &Path, depth: usize, pages: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && depth > 0 {
                collect(&path, depth - 1, pages);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                pages.push(path);
            }
        }
    }
    let mut pages = Vec::new();
    for (folder, depth) in FOLDERS {
        collect(&root().join(folder), depth, &mut pages);
    }
    pages.sort();
    pages
}

/// The lines of a page outside fenced blocks.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// Where the links of a page lead, those of pictures included.
fn targets(text: &str) -> Vec<String> {
    let text = prose(text);
    let of = |begin: &str, end: char| -> Vec<String> {
        let parts = text.split(begin).skip(1).filter_map(|rest| rest.split(end).next());
        parts.filter(|target| !target.contains(char::is_whitespace)).map(str::to_owned).collect()
    };
    [of("](", ')'), of("src=\"", '"'), of("srcset=\"", '"')].concat()
}

/// The anchors of a page's headings, as hubs of code and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| -> String {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// What is wrong with the links of a page.
fn broken(page: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for target in targets(text) {
        if ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
        let path = if file.is_empty() { page.to_owned() } else { page.with_file_name("").join(file) };
        let is_there = path.exists();
        let of_page = || if file.is_empty() { Ok(text.to_owned()) } else { std::fs::read_to_string(&path) };
        let heading = anchor.is_empty() || of_page().is_ok_and(|text| anchors(&text).contains(anchor));
        if !is_there || !heading {
            found.push(format!("{}: {target}", page.strip_prefix(root()).unwrap_or(page).display()));
        }
    }
    found
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let pages = pages();
    assert!(pages.len() > 15, "{pages:?}");
    let found: Vec<String> =
        pages.iter().flat_map(|page| broken(page, &std::fs::read_to_string(page).unwrap())).collect();
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_broken_link_is_found() {
    let page = root().join("docs/data.md");
    let text = "# Title of it\n[a](none.md) [b](export.md#no-such-heading) [c](#title-of-it) [d](https://x.y/z)\n\
                ```\n[e](in-code.md)\n```\n<img src=\"no.png\">";
    assert_eq!(
        broken(&page, text),
        ["docs/data.md: none.md", "docs/data.md: export.md#no-such-heading", "docs/data.md: no.png"]
    );
}

/// Links of a page under `docs` that leave the folder, which is all that the book has.
fn out_of_the_book(text: &str) -> Vec<String> {
    targets(text).into_iter().filter(|target| target.starts_with("../")).collect()
}

#[test]
fn no_link_leads_out_of_the_book() {
    let docs = root().join("docs");
    for page in pages().iter().filter(|page| page.starts_with(&docs)) {
        let found = out_of_the_book(&std::fs::read_to_string(page).unwrap());
        assert_eq!(found, Vec::<String>::new(), "{}", page.display());
    }
    assert_eq!(out_of_the_book("[a](../README.md) [b](data.md)"), ["../README.md"]);
}

#[test]
fn the_book_has_every_page() {
    let summary = std::fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let listed: BTreeSet<String> = targets(&summary).into_iter().collect();
    let pages = std::fs::read_dir(root().join("docs")).unwrap();
    let pages = pages.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pages: BTreeSet<String> =
        pages.filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "md")).collect();
    let missing: Vec<&String> =
        pages.iter().filter(|name| *name != "SUMMARY.md" && !listed.contains(*name)).collect();
    assert_eq!(missing, Vec::<&String>::new(), "docs/SUMMARY.md lists every page");
}

#[test]
fn the_readme_is_short() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() < 200);
}
