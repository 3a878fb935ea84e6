"""The quick part of the consumers: exports of the golden set, checked without torch.

    python quick.py --descant BIN --golden DIR --work DIR

Every form of the three adapters through check_export.py, which computes the merge again, and the GGUF files through
llama.cpp and the forms for MLX through mlx-lm, against logits that transformers made once. Needs what requirements-quick.txt names. Status 1 if anything is
wrong, and if a wrong export is taken for right.
"""
import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import llama_oracle
import mlx_oracle
import numpy as np
from safetensors.numpy import load_file

HERE = Path(__file__).parent
# Differences of logits that are rounding of F32.
EXACT = 1e-4
FORMS = [
    ("bf16", "bf16", []),
    ("mxfp4", "mxfp4", ["--experts", "feedback"]),
    ("mxfp4", "mxfp4", ["--experts", "nearest", "--allow-loss"]),
    ("gguf", "gguf", []),
    ("gguf", "gguf", ["--experts", "bf16"]),
    ("gguf-lora", "gguf-lora", []),
    ("peft-folded", "peft-vllm", []),
]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("descant", "golden", "work"):
        p.add_argument("--" + name, type=Path, required=True)
    args = p.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    base, io = args.golden / "base", load_file(args.golden / "expected/io.safetensors")
    wrong = 0

    def say(name, right, text):
        nonlocal wrong
        wrong += not right
        print(f"{name:<44} {'right' if right else 'WRONG':<6} {text[:100]}", flush=True)

    def export(adapter, form, more):
        name = "-".join([adapter.name, form, *more]).replace("--", "")
        out = args.work / (name + (".gguf" if form.startswith("gguf") else ""))
        subprocess.run([args.descant, "-q", "export", "--adapter", adapter, "--model", base, "--to", form, "--out", out,
                        *more], check=True, stdout=subprocess.DEVNULL)
        return out

    def checked(adapter, kind, path):
        run = subprocess.run([sys.executable, HERE / "check_export.py", "--base", base, "--adapter", adapter,
                              "--exported", path, "--kind", kind], capture_output=True, text=True)
        return run.returncode == 0, (run.stdout.strip().splitlines() or run.stderr.strip().splitlines() or [""])[0]

    def llama(name, path, loras, wanted):
        model = llama_oracle.Model(llama_oracle.as_f32(str(path), str(folder)), [str(lora) for lora in loras])
        gap = np.abs(model.logits(io["input_ids"]) - io[wanted]).max()
        return gap, f"{name}: logits within {gap:.1e}"

    def mlx(model, adapter, wanted):
        gap = np.abs(mlx_oracle.Model(model, adapter).logits(io["input_ids"]) - io[wanted]).max()
        return gap, f"mlx-lm: logits within {gap:.1e}"

    folder = args.work / "f32"
    folder.mkdir()
    nothing = args.work / "nothing"
    made = {}
    for name in ("attn", "all", "mixed"):
        adapter = args.golden / f"adapter-{name}"
        for form, kind, more in FORMS:
            made[name, form, *more] = out = export(adapter, form, more)
            say(out.name, *checked(adapter, kind, out))
    for name, more, wanted in (("attn", (), "attn.bf16"), ("all", ("--experts", "bf16"), "all.bf16"),
                               ("mixed", ("--experts", "bf16"), "mixed.bf16")):
        gap, text = llama("llama.cpp", made[name, "gguf", *more], (), f"{wanted}.llama.logits")
        # A number that lies between two of BF16 may be rounded the other way, and a routing decision flip: see below.
        say(made[name, "gguf", *more].name, gap < (EXACT if name == "attn" else 0.1), text)
    # The base alone, as a GGUF: merged with an adapter that changes nothing.
    from safetensors.numpy import save_file
    shutil.copytree(args.golden / "adapter-attn", nothing)
    tensors = load_file(nothing / "adapter_model.safetensors")
    save_file({key: t * ("lora_B" not in key) for key, t in tensors.items()}, nothing / "adapter_model.safetensors",
              metadata={"format": "pt"})
    plain = export(nothing, "gguf", [])
    for name in ("attn", "all", "mixed"):
        gap, text = llama("llama.cpp --lora", plain, [made[name, "gguf-lora"]], f"{name}.llama.logits")
        say(made[name, "gguf-lora"].name, gap < EXACT, text)
    for name in ("attn", "all", "mixed"):
        adapter = args.golden / f"adapter-{name}"
        gap, text = mlx(base, export(adapter, "mlx-adapter", []), f"{name}.llama.logits")
        say(f"adapter-{name}-mlx-adapter", gap < EXACT, text)
    gap, text = mlx(made["attn", "mxfp4", "--experts", "feedback"], None, "attn.bf16.llama.logits")
    say("adapter-attn-mxfp4-experts-feedback", gap < EXACT, text)
    # The controls: an export of another adapter, and the base without any, are distinguished.
    right, text = checked(args.golden / "adapter-mixed", "bf16", made["all", "bf16"])
    say("control: another adapter", not right, text)
    gap, text = mlx(base, export(args.golden / "adapter-mixed", "mlx-adapter", ["--force"]), "all.llama.logits")
    say("control: another adapter, mlx-lm", gap > 100 * EXACT, text)
    gap, text = llama("llama.cpp", plain, (), "attn.llama.logits")
    say("control: no adapter", gap > 100 * EXACT, text)
    print(f"{wrong} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
