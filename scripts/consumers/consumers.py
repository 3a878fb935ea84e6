"""Opens every form of an export with its real consumer and compares logits with PEFT's on transformers' dequantized base.

    python consumers.py --descant BIN --model DIR --adapter DIR --work DIR [--vllm DIR] [--rows FILE] [--json]

A row of the table: form, consumer, worst and mean difference of logits, share of equal argmax, verdict. llama.cpp and
mlx-lm round the bounds of YaRN's ramp, so they are compared with transformers doing the same. Weights are widened to
F32 first where a consumer would round activations. Status 1 if a verdict is "wrong".
"""
import argparse
import copy
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import GptOssForCausalLM, Mxfp4Config

torch.set_num_threads(2)
import transformers
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
HERE = Path(__file__).parent
ROWS, LENGTH = 4, 48
# Differences of logits that are rounding of F32; the worst one counts.
EXACT = 5e-4
# One BF16 rounding of what changed. A routing decision may flip, so the mean counts, in shares of what the adapter moves.
ROUNDED = 0.05


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    how = {"quantization_config": Mxfp4Config(dequantize=True)} if "quantization_config" in config else {}
    return GptOssForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager", **how).eval()


def truncated(model):
    """YaRN as llama.cpp and mlx-lm compute it."""
    config = copy.deepcopy(model.config)
    config.rope_parameters["truncate"] = True
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.numpy()


def inputs(model, rows):
    """Token rows: of a file of texts, or random ids of the vocabulary that its tokenizer has."""
    if rows:
        from tokenizers import Tokenizer
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        texts = [line for line in rows.read_text().splitlines() if line][:ROWS]
        ids = [tokenizer.encode(json.dumps(json.loads(text).get("messages", text))).ids[:LENGTH] for text in texts]
        shortest = min(map(len, ids))
        return np.array([row[:shortest] for row in ids])
    vocabulary = len(json.loads((model / "tokenizer.json").read_text())["model"]["vocab"])
    return np.random.default_rng(7).integers(0, vocabulary, (ROWS, LENGTH))


class Table:
    def __init__(self):
        self.rows = []

    def compare(self, form, consumer, got, want, moved=None):
        gap = np.abs(got.astype(np.float64) - want)
        same = float((got.argmax(-1) == want.argmax(-1)).mean())
        right = gap.max() <= EXACT if moved is None else gap.mean() <= ROUNDED * moved
        self.add(form, consumer, "right" if right else "wrong", f"max {gap.max():.1e} mean {gap.mean():.1e} argmax {same:.3f}")

    def add(self, form, consumer, verdict, text):
        self.rows.append((form, consumer, verdict, text))
        print(f"{form:<22} {consumer:<24} {verdict:<8} {text}", flush=True)


