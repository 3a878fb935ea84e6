//! Runs that are killed, stopped, starved and contradicted, as their users would.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use descant_testkit::crash::{Bytes, Subject};
use descant_testkit::micro::Options;
use descant_testkit::scratch;
use serde_json::Value;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_descant");
const STEPS: u64 = 18;

fn subject(dir: &Path, options: &Options) -> Subject {
    Subject::new(Path::new(BINARY), dir, options, STEPS).unwrap()
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs with these more settings.
fn run(subject: &Subject, folder: &Path, more: &[&str], fault: Option<&str>) -> Output {
    let mut command = subject.command(folder);
    for set in more {
        command.args(["--set", set]);
    }
    command.envs(fault.map(|fault| ("DESCANT_FAULT", fault))).output().unwrap()
}

#[test]
fn runs_that_are_killed_end_with_the_bytes_of_those_that_are_not() {
    let dir = scratch();
    let subject = subject(dir.path(), &Options::default());
    let start = Instant::now();
    let expected = subject.run(&dir.path().join("whole")).unwrap();
    let tally = subject.kill(dir.path(), &expected, 8, start.elapsed(), 3407).unwrap();
    assert!(tally.kills >= 8 && tally.in_save > 0, "{tally:?}");

    // The control: what the harness compares does change with what it should change with.
    let mut other = subject;
    other.sets.push("train.seed=1".to_owned());
    assert_ne!(other.run(&dir.path().join("other")).unwrap(), expected);
}

#[test]
fn a_run_that_ends_in_every_phase_goes_on_from_there() {
    let dir = scratch();
    let subject = subject(dir.path(), &Options::default());
    let expected = subject.run(&dir.path().join("whole")).unwrap();
    // Every sixth operation, so that all phases are met: making the folder, saving, the adapter, the report.
    let mut ends = 0;
    for after in (0..).step_by(6) {
        let folder = dir.path().join(format!("at-{after}"));
        let output = run(&subject, &folder, &[], Some(&format!("kill:{after}")));
        if output.status.success() {
            break;
        }
        assert_eq!(output.status.code(), None, "{}", said(&output));
        ends += 1;
        let again = run(&subject, &folder, &[], None);
        assert!(again.status.success(), "operation {after}: {}", said(&again));
        assert_eq!(Bytes::read(&folder).unwrap(), expected, "operation {after}");
    }
    assert!(ends > 15, "{ends}");
}

#[test]
fn what_somebody_changed_in_a_run_is_said_with_what_to_do_and_force_begins_again() {
    let dir = scratch();
    let subject = subject(dir.path(), &Options::default());
    let expected = subject.run(&dir.path().join("whole")).unwrap();
    let begun = dir.path().join("begun");
    run(&subject, &begun, &[], Some("kill:110"));
    assert!(begun.join("checkpoints").read_dir().unwrap().next().is_some(), "something was saved");
    let page = std::fs::read_to_string(begun.join("report.html")).unwrap();
    assert!(page.contains("This run has not ended") && page.contains("<polyline"), "a page at every save");
    for (name, file, content, said_of_it) in [
        ("gone", "metrics.jsonl", None, "No such file"),
        ("short", "metrics.jsonl", Some("{}\n"), "file has 3"),
        ("other", "identity.json", Some("x"), "expected value"),
    ] {
        let folder = dir.path().join(name);
        copy(&begun, &folder);
        match content {
            Some(content) => descant_files::write_atomic(&folder.join(file), content.as_bytes()).unwrap(),
            None => std::fs::remove_file(folder.join(file)).unwrap(),
        }
        let output = run(&subject, &folder, &[], None);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {text}");
        assert!(text.contains(file) && text.contains(said_of_it), "{name}: {text}");
        assert!(
            text.contains("hint: put the file back as it was, or --force begins the run again"),
            "{text}"
        );
        let again = subject.command(&folder).arg("--force").output().unwrap();
        assert!(again.status.success(), "{name}: {}", said(&again));
        assert_eq!(Bytes::read(&folder).unwrap(), expected, "{name}");
    }
    // The control: what nobody changed continues.
    assert_eq!(subject.run(&begun).unwrap(), expected);
}

/// A folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

#[test]
fn errors_of_the_disk_end_with_2_name_what_failed_and_lose_nothing() {
    let dir = scratch();
    let subject = subject(dir.path(), &Options::default());
    let expected = subject.run(&dir.path().join("whole")).unwrap();
    for fault in ["full:1+", "broken:20+", "full:57+", "full:60", "broken:75", "full:140+"] {
        let folder = dir.path().join(fault.replace([':', '+'], "-"));
        let output = run(&subject, &folder, &[], Some(fault));
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{fault}: {said}");
        assert!(said.contains(&*folder.to_string_lossy()) && said.contains("injected"), "{fault}: {said}");
        let again = run(&subject, &folder, &[], None);
        assert!(again.status.success(), "{fault}");
        assert_eq!(Bytes::read(&folder).unwrap(), expected, "{fault}");
    }
}

#[cfg(unix)]
#[test]
fn a_limit_on_the_size_of_files_is_an_error_of_the_disk() {
    let dir = scratch();
    let subject = subject(dir.path(), &Options::default());
    let expected = subject.run(&dir.path().join("whole")).unwrap();
    let folder = dir.path().join("run");
    let run = subject.command(&folder);
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -f 20; exec \"$@\"", "sh"]).arg(run.get_program()).args(run.get_args());
    let output = limited.stdin(Stdio::null()).output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("File too large") && text.contains(&*folder.to_string_lossy()), "{text}");
    assert_eq!(subject.run(&folder).unwrap(), expected);
}

