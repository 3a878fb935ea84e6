//! `docs/tutorial.md` and its Chinese form: the same commands and outputs in both, and commands that this binary
//! understands.

use crate::binary::{descant, root};

/// The fenced blocks of a page, in order.
fn blocks(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs").join(name)).unwrap();
    text.split("```").skip(1).step_by(2).map(str::to_owned).collect()
}

/// The arguments of every `cargo xtask COMMAND` of the page, joined lines joined.
fn commands(blocks: &[String]) -> Vec<Vec<String>> {
    let shell = blocks.iter().filter_map(|block| block.strip_prefix("sh\n")).collect::<Vec<_>>().join("\n");
    let lines = shell.replace("\\\n", " ");
    let commands = lines.lines().filter_map(|line| line.trim().strip_prefix("cargo xtask "));
    commands.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn both_languages_show_the_same_commands_and_outputs() {
    let (english, chinese) = (blocks("tutorial.md"), blocks("tutorial.zh.md"));
    assert!(english.len() >= 10);
    assert_eq!(english, chinese);
}

#[test]
fn the_commands_of_the_tutorial_are_understood() {
    let commands = commands(&blocks("tutorial.md"));
    let trained: Vec<_> = commands.iter().filter(|command| command[0] == "train").collect();
    assert!(trained.len() >= 2 && commands.iter().any(|command| command[0] == "download"), "{commands:?}");
    let dir = tempfile::tempdir().unwrap();
    for command in trained {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--dry-run");
        let ran = descant(dir.path(), &arguments);
        assert_eq!(ran.code, 0, "{command:?}\n{}", ran.err);
    }
    for command in commands.iter().filter(|command| command[0] != "train") {
        let options = command.iter().filter(|word| word.starts_with("--"));
        let help = descant(dir.path(), &[&command[0], "--help"]).out;
        for option in options {
            assert!(help.contains(option.as_str()), "{} has no {option}", command[0]);
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a dry run leaves nothing behind");
}
