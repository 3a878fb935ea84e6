//! The words of `--help` are frozen in `docs/cli.md`, which is the reference that people read.
//!
//! After a wanted change: `DESCANT_UPDATE=1 cargo test --package descant --test it help`, and read the difference.

use crate::binary::{descant, root};

pub(crate) const COMMANDS: [&str; 16] = [
    "train",
    "plan",
    "evaluate",
    "report",
    "generate",
    "chat",
    "score",
    "data",
    "tokenizer",
    "export",
    "init",
    "bench",
    "download",
    "doctor",
    "completions",
    "man",
];
/// Those that have commands of their own.
pub(crate) const INNER: [(&str, &[&str]); 3] = [
    ("data", &["preview", "render"]),
    ("tokenizer", &["build"]),
    ("bench", &["step", "generate", "compare"]),
];

/// Every command as its words, groups before what is in them.
fn pages() -> Vec<Vec<&'static str>> {
    let mut pages = Vec::new();
    for command in COMMANDS {
        pages.push(vec![command]);
        let inner = INNER.iter().filter(|(group, _)| *group == command).flat_map(|(_, inner)| *inner);
        pages.extend(inner.map(|inner| vec![command, inner]));
    }
    pages
}

fn help(arguments: &[&str]) -> String {
    let ran = descant(root(), &[arguments, &["--help"]].concat());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
    let lines: Vec<&str> = ran.out.lines().map(str::trim_end).collect();
    lines.join("\n").trim_end().to_owned()
}

fn reference() -> String {
    let mut text = String::from(
        "# Command line\n\n\
         The output of `--help` for every command; a test keeps this page up to date.\n",
    );
    let mut section = |title: &str, arguments: &[&str]| {
        text += &["\n## ", title, "\n\n```text\n", &help(arguments), "\n```\n"].concat();
    };
    section("descant", &[]);
    for page in pages() {
        section(&format!("descant {}", page.join(" ")), &page);
    }
    text
}

#[test]
fn the_reference_is_what_help_prints() {
    let path = root().join("docs/cli.md");
    let reference = reference();
    if std::env::var_os("DESCANT_UPDATE").is_some() {
        let mut file = std::fs::File::create(&path).unwrap();
        std::io::Write::write_all(&mut file, reference.as_bytes()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == reference,
        "docs/cli.md is not what --help prints; see crates/descant/tests/it/help.rs"
    );
}

#[test]
fn every_command_is_in_the_reference_and_says_its_exit_status() {
    assert_eq!(listed(&help(&[])), COMMANDS);
    for (group, inner) in INNER {
        assert_eq!(listed(&help(&[group])), inner);
    }
    for page in pages() {
        let text = help(&page);
        assert!(
            text.contains("Exit status:\n  0  done") && text.contains("Examples:\n  descant "),
            "{page:?}"
        );
    }
}

/// xtask is built before the binary and cannot ask it, so the names are there too.
#[test]
fn xtask_hands_every_command_on() {
    let source = std::fs::read_to_string(root().join("xtask/src/main.rs")).unwrap();
    let list = source.split_once("const PASSED_ON").unwrap().1.split_once("];").unwrap().0;
    let names: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    assert_eq!(names, COMMANDS);
}

/// The commands that a help text lists: names are behind two spaces, what wraps behind more.
fn listed(text: &str) -> Vec<String> {
    text.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

/// The flags of a help text, each with its words.
fn flags(text: &str) -> Vec<String> {
    let mut flags: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        // A heading is at the start of its line, a flag behind two spaces, or behind six when it has no letter.
        inside = if line.starts_with(char::is_alphabetic) { line.ends_with("ptions:") } else { inside };
        if !inside {
            continue;
        }
        if line.starts_with("  -") || line.starts_with("      --") {
            flags.push(String::new());
        }
        if let Some(flag) = flags.last_mut() {
            *flag += line;
            flag.push('\n');
        }
    }
    flags
}

#[test]
fn every_flag_says_its_default() {
    for page in pages() {
        let flags = flags(&help(&page));
        assert!(flags.len() > 4, "{page:?}: {flags:?}");
        for flag in flags {
            assert!(flag.contains("[default: ") || flag.starts_with("  -h, --help"), "{page:?}: {flag}");
        }
    }
    assert_eq!(flags("Options:\n  -a\n      --b <X>\n          c\n\nExamples:\n  -d\n").len(), 2);
}
