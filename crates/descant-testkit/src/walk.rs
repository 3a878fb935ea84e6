//! Walks a page of the documentation as its reader would: a shell runs the commands in order, against a hub on this
//! machine, and what the page shows must be what they print.
//!
//! The page is the program: ```` ```sh ```` blocks are run, ```` ```text ```` blocks are compared with the output of the
//! last one. Clocks, rates, sizes and threads depend on the machine and are not compared, nor are hashes, which a page
//! may abbreviate as `...`; everything else is, word for word, whatever the width of the terminal.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use crate::loopback::LoopbackHub;

/// The command by which a page starts a hub; its arguments are what is published.
const HUB: &str = "--example hub";
/// What a page may ask before a hub is there: these commands do not download.
const BEFORE_A_HUB: [&str; 2] = ["plan", "doctor"];
/// Units of quantities that depend on the machine.
const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "tokens/s", "threads"];
/// From this many hexadecimal digits a word is a hash.
const HASH_DIGITS: usize = 12;

/// How a page is walked.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a> {
    /// The `descant` that stands in for `cargo xtask`.
    pub binary: &'a Path,
    /// The repository, whose `fixtures` the page uses.
    pub root: &'a Path,
    /// An empty folder: the reader's clone and home.
    pub folder: &'a Path,
    /// Arguments added to every `train`, to make it short. With any, only the first words of lines are compared.
    pub shorten: &'a [&'a str],
}

/// What was seen on a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Blocks of commands that were run.
    pub run: usize,
    /// Blocks of commands before the hub that would download the published model.
    pub not_run: usize,
    /// Lines that were compared, each with the lines that continue it.
    pub compared: usize,
    /// Lines of progress, which appear by the clock.
    pub by_the_clock: usize,
}

/// A fenced block of a page.
struct Block<'a> {
    line: usize,
    language: &'a str,
    text: String,
}

impl Walk<'_> {
    /// Runs and compares every block of `page`.
    ///
    /// # Errors
    /// A command failed, or an output of the page was not printed, with the line of the block and what was printed.
    pub fn run(&self, page: &str) -> Result<Walked, String> {
        self.prepare().map_err(|error| format!("{}: {error}", self.folder.display()))?;
        let (mut walked, mut hub, mut exports) = (Walked::default(), None, String::new());
        let (mut printed, mut at) = (Vec::new(), 0);
        for block in blocks(page) {
            let place = |error: String| format!("the block at line {}: {error}", block.line);
            match block.language {
                "sh" if block.text.contains(HUB) => hub = Some(self.publish(&block.text).map_err(place)?),
                "sh" if hub.is_none() && !needs_no_hub(&block.text) => walked.not_run += 1,
                "sh" => {
                    let text = match &hub {
                        Some(hub) => block.text.replace("http://127.0.0.1:PORT", &hub.endpoint()),
                        None => block.text.clone(),
                    };
                    let output = self.shell(&format!("{exports}{text}")).map_err(place)?;
                    exports.extend(
                        text.lines().filter(|line| line.starts_with("export ")).flat_map(|l| [l, "\n"]),
                    );
                    (printed, at) = (self.words(&output), 0);
                    walked.run += 1;
                }
                "text" => {
                    for chunk in chunks(&block.text) {
                        let words = self.words(&chunk);
                        if by_the_clock(&words) {
                            walked.by_the_clock += 1;
                            continue;
                        }
                        let wanted = if self.shorten.is_empty() { &words[..] } else { &words[..1] };
                        let found = printed[at..].windows(wanted.len()).position(|window| window == wanted);
                        at += found.ok_or_else(|| {
                            place(format!("`{chunk}` was not printed after\n{}", printed[..at].join(" ")))
                        })?;
                        walked.compared += 1;
                    }
                }
                _ => {}
            }
        }
        Ok(walked)
    }

    /// The reader's clone, with a `cargo` that runs the binary as `cargo xtask` does.
    fn prepare(&self) -> std::io::Result<()> {
        symlink(self.root.join("fixtures").canonicalize()?, self.folder.join("fixtures"))?;
        let bin = self.folder.join("bin");
        fs::create_dir(&bin)?;
        let quoted = |word: &str| format!("'{}'", word.replace('\'', "'\\''"));
        let more: Vec<String> = self.shorten.iter().map(|word| quoted(word)).collect();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = xtask ] || exit 9\nshift\n[ \"$1\" = train ] && set -- \"$@\" {}\n\
             exec {} --called-as 'cargo xtask' --root {} \"$@\"\n",
            more.join(" "),
            quoted(&self.binary.display().to_string()),
            quoted(&self.folder.display().to_string()),
        );
        descant_files::write_atomic(&bin.join("cargo"), script.as_bytes()).map_err(std::io::Error::other)?;
        fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755))
    }

    /// The hub that the command in `text` would start.
    fn publish(&self, text: &str) -> Result<LoopbackHub, String> {
        let hub = LoopbackHub::start();
        for argument in text.replace("\\\n", " ").split_whitespace().filter(|word| word.contains('=')) {
            let (repo, path) = argument.split_once('=').expect("it was filtered so");
            hub.publish_path(repo, &self.root.join(path)).map_err(|error| format!("{path}: {error}"))?;
        }
        Ok(hub)
    }

    /// What a shell prints that runs `text`, both streams in one.
    fn shell(&self, text: &str) -> Result<String, String> {
        let said = |error: std::io::Error| error.to_string();
        let path = self.folder.join("printed");
        let file = File::create(&path).map_err(said)?;
        let system = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell.args(["-ec", text]).current_dir(self.folder).env_clear();
        shell.env("HOME", self.folder).env("PATH", format!("{}/bin:{system}", self.folder.display()));
        // Only a hub that the page starts is asked.
        shell.env("HF_ENDPOINT", "http://127.0.0.1:9");
        shell.stdout(file.try_clone().map_err(said)?).stderr(file);
        let status = shell.status().map_err(said)?;
        let printed = fs::read_to_string(&path).map_err(said)?;
        if status.success() { Ok(printed) } else { Err(format!("{status}: {text}\n{printed}")) }
    }

    /// The words of a text, with `#` for what depends on the machine.
    fn words(&self, text: &str) -> Vec<String> {
        let here = format!("{}/", self.folder.display());
        let text = text.replace(&here, "").replace("\\\n", " ");
        let plain: Vec<&str> = text.split_whitespace().collect();
        let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
        let unit = |at: usize| plain.get(at + 1).is_some_and(|next| UNITS.contains(&bare(next).as_str()));
        let word = |(at, word): (usize, &&str)| {
            if unit(at) || is_clock(word) {
                "#".to_owned()
            } else {
                without_hashes(&word.replace("...", "#"))
            }
        };
        plain.iter().enumerate().map(word).collect()
    }
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block<'_>> = None;
    for (at, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => open = Some(Block { line: at + 1, language, text: String::new() }),
            (None, Some(block)) => block.text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    blocks
}

