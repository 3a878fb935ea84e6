#!/usr/bin/env python3
"""Writes a synthetic adapter for a checkpoint of make_checkpoint.py, as PEFT writes one. Needs numpy only.

Usage: scripts/make_adapter.py OUT --preset 20b --rank 8

Attention and both expert tensors of all layers, F32. A is drawn as PEFT draws it, B such that the update is some per
cent of a weight of a synthetic checkpoint. The same arguments give the same bytes.
"""

import argparse
import json
import pathlib
import struct

import numpy as np

from make_checkpoint import PRESETS

PREFIX = "base_model.model.model.layers."
B_STD = 6e-4


def shapes(sizes, rank):
    """Names and shapes, sorted by name as safetensors files are."""
    hidden, inner, experts = sizes["hidden"], sizes["intermediate"], sizes["experts"]
    q, kv = sizes["heads"] * sizes["head_dim"], sizes["kv_heads"] * sizes["head_dim"]
    attention = {"q_proj": (hidden, q), "k_proj": (hidden, kv), "v_proj": (hidden, kv), "o_proj": (q, hidden)}
    found = {}
    for n in range(sizes["layers"]):
        for name, (d_in, d_out) in attention.items():
            found[f"{PREFIX}{n}.self_attn.{name}.lora_A.weight"] = (rank, d_in)
            found[f"{PREFIX}{n}.self_attn.{name}.lora_B.weight"] = (d_out, rank)
        for name, d_in, d_out in (("base_layer.", hidden, 2 * inner), ("", inner, hidden)):
            found[f"{PREFIX}{n}.mlp.experts.{name}lora_A.weight"] = (experts * rank, d_in)
            found[f"{PREFIX}{n}.mlp.experts.{name}lora_B.weight"] = (d_out, experts * rank)
    return sorted(found.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--preset", choices=PRESETS, default="20b")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tensors = shapes(PRESETS[arguments.preset], arguments.rank)
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors:
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    dice = np.random.default_rng(arguments.seed)
    with open(arguments.out / "adapter_model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for name, shape in tensors:
            std = 0.6 / np.sqrt(shape[1]) if "lora_A" in name else B_STD
            file.write((dice.standard_normal(shape, dtype=np.float32) * np.float32(std)).tobytes())
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": f"synthetic/gpt-oss-{arguments.preset}",
        "r": arguments.rank,
        "lora_alpha": 2 * arguments.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    (arguments.out / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
    print(f"{arguments.out}: {end / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