def attempt(table, form, consumer, run):
    try:
        run()
    except Exception as error:  # a consumer that fails is a row of the table
        table.add(form, consumer, "wrong", f"{type(error).__name__}: {str(error).strip()[-200:]}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("descant", "model", "adapter", "work"):
        p.add_argument("--" + name, type=Path, required=True)
    p.add_argument("--vllm", type=Path, help="folder with vLLM's Python files")
    p.add_argument("--rows", type=Path, help="JSON lines whose text is fed in")
    p.add_argument("--json", action="store_true")
    args = p.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    table = Table()

    def export(form, name, adapter=args.adapter, *more):
        out = args.work / name
        run = subprocess.run([args.descant, "-q", "export", "--adapter", adapter, "--model", args.model, "--to", form,
                              "--out", out, *more], capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(run.stderr)
        return out

    def checked(kind, form, path):
        run = subprocess.run([sys.executable, HERE / "check_export.py", "--base", args.model, "--adapter", args.adapter,
                              "--exported", path, "--kind", kind], capture_output=True, text=True)
        text = run.stdout.strip().splitlines() or run.stderr.strip().splitlines()[-1:]
        table.add(form, "check_export.py", "wrong" if run.returncode else "right", text[0] if run.returncode else "")

    versions = [f"{name} {found(name)}" for name in (
        "transformers", "peft", "torch", "gguf", "xllamacpp", "mlx", "mlx-lm", "safetensors", "numpy")]
    if args.vllm:
        versions.append(f"vLLM {vllm_version(args.vllm)}")
    print("versions:", ", ".join(versions))
    ids = inputs(args.model, args.rows)
    base = load(args.model)
    tuned = PeftModel.from_pretrained(load(args.model), args.adapter).eval()
    want = logits(tuned, ids)
    bare = logits(base, ids)
    want_truncated = logits(PeftModel.from_pretrained(truncated(load(args.model)), args.adapter).eval(), ids)
    spread = np.abs(want - bare)
    print(f"{ids.shape[0]} rows of {ids.shape[1]} tokens; the adapter moves logits by {spread.max():.2f} at most, {spread.mean():.3f} on average")

    def peft(form):
        out = export(form, form)
        model = PeftModel.from_pretrained(load(args.model), out).eval()
        table.compare(form, "PEFT", logits(model, ids), want)
        if form == "peft-folded":
            checked("peft-vllm", form, out)
            if args.vllm:
                run = subprocess.run([sys.executable, HERE / "vllm_oracle.py", "--source", args.vllm, "--base", args.model,
                                      "--adapter", args.adapter, "--exported", out, "--max-lora-rank", "512"],
                                     capture_output=True, text=True)
                text = (run.stdout.strip().splitlines() or run.stderr.strip().splitlines())[-1]
                table.add(form, "vLLM's loader", "wrong" if run.returncode else "right", text)

    def merged(form, name, *more):
        """The export, and what transformers computes with it, YaRN rounded as the others have it."""
        out = export(form, name, args.adapter, *more)
        model = load(out)
        got = logits(model, ids)
        if form == "bf16":
            table.compare(name, "transformers", got, want, spread.mean())
        else:
            # How much survives is the account's to say; here it must load and be what the account says.
            figures = json.loads((out / "export.json").read_text())["experts_survival"]
            text = "experts untouched" if figures is None else f"along {figures['along']:.3f}, A-error {figures['a_error']:.3f}"
            gap = np.abs(got - want).mean()
            table.add(name, "transformers", "right" if gap < spread.mean() else "wrong", f"mean {gap:.1e}; {text}")
        checked(form, name, out)
        return logits(truncated(model), ids)

    def llama(name, path, loras, expected, moved=None):
        import llama_oracle
        folder = args.work / "f32"
        folder.mkdir(exist_ok=True)
        model = llama_oracle.Model(llama_oracle.as_f32(path, folder), loras)
        table.compare(name, "llama.cpp", model.logits(ids), expected, moved)

    def gguf(name, expected, *more):
        out = export("gguf", name + ".gguf", args.adapter, *more)
        checked("gguf", name, out)
        # The same weights as the folder's, but for the router, which is F32 here: a mean, should a decision flip.
        llama(name, out, (), expected, spread.mean())

    def gguf_lora():
        # The base alone, as a GGUF: merged with an adapter that changes nothing.
        nothing = args.work / "nothing"
        shutil.copytree(args.adapter, nothing)
        tensors = load_file(nothing / "adapter_model.safetensors")
        save_file({name: t * ("lora_B" not in name) for name, t in tensors.items()}, nothing / "adapter_model.safetensors",
                  metadata={"format": "pt"})
        plain = export("gguf", "base.gguf", nothing)
        lora = export("gguf-lora", "lora.gguf")
        checked("gguf-lora", "gguf-lora", lora)
        llama("gguf-lora", plain, [lora], want_truncated)

    def mlx(name, folder, adapter, expected):
        import mlx_oracle
        table.compare(name, "mlx-lm", mlx_oracle.Model(folder, adapter).logits(ids), expected)

    attempt(table, "peft", "PEFT", lambda: peft("peft"))
    attempt(table, "peft-folded", "PEFT", lambda: peft("peft-folded"))
    truth = {}

    def keep(name, *rest):
        truth[name] = merged(*rest)

    attempt(table, "bf16", "transformers", lambda: keep("bf16", "bf16", "bf16"))
    attempt(table, "gguf-bf16", "llama.cpp", lambda: gguf("gguf-bf16", truth["bf16"], "--experts", "bf16"))
    for rule in ("feedback", "nearest"):
        more, name = ("--experts", rule, "--allow-loss"), f"mxfp4-{rule}"
        attempt(table, name, "transformers", lambda: keep(name, "mxfp4", name, *more))
        attempt(table, name, "mlx-lm", lambda: mlx(name, args.work / name, None, truth[name]))
        attempt(table, f"gguf-{rule}", "llama.cpp", lambda: gguf(f"gguf-{rule}", truth[name], *more))
    attempt(table, "gguf-lora", "llama.cpp", gguf_lora)
    attempt(table, "mlx-adapter", "mlx-lm", lambda: mlx("mlx-adapter", args.model, export("mlx-adapter", "mlx-adapter"), want_truncated))
    if args.json:
        print(json.dumps([dict(zip(("form", "consumer", "verdict", "figures"), row)) for row in table.rows]))
    wrong = sum(row[2] == "wrong" for row in table.rows)
    print(f"{len(table.rows) - wrong} of {len(table.rows)} right")
    sys.exit(bool(wrong))


def vllm_version(folder):
    """Of the unpacked wheel, which is not installed."""
    names = [path.name for path in folder.glob("vllm*.dist-info")]
    return names[0].removesuffix(".dist-info").rpartition("-")[2] if names else "of an unknown version"


def found(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


if __name__ == "__main__":
    main()