#[test]
fn a_panic_ends_with_2_says_that_it_is_a_bug_and_loses_nothing() {
    let dir = scratch();
    let subject = subject(dir.path(), &Options::default());
    let folder = dir.path().join("run");
    let output = run(&subject, &folder, &[], Some("panic:80"));
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.starts_with("error: a bug in descant: ") && text.contains("injected"), "{text}");
    assert!(std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap().ends_with('\n'));
    assert_eq!(subject.run(&folder).unwrap(), subject.run(&dir.path().join("whole")).unwrap());
}

#[test]
fn another_configuration_is_refused_with_what_differs_and_a_finished_run_is_not_run_again() {
    let dir = scratch();
    let subject = subject(dir.path(), &Options::default());
    let folder = dir.path().join("run");
    let first = subject.run(&folder).unwrap();
    let output = run(&subject, &folder, &["train.learning_rate=2e-2", "train.seed=5"], None);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("train.learning_rate: 0.01 there, 0.02 now"), "{text}");
    assert!(
        text.contains("train.seed: 3407 there, 5 now") && text.contains("\nhint: undo the difference"),
        "{text}"
    );
    assert!(!text.contains("train.max_steps"), "{text}");

    let modified = || std::fs::metadata(folder.join("summary.json")).unwrap().modified().unwrap();
    let before = modified();
    let json = subject.command(&folder).arg("--json").output().unwrap();
    assert!(json.status.success(), "{}", said(&json));
    let summary: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((summary["steps"].as_u64(), before), (Some(STEPS), modified()));
    // How a run is kept is not part of what it is.
    assert!(run(&subject, &folder, &["run.keep=3"], None).status.success());
    assert!(subject.command(&folder).arg("--force").output().unwrap().status.success());
    assert!(modified() > before, "--force runs it again");
    assert_eq!(Bytes::read(&folder).unwrap(), first);
}

#[test]
fn a_second_run_in_the_same_folder_is_refused_and_the_first_unharmed() {
    let dir = scratch();
    let subject = subject(dir.path(), &Options::default());
    let folder = dir.path().join("run");
    std::fs::create_dir(&folder).unwrap();
    let lock = descant_files::Lock::take(&folder.join("lock")).unwrap();
    // The quickest of a few: the machine may have other things to do.
    let attempt = || {
        let start = Instant::now();
        let output = subject.command(&folder).output().unwrap();
        (start.elapsed(), output)
    };
    let (took, output) = (0..5).map(|_| attempt()).min_by_key(|(took, _)| *took).unwrap();
    assert!(took < Duration::from_millis(100), "{took:?}");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("is in use") && text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    assert_eq!(descant_files::list(&folder).unwrap(), ["lock"], "it left nothing");
    drop(lock);
    subject.run(&folder).unwrap();
}

#[test]
fn numbers_that_are_none_end_with_3_and_an_incident_that_names_the_place() {
    let dir = scratch();
    let options = Options { poisoned: true, poisoned_rows: vec![9], ..Options::default() };
    let subject = subject(dir.path(), &options);
    let folder = dir.path().join("run");
    let output = subject.command(&folder).output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.contains("the adapter is as it was before this step") && text.contains("guard.skip_non_finite"),
        "{text}"
    );
    let metrics = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let step = metrics.lines().count() + 1;
    let incident = std::fs::read(folder.join(format!("incident-{step:06}.json"))).unwrap();
    let incident: Value = serde_json::from_slice(&incident).unwrap();
    assert_eq!(incident["step"].as_u64(), Some(step as u64));
    assert!(incident["rows"].as_array().unwrap().contains(&9.into()), "{incident}");
    let first = &incident["first"];
    assert_eq!(
        (&first["layer"], &first["row"], &first["id"]),
        (&0.into(), &9.into(), &31.into()),
        "{incident}"
    );
    assert_eq!(first["tensor"], "input of layers.0.o_proj");
    assert_eq!(incident["losses"].as_array().unwrap().len(), step - 1);
    assert!(!folder.join("adapter").exists());

    // Left out instead, the run continues from its last checkpoint to its end; the skip is in the metrics.
    let output = run(&subject, &folder, &["guard.skip_non_finite=9"], None);
    assert!(output.status.success(), "{}", said(&output));
    let metrics = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let skipped = last["skipped"].as_u64().unwrap();
    assert!(skipped > 0 && metrics.lines().count() as u64 == STEPS - skipped, "{last}");
    let whole = dir.path().join("whole");
    assert!(run(&subject, &whole, &["guard.skip_non_finite=9"], None).status.success());
    assert_eq!(Bytes::read(&folder).unwrap(), Bytes::read(&whole).unwrap());
}
