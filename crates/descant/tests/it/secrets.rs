//! A token is in the environment of every command, each is as loud as it can be, ends well, in an error and in a
//! panic: no byte that is printed or written holds the token.

use crate::binary::{Ran, root};
use crate::help::{COMMANDS, INNER};
use crate::hub::{CANARY, SMALL, World, files};

/// A command that ends well, and one that does not. `{ROOT}` is the repository.
struct Case {
    good: &'static str,
    bad: &'static str,
}

const CASES: [Case; 19] = [
    Case {
        good: "train --recipe multilingual-thinking --set run.folder=run",
        bad: "train --recipe multilingual-thinking --set train.max_steps=x",
    },
    Case { good: "plan --root {ROOT} --device cpu", bad: "plan --root {ROOT} --set data.path=no/such" },
    Case {
        good: "evaluate --root {ROOT} --set evaluate.prompts=1 --set evaluate.max_new_tokens=4",
        bad: "evaluate --root {ROOT} --adapter no/such",
    },
    Case { good: "report run", bad: "report no/such" },
    Case {
        good: "generate --model hf://openai/gpt-oss-20b --ids 1523,30 --max-new-tokens 1 --greedy",
        bad: "generate --model hf://openai/nothing Hi",
    },
    Case { good: "chat --model {ROOT}/fixtures/tiny-gpt-oss", bad: "chat --model no/such" },
    Case {
        good: "score --model {ROOT}/fixtures/tiny-gpt-oss --input ids.jsonl",
        bad: "score --model {ROOT}/fixtures/tiny-gpt-oss --input no/such",
    },
    Case {
        good: "data preview --model {ROOT}/fixtures/tiny-gpt-oss {ROOT}/fixtures/tiny-gpt-oss/data/held-out.jsonl",
        bad: "data preview --model no/such x",
    },
    Case {
        good: "data render --model {ROOT}/fixtures/tiny-gpt-oss --input rows.jsonl --json",
        bad: "data render --model {ROOT}/fixtures/tiny-gpt-oss --input no/such --json",
    },
    Case { good: "tokenizer build --out tokenizer", bad: "tokenizer build --out ids.jsonl" },
    Case {
        good: "export --model {ROOT}/fixtures/golden/export/base --adapter {ROOT}/fixtures/golden/export/adapter-attn \
               --to peft-folded --out exported",
        bad: "export --adapter no/such --to peft --out nowhere",
    },
    Case { good: "init", bad: "init --recipe no-such" },
    Case {
        good: "bench step --model {ROOT}/fixtures/tiny-gpt-oss --sequence 8 --steps 1 --warmup 0 --json",
        bad: "bench step --model no/such",
    },
    Case {
        good: "bench generate --model {ROOT}/fixtures/tiny-gpt-oss --context 8 --new 2 --json",
        bad: "bench generate --model no/such",
    },
    Case {
        good: "bench compare rows-of-bench.jsonl rows-of-bench.jsonl",
        bad: "bench compare no/such ids.jsonl",
    },
    Case { good: "download", bad: "download openai/nothing" },
    Case { good: "doctor --json", bad: "doctor --model no/such" },
    Case { good: "completions bash", bad: "completions no-such-shell" },
    Case { good: "man --out man", bad: "man --out ids.jsonl" },
];

#[test]
fn no_command_shows_or_writes_a_token_however_it_ends() {
    let world = World::new();
    world.hub.require(crate::hub::MODEL, CANARY);
    let dir = world.dir.path();
    let put = |name: &str, text: &[u8]| {
        std::io::Write::write_all(&mut std::fs::File::create(dir.join(name)).unwrap(), text).unwrap();
    };
    put("ids.jsonl", b"{\"ids\": [1, 2, 3]}\n");
    put(
        "rows.jsonl",
        br#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
    );
    put("rows-of-bench.jsonl", b"{\"batch\": 1, \"sequence\": 8, \"tokens_per_second\": 5.0}\n");
    let loud = [("HF_TOKEN", CANARY), ("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full")];
    let mut all = String::new();
    let mut run = |line: &str, fault: &str| -> Ran {
        let line = line.replace("{ROOT}", root().to_str().unwrap());
        let mut arguments: Vec<&str> = line.split(' ').chain(["-vv"]).collect();
        if line.starts_with("train") {
            arguments.extend(SMALL);
        }
        let faults = [("DESCANT_FAULT", fault)];
        let faults = if fault.is_empty() { &[][..] } else { &faults };
        let ran = world.run_with(&arguments, &[&loud[..], faults].concat());
        all += &ran.out;
        all += &ran.err;
        ran
    };
    let mut named = Vec::new();
    for Case { good, bad } in &CASES {
        let ran = run(good, "");
        assert_eq!(ran.code, 0, "{good}\n{}", ran.err);
        let ran = run(bad, "");
        assert_eq!(ran.code, 2, "{bad}\n{}", ran.err);
        named.push(good.split(' ').next().unwrap());
    }
    named.dedup();
    assert_eq!(named, COMMANDS, "every command is among them");
    assert_eq!(INNER.iter().map(|(_, inner)| inner.len()).sum::<usize>(), 6, "and every one inside them");
    // Those that change files panic at the first change and at a later one.
    for (line, at) in [
        ("train --recipe multilingual-thinking --set run.folder=panics", 0),
        ("train --recipe multilingual-thinking --set run.folder=panics", 9),
        ("download --verify datasets/HuggingFaceH4/Multilingual-Thinking", 0),
        ("init --force", 0),
    ] {
        let ran = run(line, &format!("panic:{at}"));
        let panicked = ran.err.contains("a bug in descant");
        assert!(ran.code == 2 && panicked || line.starts_with("download"), "{line}, {at}\n{}", ran.err);
    }
    assert!(
        all.contains("model.safetensors") && all.contains("stack backtrace") || all.contains("panicked at")
    );
    assert!(!all.contains(CANARY), "{}", shown(&all));
    for (name, bytes) in files(dir) {
        let holds = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
        assert!(!holds, "{name}");
    }
    // The controls: the token was there to be shown, and what looks for it finds it.
    assert!(world.hub.seen().iter().any(|seen| seen.head.contains(CANARY)), "it was sent to the hub");
    put("control", format!("a {CANARY} b").as_bytes());
    assert!(files(dir).iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains(CANARY)));
}

/// The lines that should not be.
fn shown(all: &str) -> String {
    all.lines().filter(|line| line.contains(CANARY)).take(5).collect::<Vec<_>>().join("\n")
}
