//! `docs/tutorial.md` and its Chinese form: the same commands and outputs in both, and commands that lead where the page
//! says.

use std::path::Path;

use descant_testkit::walk::Walk;

use crate::binary::root;
use crate::hub::SMALL;

/// The fenced blocks of a page, in order.
fn blocks(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs").join(name)).unwrap();
    text.split("```").skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn both_languages_show_the_same_commands_and_outputs() {
    let (english, chinese) = (blocks("tutorial.md"), blocks("tutorial.zh.md"));
    assert!(english.len() >= 10);
    assert_eq!(english, chinese);
}

/// The page with commands that must work, and outputs that must be printed. `cargo xtask tutorial` does it at full
/// length and compares every word.
#[test]
#[cfg(unix)]
fn the_tutorial_can_be_followed_from_its_first_command_to_its_last() {
    let page = std::fs::read_to_string(root().join("docs/tutorial.md")).unwrap();
    let walk = |page: &str| {
        let folder = descant_testkit::scratch();
        let binary = Path::new(env!("CARGO_BIN_EXE_descant"));
        Walk { binary, root: root(), folder: folder.path(), shorten: &SMALL }.run(page)
    };
    let walked = walk(&page).unwrap();
    assert!(walked.run >= 5 && walked.compared >= 20, "{walked:?}");
    assert_eq!(walked.not_run, 1, "the command for the published model: {walked:?}");

    let start = page.find("## 1. A hub").unwrap();
    let end = page.find("## 3. Train").unwrap();
    let (hub, rest) = (&page[start..end], "languages");
    let shown = |text: &str| format!("{hub}```text\n{text}\n```\n");
    assert_eq!(walk(&shown("verified")).map(|_| ()), Ok(()));
    for (wrong, words) in [
        (shown(rest), "`languages` was not printed"),
        (hub.replace("download", "dwonload"), "unrecognized subcommand"),
    ] {
        let error = walk(&wrong).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}
