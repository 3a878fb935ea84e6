//! Several processes, one run, through the binary: the bytes of one, and what becomes of all when something happens to
//! one of them. Workers on the CPU meet over the loopback interface, as cards of one host do.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use descant_testkit::crash::{Bytes, Subject, members};
use descant_testkit::micro::Options;
use descant_testkit::scratch;

use crate::lives::{BINARY, said};

/// Longest that anything may take until every process has ended.
const SOON: Duration = Duration::from_secs(30);
/// Steps of a run; so many that it is still at work when something happens to it, on an idle machine too.
const STEPS: u64 = 160;

fn subject(dir: &Path, steps: u64, cards: usize) -> Subject {
    let mut subject = Subject::new(Path::new(BINARY), dir, &Options::default(), steps).unwrap();
    subject.cards = Some(cards).filter(|cards| *cards > 1);
    subject
}

/// A process of a run that somebody else started, as torchrun does.
fn as_torchrun(subject: &Subject, folder: &Path, rank: usize, world: usize, port: u16) -> Command {
    let mut command = subject.command(folder);
    command.envs([
        ("RANK", rank.to_string()),
        ("WORLD_SIZE", world.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("LOCAL_WORLD_SIZE", world.to_string()),
        ("MASTER_ADDR", "127.0.0.1".to_owned()),
        ("MASTER_PORT", port.to_string()),
    ]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Waits for a process, which must not take long.
fn ended(child: Child) -> (Output, Duration) {
    let start = Instant::now();
    let output = child.wait_with_output().unwrap();
    let took = start.elapsed();
    assert!(took < SOON, "it took {took:?}: {}", said(&output));
    (output, took)
}

/// Waits until a run makes steps.
fn makes_steps(child: &mut Child, folder: &Path) {
    while std::fs::read(folder.join("metrics.jsonl")).unwrap_or_default().is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before its first step");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap().success());
}

fn is_there(process: u32) -> bool {
    Path::new("/proc")
        .join(process.to_string())
        .join("fd")
        .read_dir()
        .is_ok_and(|mut fds| fds.next().is_some())
}

#[test]
fn two_and_three_processes_end_with_the_files_of_one_also_resumed_with_another_number() {
    let dir = scratch();
    let one = subject(dir.path(), 12, 1);
    let expected = one.run(&dir.path().join("one")).unwrap();
    for cards in [2, 3] {
        let several = subject(dir.path(), 12, cards);
        assert_eq!(several.run(&dir.path().join(cards.to_string())).unwrap(), expected, "{cards}");
    }
    // Begun by two, continued by one, ended by three.
    let folder = dir.path().join("changing");
    for cards in [2, 1] {
        let subject = subject(dir.path(), 12, cards);
        let mut child =
            subject.command(&folder).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while start.elapsed() < SOON && !folder.join("checkpoints/step-000003/manifest.json").is_file() {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // Where the machine is quick, it has ended by itself.
        if child.try_wait().unwrap().is_none() {
            signal(child.id(), "TERM");
        }
        ended(child);
    }
    assert_eq!(subject(dir.path(), 12, 3).run(&folder).unwrap(), expected);
    // The control: another seed is other bytes.
    let mut other = subject(dir.path(), 12, 2);
    other.sets.push("train.seed=1".to_owned());
    assert_ne!(other.run(&dir.path().join("other")).unwrap(), expected);
}

#[test]
fn what_torchrun_sets_is_understood_and_settings_that_differ_are_named_once() {
    let dir = scratch();
    let subject = subject(dir.path(), 6, 1);
    let expected = subject.run(&dir.path().join("one")).unwrap();
    let (folder, port) = (dir.path().join("torchrun"), free_port());
    let start =
        |rank, more: &[&str]| as_torchrun(&subject, &folder, rank, 2, port).args(more).spawn().unwrap();
    let members = [start(0, &[]), start(1, &[])];
    for child in members {
        let (output, _) = ended(child);
        assert!(output.status.success(), "{}", said(&output));
    }
    assert_eq!(Bytes::read(&folder).unwrap(), expected);
    let port = free_port();
    let start = |rank, more: &[&str]| {
        as_torchrun(&subject, &dir.path().join("differing"), rank, 2, port).args(more).spawn().unwrap()
    };
    let members = [start(0, &[]), start(1, &["--set", "train.seed=1"])];
    let [first, second] = members.map(|child| ended(child).0);
    assert_eq!(first.status.code(), Some(2), "{}", said(&first));
    assert!(said(&first).contains("rank 1: settings differ: train.seed is 1 at rank 1 and 3407 at rank 0"));
    assert_eq!(second.status.code(), Some(2));
    assert!(!said(&second).contains("error"), "said once: {}", said(&second));
    // Both at once make no sense.
    let both = as_torchrun(&subject, &folder, 0, 2, port).args(["--cards", "2"]).output().unwrap();
    assert!(said(&both).contains("--cards starts processes by itself"), "{}", said(&both));
}

#[test]
fn a_port_that_is_taken_is_named_once_and_nothing_is_left_running() {
    let dir = scratch();
    let subject = subject(dir.path(), 6, 2);
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = dir.path().join("run");
    let mut command = subject.command(&folder);
    command.env("MASTER_PORT", &port).stdout(Stdio::null()).stderr(Stdio::piped());
    let (output, _) = ended(command.spawn().unwrap());
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(&format!("port {port} of this host: another program has it")), "{text}");
    assert_eq!(text.matches("error:").count(), 1, "{text}");
    drop(taken);
    subject.run(&folder).unwrap();
}

#[test]
fn whoever_is_killed_all_end_soon_with_one_cause_and_the_same_command_resumes() {
    let dir = scratch();
    let expected = subject(dir.path(), STEPS, 1).run(&dir.path().join("one")).unwrap();
    let subject = subject(dir.path(), STEPS, 2);
    for (who, said_of_it) in [(Some(1), "rank 1: its process ended"), (Some(0), "rank 0: "), (None, "")] {
        let folder = dir.path().join(format!("{who:?}"));
        let mut command = subject.command(&folder);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        makes_steps(&mut child, &folder);
        let members = members(child.id());
        assert_eq!(members.len(), 2);
        signal(who.map_or(child.id(), |rank| members[rank]), "KILL");
        let (output, _) = ended(child);
        let text = said(&output);
        if who.is_some() {
            assert_eq!(output.status.code(), Some(2), "{who:?}: {text}");
            assert!(text.contains(said_of_it), "{who:?}: {text}");
            assert_eq!(text.matches("error:").count(), 1, "{who:?}: {text}");
            assert!(text.contains("resumes from the last checkpoint"), "{text}");
        }
        let start = Instant::now();
        while members.iter().any(|member| is_there(*member)) {
            assert!(start.elapsed() < SOON, "{who:?} left somebody running");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(subject.run(&folder).unwrap(), expected, "{who:?}");
    }
}

#[test]
fn a_signal_to_the_launcher_or_to_one_rank_saves_the_step_and_ends_all() {
    let dir = scratch();
    let expected = subject(dir.path(), STEPS, 1).run(&dir.path().join("one")).unwrap();
    let mut subject = subject(dir.path(), STEPS, 2);
    subject.sets.push("run.save_every=0".to_owned());
    for (who, name, code) in
        [(None, "TERM", 143), (None, "INT", 130), (Some(0), "TERM", 143), (Some(1), "TERM", 130)]
    {
        let folder = dir.path().join(format!("{who:?}-{name}"));
        let mut command = subject.command(&folder);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        makes_steps(&mut child, &folder);
        let members = members(child.id());
        signal(who.map_or(child.id(), |rank: usize| members[rank]), name);
        let (output, _) = ended(child);
        assert_eq!(output.status.code(), Some(code), "{who:?} {name}: {}", said(&output));
        let lines = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap().lines().count();
        assert!(
            folder.join(format!("checkpoints/step-{lines:06}/manifest.json")).is_file(),
            "{who:?} {name}"
        );
        assert_eq!(subject.run(&folder).unwrap(), expected, "{who:?} {name}");
    }
}

#[test]
fn a_rank_that_hangs_is_found_and_ended() {
    let dir = scratch();
    let expected = subject(dir.path(), STEPS, 1).run(&dir.path().join("one")).unwrap();
    let subject = subject(dir.path(), STEPS, 2);
    for who in [1, 0] {
        let folder = dir.path().join(who.to_string());
        let mut command = subject.command(&folder);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        makes_steps(&mut child, &folder);
        let members = members(child.id());
        // It keeps its connections and says nothing more.
        signal(members[who], "STOP");
        let (output, _) = ended(child);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(&format!("rank {who}: nothing was heard of it for ")), "{text}");
        assert_eq!(text.matches("error:").count(), 1, "{text}");
        assert!(members.iter().all(|member| !is_there(*member)), "the launcher ends them");
        assert_eq!(subject.run(&folder).unwrap(), expected);
    }
}

#[test]
fn an_error_of_one_rank_reaches_rank_0_with_its_rank_and_its_status() {
    let dir = scratch();
    let subject = subject(dir.path(), 6, 1);
    let (folder, port) = (dir.path().join("run"), free_port());
    let first = as_torchrun(&subject, &folder, 0, 2, port).spawn().unwrap();
    // Too little memory at one rank: its limit is its own.
    let second =
        as_torchrun(&subject, &folder, 1, 2, port).args(["--set", "memory.limit=\"1MB\""]).spawn().unwrap();
    let [first, second] = [first, second].map(|child| ended(child).0);
    let text = said(&first);
    assert_eq!((first.status.code(), second.status.code()), (Some(4), Some(4)), "{text}");
    assert!(text.contains("rank 1: not enough memory"), "{text}");
    assert!(!said(&second).contains("error:"), "{}", said(&second));
}

#[test]
fn runs_of_two_that_are_killed_at_random_end_with_the_bytes_of_one() {
    let dir = scratch();
    let expected = subject(dir.path(), 18, 1).run(&dir.path().join("one")).unwrap();
    let subject = subject(dir.path(), 18, 2);
    let start = Instant::now();
    assert_eq!(subject.run(&dir.path().join("two")).unwrap(), expected);
    let tally = subject.kill(dir.path(), &expected, 6, start.elapsed(), 21).unwrap();
    assert!(tally.kills >= 6, "{tally:?}");
}
