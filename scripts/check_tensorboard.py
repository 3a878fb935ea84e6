#!/usr/bin/env python3
"""Reads a run's event file with the tensorboard package and compares every scalar with the run's own logs.

Usage: scripts/check_tensorboard.py RUN ...      needs tensorboard, or any package that has its reader

Ends with status 1 when a step or a value is missing, is another, or is there without being in the logs.
"""

import json
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Tag, file and key of every scalar.
SCALARS = {
    "train/loss": ("metrics.jsonl", "loss"),
    "train/first_token_loss": ("metrics.jsonl", "first_analysis_loss"),
    "train/learning_rate": ("metrics.jsonl", "learning_rate"),
    "train/gradient_norm": ("metrics.jsonl", "grad_norm"),
    "train/epoch": ("metrics.jsonl", "epoch"),
    "speed/tokens_per_second": ("timing.jsonl", "tokens_per_second"),
}


def single(value):
    """A number as an event holds it, in 32 bits."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def check(run):
    wrong = []
    logs = {}
    for name in ("metrics.jsonl", "timing.jsonl"):
        lines = (run / name).read_text(encoding="utf-8").splitlines()
        logs[name] = [json.loads(line) for line in lines]
    # All of them: the default keeps a sample of long runs.
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = set(events.Tags()["scalars"])
    expected_tags = {
        tag
        for tag, (name, key) in SCALARS.items()
        if any(line.get(key) is not None for line in logs[name])
    }
    if tags != expected_tags:
        wrong.append(f"tags {sorted(tags)}, expected {sorted(expected_tags)}")
    compared = 0
    for tag in sorted(tags & expected_tags):
        name, key = SCALARS[tag]
        expected = [(line["step"], single(line[key])) for line in logs[name] if line.get(key) is not None]
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        if found != expected:
            differing = next((pair for pair in zip(found, expected) if pair[0] != pair[1]), None)
            wrong.append(f"{tag}: {len(found)} values, expected {len(expected)}; first other: {differing}")
        compared += len(found)
    return compared, wrong


def main():
    if not sys.argv[1:]:
        sys.exit(__doc__)
    failed = False
    for run in map(pathlib.Path, sys.argv[1:]):
        compared, wrong = check(run)
        for line in wrong:
            print(f"{run}: {line}")
        print(f"{run}: {compared} scalars {'differ' if wrong else 'are those of the logs'}")
        failed |= bool(wrong) or compared == 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
