#!/usr/bin/env python3
"""Loads an adapter that descant saved in PEFT itself, and compares what both compute.

  check_peft.py --model DIR --adapter DIR [--binary descant] [--input FILE.jsonl] [--tolerance 1e-4]

Lines of the input: {"ids": [...]} with "labels" if wanted; without a file, random ids are drawn.
Three things must hold, else the exit status is 1:

  1. PEFT takes every tensor of the file and leaves none of its own unfilled (by itself it only warns).
  2. Per-token log-probabilities and losses of `descant score`, with the adapter and without, are those of
     transformers and PEFT in f32 within the tolerance.
  3. The adapter changes something: with and without it PEFT's own answers differ by more than the tolerance,
     so that 2 cannot hold for two programs that both ignore it.

Needs torch, transformers and peft.  Not run in CI.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import peft
import torch
import transformers
from safetensors.torch import load_file


def load(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    quantized = getattr(config, "quantization_config", None) is not None
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager",
        quantization_config=transformers.Mxfp4Config(dequantize=True) if quantized else None)
    return model.float().eval()  # dequantized experts stay bf16 otherwise


def unaccounted(wrapped, folder):
    """Tensors of the file that are not in the model with the same numbers, and the other way round."""
    stored = load_file(os.path.join(folder, "adapter_model.safetensors"))
    held = peft.get_peft_model_state_dict(wrapped)
    wrong = sorted(stored.keys() ^ held.keys())
    return wrong + [k for k in sorted(stored.keys() & held.keys()) if not torch.equal(stored[k].float(), held[k].float())]


@torch.no_grad()
def reference(model, rows):
    """What `descant score` promises, computed by transformers."""
    out = []
    for row in rows:
        ids = torch.tensor(row["ids"])
        logits = model(input_ids=ids[None]).logits[0, :-1].double()
        logprobs = logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        scored = torch.tensor(row.get("labels") or row["ids"])[1:] != -100
        loss = -logprobs[scored].mean().item() if scored.any() else None
        out.append({"loss": loss, "logprobs": logprobs.tolist()})
    return out


def descant(binary, model, adapter, path):
    command = [binary, "score", "--model", model, "--input", path, "--json"]
    run = subprocess.run(command + (["--adapter", adapter] if adapter else []), capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"{' '.join(run.args)}: exit status {run.returncode}\n{run.stderr}")
    return [json.loads(line) for line in run.stdout.splitlines() if line.strip()]


def largest(left, right):
    """The largest difference, and where; shapes that differ are infinitely far apart."""
    if len(left) != len(right):
        return float("inf"), f"{len(left)} and {len(right)} lines"
    worst, where = 0.0, "nowhere"
    for line, (a, b) in enumerate(zip(left, right), 1):
        if len(a["logprobs"]) != len(b["logprobs"]) or (a["loss"] is None) != (b["loss"] is None):
            return float("inf"), f"line {line}: lengths, or a loss on one side only"
        pairs = [*zip(a["logprobs"], b["logprobs"], range(10 ** 9))]
        pairs += [(a["loss"], b["loss"], "loss")] if a["loss"] is not None else []
        for x, y, place in pairs:
            if not abs(x - y) <= worst:  # NaN too
                worst, where = (abs(x - y) if x == x and y == y else float("inf")), f"line {line}, {place}"
    return worst, where


def draw(vocab, seed=0):
    """Rows of several lengths, longer than a small model's window, some with positions that are not scored."""
    gen = torch.Generator().manual_seed(seed)
    rows = []
    for length in (2, 7, 33, 96):
        ids = torch.randint(0, vocab, (length,), generator=gen).tolist()
        rows += [{"ids": ids}, {"ids": ids, "labels": [-100] * (length // 2) + ids[length // 2:]}]
    return rows + [{"ids": rows[0]["ids"], "labels": [-100, -100]}]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True)
    ap.add_argument("--adapter", required=True)
    ap.add_argument("--binary", default="descant")
    ap.add_argument("--input")
    ap.add_argument("--tolerance", type=float, default=1e-4)
    a = ap.parse_args()

    model = load(a.model)
    if a.input:
        with open(a.input, encoding="utf-8") as f:
            rows = [json.loads(line) for line in f if line.strip()]
    else:
        rows = draw(model.config.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "input.jsonl")
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(row) + "\n" for row in rows)
        ours = {name: descant(a.binary, a.model, adapter, path) for name, adapter in (("base", None), ("adapter", a.adapter))}

    base = reference(model, rows)
    wrapped = peft.PeftModel.from_pretrained(model, a.adapter).eval()
    adapted = reference(wrapped, rows)
    count = sum(len(row["logprobs"]) for row in base)

    wrong = unaccounted(wrapped, a.adapter)
    print(f"tensors that PEFT did not take or the file does not have: {len(wrong)} {wrong[:4] or ''}")
    ok = not wrong
    for name, theirs in (("base", base), ("adapter", adapted)):
        difference, where = largest(ours[name], theirs)
        print(f"{name}: largest difference over {count} log-probabilities and {len(rows)} losses {difference:.3g} ({where})")
        ok &= difference <= a.tolerance
    effect, _ = largest(base, adapted)
    print(f"the adapter changes up to {effect:.3g}")
    ok &= effect > a.tolerance
    print("equal" if ok else f"NOT EQUAL within {a.tolerance:g}")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
