//! The words of `--help` are frozen in `docs/cli.md`, which is the reference that people read.
//!
//! After a wanted change: `DESCANT_UPDATE=1 cargo test --package descant --test it help`, and read the difference.

use crate::binary::{descant, root};

const COMMANDS: [&str; 5] = ["train", "evaluate", "generate", "score", "init"];

fn help(arguments: &[&str]) -> String {
    let ran = descant(root(), &[arguments, &["--help"]].concat());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
    let lines: Vec<&str> = ran.out.lines().map(str::trim_end).collect();
    lines.join("\n").trim_end().to_owned()
}

fn reference() -> String {
    let mut text = String::from(
        "# Command line\n\n\
         What `--help` prints, command by command.\n\
         A test keeps this page and the binary equal.\n",
    );
    let mut section = |title: &str, arguments: &[&str]| {
        text += &format!("\n## {title}\n\n```text\n{}\n```\n", help(arguments));
    };
    section("descant", &[]);
    for command in COMMANDS {
        section(&format!("descant {command}"), &[command]);
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
    assert!(written == reference, "docs/cli.md is not what --help prints; see crates/descant/tests/it/help.rs");
}

#[test]
fn every_command_is_in_the_reference_and_says_its_exit_status() {
    let top = help(&[]);
    let listed: Vec<&str> = top
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(listed, COMMANDS);
    for command in COMMANDS {
        let text = help(&[command]);
        assert!(text.contains("Exit status:\n  0  done") && text.contains("Examples:\n  descant "), "{command}");
    }
}

#[test]
fn every_flag_says_its_default() {
    for command in COMMANDS {
        let text = help(&[command]);
        let (_, flags) = text.split_once("\nOptions:\n").unwrap();
        let (flags, _) = flags.split_once("\n\nExamples:").unwrap();
        // A flag begins with dashes at the start of its line.
        let starts: Vec<usize> = flags.match_indices("\n").map(|(at, _)| at + 1).chain([0]).collect();
        let mut starts: Vec<usize> =
            starts.into_iter().filter(|&at| flags[at..].trim_start().starts_with('-') && flags[at..].find('-') < Some(7)).collect();
        starts.sort_unstable();
        starts.push(flags.len());
        for pair in starts.windows(2) {
            let flag = &flags[pair[0]..pair[1]];
            let known = flag.contains("[default: ") || flag.contains("-h, --help");
            assert!(known, "{command}: {flag}");
        }
        assert!(starts.len() > 4, "{command}: flags were found");
    }
}
