//! Prompts that several processes answer, through the binary: `evaluate --cards` and `generate --cards` write what one
//! process writes. Workers on the CPU meet over the loopback interface, as cards of one host do.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::binary::{OWN, Ran, descant, root};

/// Runs without and with workers; the first is what the others must be.
fn ask(arguments: &[&str], cards: usize) -> Ran {
    let number = cards.to_string();
    let workers = ["--device", "cpu", "--cards", &number];
    let ran = descant(root(), &[arguments, if cards > 1 { &workers } else { &workers[..2] }].concat());
    assert_eq!(ran.code, 0, "{cards}: {}", ran.err);
    ran
}

fn put(path: &Path, text: &str) {
    descant_files::write_atomic(path, text.as_bytes()).unwrap();
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn texts_and_ids_are_answered_as_by_one() {
    let texts = "--seed 5 --temperature 1.5 --max-new-tokens 40 --logprobs=2 --effort low,high --n 2 --batch 1 What Why";
    let ids = "--seed 9 --temperature 2 --max-new-tokens 12 --logprobs=1 --ids 1523,30,1525 --n 3 --batch 1 --ignore-eos";
    for arguments in [texts, ids] {
        let arguments: Vec<&str> = ["generate", "--json"].into_iter().chain(arguments.split(' ')).collect();
        let one = ask(&arguments, 1).out;
        assert!(one.lines().count() >= 3);
        for cards in [2, 3] {
            assert_eq!(ask(&arguments, cards).out, one, "{cards}");
        }
        // The control: another seed is another text.
        let other: Vec<&str> =
            arguments.iter().map(|word| if ["5", "9"].contains(word) { "6" } else { word }).collect();
        assert_ne!(ask(&other, 2).out, one);
    }
    // Several at once in each process: log-probabilities depend on how many in their last digits, replies do not.
    let ids = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split_once("],").unwrap().0.to_owned()).collect()
    };
    let several = "generate --ids 1523,30,1525 --n 9 --batch 4 --json --max-new-tokens 20 --logprobs";
    let several: Vec<&str> = several.split(' ').collect();
    assert_eq!(ids(&ask(&several, 2).out), ids(&ask(&several, 1).out));
    let streamed = descant(root(), &["generate", "--stream", "--cards", "2", "--device", "cpu", "x"]);
    assert!(streamed.code == 2 && streamed.err.contains("--stream"), "{}", streamed.err);
}

#[test]
fn a_file_of_replies_is_that_of_one_also_when_it_is_resumed_by_another_number() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.jsonl");
    let rows: Vec<String> = (0..23).map(|n| format!("{{\"prompt\": \"What is {n} + 26?\"}}\n")).collect();
    put(&input, &rows.concat());
    let to = |out: &Path, cards| {
        let files = ["--input", input.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let how = ["generate", "--effort", "low", "--n", "2", "--batch", "1", "--max-new-tokens", "9"];
        ask(&[&how[..], &files].concat(), cards)
    };
    let (one, two) = (folder.path().join("one.jsonl"), folder.path().join("two.jsonl"));
    to(&one, 1);
    let expected = read(&one);
    assert_eq!(expected.lines().count(), 46, "three rounds of two workers");
    to(&two, 2);
    assert_eq!(read(&two), expected);
    for (cards, rows) in [(3, 20), (1, 7), (2, 45), (2, 46)] {
        let kept: Vec<&str> = expected.split_inclusive('\n').take(rows).collect();
        put(&two, &(kept.concat() + if rows < 46 { "{\"id\": \"cut" } else { "" }));
        let ran = to(&two, cards);
        assert!(ran.err.contains(&format!("{rows} of 46 replies already exist")), "{}", ran.err);
        assert_eq!(ran.err.matches("already exist").count(), 1, "said once: {}", ran.err);
        assert_eq!(read(&two), expected, "{cards} after {rows}");
    }
}

#[test]
fn an_evaluation_is_that_of_one_with_losses_and_every_line_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |cards: usize, seed: &str| -> Vec<String> {
        let out = folder.path().join(format!("{cards}-{seed}"));
        let sets = [
            "evaluate.prompts=6",
            "evaluate.batch=1",
            "evaluate.max_new_tokens=24",
            "model.device=cpu",
            seed,
        ];
        let mut arguments = vec!["evaluate", "--json", "--out", out.to_str().unwrap()];
        arguments.extend(sets.iter().flat_map(|set| ["--set", set]));
        let number = cards.to_string();
        arguments.extend(["--cards", &number]);
        let ran = descant(root(), &arguments);
        assert_eq!(ran.code, 0, "{cards}: {}", ran.err);
        // Without the lines that say how long a batch took.
        let text = read(&out.join("samples.jsonl"));
        text.lines().filter(|line| !line.starts_with("{\"batch\"")).map(str::to_owned).collect()
    };
    let one = lines(1, "evaluate.seed=3");
    let of = |kind: &str| one.iter().filter(|line| line.contains(kind)).count();
    assert!(
        of("{\"question\"") >= 36 && of("\"channels\"") >= 6,
        "{} {}",
        of("{\"question\""),
        of("\"channels\"")
    );
    for cards in [2, 3] {
        assert_eq!(lines(cards, "evaluate.seed=3"), one, "{cards}");
    }
    // The control: another seed draws other replies.
    assert_ne!(lines(2, "evaluate.seed=4"), one);
}

#[test]
fn processes_that_are_asked_different_things_say_so_once() {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port().to_string();
    let start = |rank: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_descant"));
        for name in OWN {
            command.env_remove(name);
        }
        let places = [("RANK", rank), ("WORLD_SIZE", "2"), ("LOCAL_RANK", rank), ("MASTER_PORT", &port)];
        command.envs(places).env("MASTER_ADDR", "127.0.0.1").env("LOCAL_WORLD_SIZE", "2");
        command.current_dir(root()).args([
            "generate",
            "--device",
            "cpu",
            "--greedy",
            "--max-new-tokens",
            "4",
        ]);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for (second, said) in [
        (&["What is 71 + 27?"][..], Some("rank 1: it differs: prompts is ")),
        (
            &["--n", "2", "What is 71 + 26?"],
            Some("rank 1: settings differ: --n is 2 at rank 1 and 1 at rank 0"),
        ),
        (&["What is 71 + 26?"], None),
    ] {
        let members = [start("0", &["What is 71 + 26?"]), start("1", second)];
        let [first, second] = members.map(|child| child.wait_with_output().unwrap());
        let text = String::from_utf8_lossy(&first.stderr);
        let errors = String::from_utf8_lossy(&second.stderr).matches("error:").count();
        assert_eq!(errors + text.matches("error:").count(), usize::from(said.is_some()), "{text}");
        assert_eq!(first.status.code(), Some(if said.is_some() { 2 } else { 0 }), "{text}");
        assert!(said.is_none_or(|said| text.contains(said)), "{text}");
        assert!(second.stdout.is_empty() && first.stdout.is_empty() == said.is_some(), "rank 0 alone prints");
    }
}
