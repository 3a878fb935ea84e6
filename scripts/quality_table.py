#!/usr/bin/env python3
"""Trains the tiny model in several ways, three seeds each, and writes what came out as tables.

Usage: scripts/quality_table.py --binary target/release/descant [--runs FOLDER] [--out quality.json]

What carries adapters: attention, the experts, both, and the router too. And data without reasoning, under each mask.
Runs are made one after the other and kept; the same command again makes only those that are missing. Prints Markdown.
"""

import argparse
import json
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "fixtures/tiny-gpt-oss/data/multilingual-thinking-tiny-efforts.jsonl"
SEEDS = (3407, 1, 2)
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EXPERTS = ["gate_up_proj", "down_proj"]
TARGETS = {
    "attention": ATTENTION,
    "experts": EXPERTS,
    "attention and experts": ATTENTION + EXPERTS,
    "and the router": ATTENTION + EXPERTS + ["router"],
}
# Full loss needs whole rows: a view of one reply trains the same tokens under `everything` as under `assistant`.
MASKS = {
    "assistant": {"data.mask": "assistant"},
    "final_only": {"data.mask": "final_only"},
    "everything of whole rows": {"data.mask": "everything", "data.views": "whole_row"},
}


def without_reasoning(target):
    """The data with every reasoning taken out."""
    lines = []
    for line in DATA.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        row.pop("analysis", None)
        for message in row["messages"]:
            message.pop("thinking", None)
        lines.append(json.dumps(row, ensure_ascii=False))
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


def train(binary, folder, sets):
    if (folder / "summary.json").exists():
        return
    command = [binary, "--root", str(ROOT), "train", "-q", "--set", f"run.folder={folder}"]
    for key, value in sets.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def pooled(side, asked):
    """Counts over all efforts."""
    total = {}
    for cell in side["cells"]:
        if cell["asked"] in asked:
            for key, value in list(cell.items()) + [("present", cell["analysis"]["present"])]:
                if isinstance(value, int):
                    total[key] = total.get(key, 0) + value
    return total


def measured(folder):
    """The figures of a run, shares from 0 to 1."""
    evaluation = json.loads((folder / "evaluation.json").read_text())
    summary = json.loads((folder / "summary.json").read_text())
    figures = {}
    for when in ("before", "after"):
        asked, plain = pooled(evaluation[when], ["any"]), pooled(evaluation[when], ["none"])
        both = pooled(evaluation[when], ["any", "none"])
        figures[when] = {
            "language": asked["hit"] / asked["n"],
            "right_asked": asked["right"] / asked["scored"],
            "right_plain": plain["right"] / plain["scored"],
            "reasons": both["present"] / both["n"],
            "valid": both["valid"] / both["n"],
            "loss": evaluation[when]["loss"]["channels"]["all"]["mean_nats"],
        }
    spill = evaluation["spill_over"]
    figures["spill_over"] = spill["changed_language"] / spill["judged"] if spill["judged"] else None
    figures["replies"] = evaluation["after"]["replies"]
    figures["trained_parameters"] = summary["trained_parameters"]
    figures["train_seconds"] = summary["train_seconds"]
    figures["warnings"] = [w for w in summary["warnings"]]
    return figures


def spread(values, digits=1, factor=1.0):
    """Mean over the seeds, and the least and the most where they differ."""
    values = [factor * value for value in values if value is not None]
    if not values:
        return "-"
    shown = lambda value: f"{value:.{digits}f}"
    mean, least, most = shown(sum(values) / len(values)), shown(min(values)), shown(max(values))
    return mean if least == most else f"{mean} ({least} to {most})"


def table(rows):
    titles = (
        "what", "trained numbers", "in the language asked", "right, a language asked", "right, none asked",
        "another language, none asked", "reasons at all", "well-formed", "held-out loss", "seconds of steps",
    )
    lines = ["| " + " | ".join(titles) + " |", "| --- |" + " ---: |" * (len(titles) - 1)]
    for name, runs in rows.items():
        after = lambda key, runs=runs: spread([run["after"][key] for run in runs], 1, 100.0)
        lines.append(
            f"| {name} | {runs[0]['trained_parameters']:,} | {after('language')} | {after('right_asked')} "
            f"| {after('right_plain')} | {spread([run['spill_over'] for run in runs], 1, 100.0)} "
            f"| {after('reasons')} | {after('valid')} "
            f"| {spread([run['after']['loss'] for run in runs], 4)} "
            f"| {spread([run['train_seconds'] for run in runs], 0)} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs/quality")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="several processes may share a folder")
    arguments = parser.parse_args()
    runs = arguments.runs.resolve()
    runs.mkdir(parents=True, exist_ok=True)
    bare = runs / "no-reasoning.jsonl"
    without_reasoning(bare)
    common = {"evaluate.prompts": arguments.prompts}
    plan = {}
    for name, targets in TARGETS.items():
        plan["adapters on " + name if name != "and the router" else "all, and the router"] = {
            "lora.targets": json.dumps(targets)
        }
    for mask, sets in MASKS.items():
        plan[f"no reasoning in the data, mask {mask}"] = {"data.path": bare, **sets}
    done = {}
    for seed in arguments.seeds:
        for name, sets in plan.items():
            folder = runs / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
            train(arguments.binary, folder, {**common, **sets, "train.seed": seed})
            done.setdefault(name, []).append({"seed": seed, **measured(folder)})
            print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": platform.processor() or platform.machine(), "runs": done}, indent=1) + "\n")
    base = next(iter(done.values()))[0]
    before = base["before"]
    print(
        f"Base: {100 * before['language']:.1f} % in the language asked, {100 * before['right_asked']:.1f} % and "
        f"{100 * before['right_plain']:.1f} % right, {100 * before['reasons']:.1f} % reason, held-out loss {before['loss']:.4f}. "
        f"{base['replies']} replies a run; seeds {', '.join(map(str, arguments.seeds))}.\n"
    )
    print(table(done))


if __name__ == "__main__":
    main()
