"""Render, tokenize, mask and pack the same rows in Python, and run ours beside it, in turns.

    pip install transformers jinja2            # no torch needed
    descant tokenizer build --out TOKENIZER
    cargo build --release -p descant-harmony --example throughput
    python scripts/bench_harmony.py --model TOKENIZER --data FILE.jsonl --ours target/release/examples/throughput

Python does what a training script there does: apply_chat_template to a text, the fast tokenizer to ids, the loss mask by
searching the markers of the reply, greedy packing in order. One process, one thread (TOKENIZERS_PARALLELISM=false);
best and median of --rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAYON_NUM_THREADS"] = "1"

from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: E402

CAPACITY = 8192


def without_nulls(message):
    return {key: value for key, value in message.items() if value is not None}


def rows(path):
    with open(path, encoding="utf-8") as lines:
        return [[without_nulls(m) for m in json.loads(line)["messages"]] for line in lines if line.strip()]


def masked(ids, prompt):
    """Everything from after the first reply's `<|start|>assistant`."""
    n = len(prompt)
    mask = [0] * len(ids)
    for at in range(len(ids) - n + 1):
        if ids[at : at + n] == prompt:
            mask[at + n :] = [1] * (len(ids) - at - n)
            break
    return mask


def prepared(tokenizer, conversations, prompt):
    packs, pack, n_bytes = [], ([], []), 0
    for messages in conversations:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        n_bytes += len(text.encode())
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        mask = masked(ids, prompt)
        if pack[0] and len(pack[0]) + len(ids) > CAPACITY:
            packs.append(pack)
            pack = ([], [])
        pack[0].extend(ids)
        pack[1].extend(mask)
    packs.append(pack)
    return n_bytes, sum(len(ids) for ids, _ in packs)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--data", required=True)
    arguments.add_argument("--ours")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--turns", type=int, default=2)
    arguments = arguments.parse_args()
    try:
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    except Exception:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=os.path.join(arguments.model, "tokenizer.json"))
        with open(os.path.join(arguments.model, "chat_template.jinja"), encoding="utf-8") as template:
            tokenizer.chat_template = template.read()
    conversations = rows(arguments.data)
    prompt = tokenizer("<|start|>assistant", add_special_tokens=False)["input_ids"]
    for turn in range(arguments.turns):
        if arguments.ours:
            print(f"turn {turn + 1}, ours")
            print(subprocess.run([arguments.ours, arguments.data], check=True, capture_output=True, text=True).stdout)
        rates, processor = [], []
        for _ in range(arguments.rounds):
            start, started = time.perf_counter(), time.process_time()
            n_bytes, n_tokens = prepared(tokenizer, conversations, prompt)
            rates.append(n_bytes / 1e6 / (time.perf_counter() - start))
            processor.append(n_bytes / 1e6 / (time.process_time() - started))
        print(f"turn {turn + 1}, transformers: by the clock best {max(rates):.2f}, "
              f"median {statistics.median(rates):.2f} MB/s; a second of processor best {max(processor):.2f}, "
              f"median {statistics.median(processor):.2f} MB/s, "
              f"{n_tokens} tokens, {n_bytes / 1e6:.2f} MB\n")


main()