/// Lines, each with the indented ones that continue it.
fn chunks(text: &str) -> Vec<String> {
    let mut chunks: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match chunks.last_mut() {
            Some(last) if line.starts_with(' ') => last.extend(["\n", line]),
            _ => chunks.push(line.to_owned()),
        }
    }
    chunks
}

fn needs_no_hub(commands: &str) -> bool {
    let command =
        |line: &str| line.split_whitespace().nth(2).is_some_and(|word| BEFORE_A_HUB.contains(&word));
    commands.lines().all(command)
}

/// A line of progress that is not the last of its kind.
fn by_the_clock(words: &[String]) -> bool {
    let fraction = words.get(2).and_then(|word| word.split_once('/'));
    words[0] == "#" && fraction.is_some_and(|(done, all)| done != all)
}

fn is_clock(word: &str) -> bool {
    let word = word.trim_end_matches([',', ';']);
    word.split_once(':').is_some_and(|(minutes, seconds)| {
        seconds.len() == 2 && [minutes, seconds].iter().all(|part| part.parse::<u32>().is_ok())
    })
}

/// The word with `#` for every hash in it.
fn without_hashes(word: &str) -> String {
    let part = |part: &str| {
        let hash = part.len() >= HASH_DIGITS && part.chars().all(|c| c.is_ascii_hexdigit());
        if hash { "#".to_owned() } else { part.to_owned() }
    };
    word.split_inclusive(|c: char| !c.is_alphanumeric())
        .map(|piece| {
            let end = piece.trim_end_matches(|c: char| !c.is_alphanumeric()).len();
            part(&piece[..end]) + &piece[end..]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_not_printed_is_found_and_what_depends_on_the_machine_is_not_compared() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("printer");
        let printed = "speed 12.5 tokens/s in 1:05\\nfetch 0123456789abcdef, 3 files\\n0:01 train 1/9\\n0:02 train 9/9 loss 1.5";
        descant_files::write_atomic(&binary, format!("#!/bin/sh\nprintf '{printed}\\n'\n").as_bytes())
            .unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let walk = |shown: &str| {
            let folder = tempfile::tempdir().unwrap();
            let page = format!("A page.\n\n```sh\ncargo xtask plan\n```\n\n```text\n{shown}\n```\n");
            Walk { binary: &binary, root: &root(), folder: folder.path(), shorten: &[] }.run(&page)
        };
        let good = "speed 9 tokens/s\n  in 2:00\nfetch ..., 3 files\n0:07 train 4/9\n3:00 train 9/9 loss 1.5";
        assert_eq!(walk(good), Ok(Walked { run: 1, not_run: 0, compared: 3, by_the_clock: 1 }));
        for (word, other) in
            [("3 files", "4 files"), ("1.5", "1.6"), ("speed", "rate"), ("tokens/s", "rows/s")]
        {
            let error = walk(&good.replace(word, other)).unwrap_err();
            assert!(error.contains("was not printed") && error.contains("line 7"), "{error}");
        }
        let swapped = "fetch ..., 3 files\nspeed 9 tokens/s in 2:00";
        assert!(walk(swapped).unwrap_err().contains("`speed"), "in the page's order");
    }

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }
}
