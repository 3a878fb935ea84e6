//! `cargo xtask crash`: kills, signals, a full disk and a soak, against the binary it is given.
//!
//! Says what it did and how often; ends with 1 when a run did not end with the bytes of one that nobody disturbed.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use descant_testkit::crash::{Bytes, Subject, soak};
use descant_testkit::micro::Options;

const USAGE: &str = "usage: crash BINARY [kills=100] [signals=50] [soak=0] [seed=1]";
/// Steps of a run that is killed or sent signals.
const STEPS: u64 = 60;
/// Bytes of the disk that is too small.
const SMALL_DISK: &str = "120k";

struct Wanted {
    binary: String,
    kills: usize,
    signals: usize,
    soak: u64,
    seed: u64,
}

fn main() -> ExitCode {
    match wanted().and_then(|wanted| run(&wanted)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn wanted() -> Result<Wanted, String> {
    let mut arguments = std::env::args().skip(1);
    let binary = arguments.next().ok_or(USAGE)?;
    let mut wanted = Wanted { binary, kills: 100, signals: 50, soak: 0, seed: 1 };
    for argument in arguments {
        let (key, value) = argument.split_once('=').ok_or(USAGE)?;
        let value: u64 = value.parse().map_err(|_| USAGE)?;
        match key {
            "kills" => wanted.kills = value as usize,
            "signals" => wanted.signals = value as usize,
            "soak" => wanted.soak = value,
            "seed" => wanted.seed = value,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(wanted)
}

fn run(wanted: &Wanted) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let new = |name: &str, steps| {
        let place = dir.path().join(name);
        std::fs::create_dir(&place)
            .and_then(|()| Subject::new(Path::new(&wanted.binary), &place, &Options::default(), steps))
            .map_err(|e| e.to_string())
    };
    let subject = new("subject", STEPS)?;
    let whole = dir.path().join("whole");
    let start = Instant::now();
    let expected = subject.run(&whole)?;
    let length = start.elapsed();
    say(&format!("a run: {STEPS} steps in {:.2} s", length.as_secs_f64()));

    let start = Instant::now();
    let tally = subject.kill(dir.path(), &expected, wanted.kills, length, wanted.seed)?;
    let share = 100.0 * tally.in_save as f64 / tally.kills.max(1) as f64;
    say(&format!(
        "kills: {} over {} runs, {} ({share:.0} %) inside a save; all bytes equal; {:.1} s",
        tally.kills,
        tally.runs,
        tally.in_save,
        start.elapsed().as_secs_f64()
    ));
    let start = Instant::now();
    let ended = subject.signals(dir.path(), &expected, wanted.signals, length, wanted.seed)?;
    say(&format!(
        "signals: {} sent, {ended} ended a run, each with its status; all bytes equal; {:.1} s",
        wanted.signals,
        start.elapsed().as_secs_f64()
    ));
    small_disk(&subject, dir.path(), &expected)?;
    if wanted.soak > 0 {
        let subject = new("soak", wanted.soak)?;
        say(&soak(&subject, dir.path(), wanted.soak, wanted.seed)?);
    }
    Ok(())
}

/// A disk that is really full, where this user may mount one.
fn small_disk(subject: &Subject, dir: &Path, expected: &Bytes) -> Result<(), String> {
    let disk = dir.join("disk");
    std::fs::create_dir(&disk).map_err(|e| e.to_string())?;
    let mount = |arguments: &[&str]| {
        let status = std::process::Command::new(arguments[0]).args(&arguments[1..]).arg(&disk).output();
        status.is_ok_and(|output| output.status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", &format!("size={SMALL_DISK}"), "tmpfs"]) {
        say("full disk: left out, this user may not mount one");
        return Ok(());
    }
    let result = full_then_room(subject, &disk.join("run"), &|| mount(&["mount", "-o", "remount,size=64m"]));
    let same = result.and_then(|()| Ok(Bytes::read(&disk.join("run"))? == *expected));
    mount(&["umount"]);
    if !same? {
        return Err("full disk: other bytes than an undisturbed run".to_owned());
    }
    say("full disk: ended with 2, named path and reason, went on when there was room; bytes equal");
    Ok(())
}

fn full_then_room(subject: &Subject, folder: &Path, grow: &dyn Fn() -> bool) -> Result<(), String> {
    let output = subject.command(folder).output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() != Some(2) || !said.contains(&*folder.to_string_lossy()) {
        return Err(format!("full disk: {}: {said}", output.status));
    }
    if !grow() {
        return Err("full disk: it cannot be made larger".to_owned());
    }
    subject.run(folder).map(drop)
}

#[expect(clippy::print_stderr, reason = "a program of the tests talks to its user")]
fn say(text: &str) {
    eprintln!("{text}");
}
