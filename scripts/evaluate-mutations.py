#!/usr/bin/env python3
"""Breaks the judge in twenty ways, one after the other, and checks that a test notices each.

Usage: scripts/evaluate-mutations.py [NAME ...]     from the root of a clean checkout

A mutation replaces one piece of text in one file; the file is put back afterwards. Ends with status 1 when the tests of
descant-evaluate pass with a mutation in, fail without one, or when a piece of text is not there any more.
"""

import pathlib
import subprocess
import sys

SOURCE = pathlib.Path("crates/descant-evaluate/src")
NEVER = r"[^\s\S]"
MUTATIONS = {
    "share-0.4": ("language.rs", "SHARE: f64 = 0.6", "SHARE: f64 = 0.4"),
    "share-0.8": ("language.rs", "SHARE: f64 = 0.6", "SHARE: f64 = 0.8"),
    "code-stays": ("prose.rs", 'r"(?s)```.*?(?:```|\\z)"', f'r"{NEVER}"'),
    "quotations-stay": ("prose.rs", "(quotes, Guard", f'(r"{NEVER}", Guard'),
    "copies-stay": ("prose.rs", "without_copies(&text, prompt)\n}", 'without_copies(&text, prompt.split_at(0).0)\n}'),
    "foreign-999": ("pieces.rs", "FOREIGN: u64 = 15", "FOREIGN: u64 = 999"),
    "no-second-look": ("language.rs", "if 2 * votes.values().sum::<u64>() < total {", "if total == u64::MAX {"),
    "least-40": ("language.rs", "LEAST_LATIN: u64 = 8", "LEAST_LATIN: u64 = 40"),
    "no-elsewhere": ("language.rs", '"Latin" if is_elsewhere(text, *weight)', '"Latin" if is_elsewhere(text, u64::MAX)'),
    "one-reading": ("number.rs", "if !grouped && AMBIGUOUS", "if grouped && AMBIGUOUS"),
    "no-answer-word": ("claim.rs", "let near = between", "let near = false && between"),
    "no-boxed": ("claim.rs", r"\\boxed\s*\{", NEVER),
    "no-plus-minus": ("claim.rs", r"|\*?\s?i\b|±)", r"|\*?\s?i\b)"),
    "period-8": ("loops.rs", "PERIOD: usize = 128", "PERIOD: usize = 8"),
    "no-grams": ("loops.rs", "DISTINCT: f64 = 0.4", "DISTINCT: f64 = -1.0"),
    "run-3": ("loops.rs", "RUN: usize = 32", "RUN: usize = 3"),
    "reading-first": (
        "reading.rs",
        "let harmony = defect(&messages, more, tools, &body)",
        "let harmony = broken.or(defect(&messages, more, tools, &body))",
    ),
    "bare-tools": ("reading.rs", 'format!("functions.{name}")', "name.to_owned()"),
    "empty-is-missing": ("reading.rs", "() => Analysis::Empty", "() => Analysis::Missing"),
    "analysis-answers": (
        "reading.rs",
        "m.header.role == Role::Assistant && m.header.channel == Some(Channel::Final)",
        "m.header.role == Role::Assistant && m.header.channel.is_some()",
    ),
}


COMMAND = ["cargo", "test", "-q", "-p", "descant-evaluate", "--test", "it", "--", "verdicts", "figures"]


def main():
    if subprocess.run(COMMAND).returncode != 0:
        sys.exit("the tests fail without a mutation, so they would show nothing")
    chosen = sys.argv[1:] or list(MUTATIONS)
    survived = []
    for name in chosen:
        file, old, new = MUTATIONS[name]
        path = SOURCE / file
        text = path.read_text(encoding="utf-8")
        if old not in text:
            print(f"{name}: `{old}` is not in {path}", flush=True)
            survived.append(name)
            continue
        try:
            path.write_text(text.replace(old, new), encoding="utf-8")
            ran = subprocess.run(COMMAND, capture_output=True, text=True)
        finally:
            path.write_text(text, encoding="utf-8")
        compiled = "error: could not compile" not in ran.stderr
        caught = ran.returncode != 0 and compiled
        print(f"{name}: {'caught' if caught else 'SURVIVED' if compiled else 'does not compile'}", flush=True)
        if not caught:
            survived.append(name)
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
