//! Runs that are asked to stop, as terminals, `kill`, `timeout` and `nohup` ask.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use descant_testkit::crash::Subject;
use descant_testkit::micro::Options;
use descant_testkit::scratch;

use crate::lives::{BINARY, said};

/// Steps of a run: a signal on its way must not meet the end of it, on a busy machine either.
const STEPS: u64 = 90;

fn subject(dir: &Path) -> Subject {
    Subject::new(Path::new(BINARY), dir, &Options::default(), STEPS).unwrap()
}

#[test]
fn a_signal_ends_a_run_after_its_step_saved_and_with_its_status() {
    let dir = scratch();
    let mut subject = subject(dir.path());
    // Nothing is saved but by the signal.
    subject.sets.push("run.save_every=0".to_owned());
    let expected = subject.run(&dir.path().join("whole")).unwrap();
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 143)] {
        let folder = dir.path().join(signal);
        let child = at_work(&subject, &folder, "--default-signal");
        send(child.id(), &[(signal, Duration::ZERO)]);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{signal}: {}", said(&output));
        let lines = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap().lines().count();
        assert!(
            said(&output).contains(&format!("stopped after step {lines}, which is saved")),
            "{}",
            said(&output)
        );
        assert!(folder.join(format!("checkpoints/step-{lines:06}/manifest.json")).is_file());
        assert_eq!(subject.run(&folder).unwrap(), expected);
    }
}

/// A run that makes steps, begun so that `disposition` holds for the terminal's goodbye.
fn at_work(subject: &Subject, folder: &Path, disposition: &str) -> Child {
    let run = subject.command(folder);
    let mut command = Command::new("env");
    command.arg(format!("{disposition}=HUP")).arg(run.get_program()).args(run.get_args());
    command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The first line of the metrics says that steps are being made.
    while std::fs::read(folder.join("metrics.jsonl")).unwrap_or_default().is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before its first step");
        std::thread::yield_now();
    }
    child
}

#[test]
fn a_terminal_that_goes_away_does_not_end_what_nohup_began() {
    let dir = scratch();
    let subject = subject(dir.path());
    let child = at_work(&subject, &dir.path().join("run"), "--ignore-signal");
    send(child.id(), &[("HUP", Duration::ZERO), ("HUP", Duration::from_millis(300))]);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// Sends each signal as soon as the one before is sent, or after a while.
fn send(process: u32, signals: &[(&str, Duration)]) {
    for (signal, after) in signals {
        std::thread::sleep(*after);
        let sent = Command::new("kill").args(["-s", signal, &process.to_string()]).status();
        assert!(sent.unwrap().success(), "{signal}");
    }
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one_and_a_later_one_ends_the_run() {
    let dir = scratch();
    let mut subject = subject(dir.path());
    subject.sets.push("run.save_every=0".to_owned());
    // A step long enough that both signals come within it.
    subject.sets.push("train.accumulation=400".to_owned());
    let now = Duration::ZERO;
    for (name, signals, saved) in [
        ("twice", [("TERM", now), ("TERM", now)], true),
        ("again", [("TERM", now), ("TERM", Duration::from_millis(400))], false),
    ] {
        let folder = dir.path().join(name);
        let child = at_work(&subject, &folder, "--default-signal");
        let start = Instant::now();
        send(child.id(), &signals);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(143), "{name}: {}", said(&output));
        let stopped = said(&output).contains("which is saved");
        assert_eq!(stopped, saved, "{name} after {:?}: {}", start.elapsed(), said(&output));
    }
}
