#!/usr/bin/env python3
"""Writes what transformers and peft compute for a small gpt-oss checkpoint, for our tests to match.

The checkpoint comes from scripts/make_checkpoint.py; it is loaded in f32 with eager attention and
eager experts, and adapted by PEFT on attention, router and experts (targets can be chosen) with
factors that are not zero.  Then OUT holds

  adapter/            the adapter as PEFT saves it (without its model card)
  case.safetensors    input_ids, labels [batch, time]; prompt [1, n];
                      base.logits, lora.logits [batch, time, vocab];
                      router.N.indices [batch * time, k] of layer N, with the adapter;
                      grad.KEY: the loss's gradient for the adapter's tensor KEY;
                      delta.N.PARAMETER: what the adapter adds to an expert parameter [experts, in, out]
                      or to the router's weight [experts, in] of layer N (--delta-layer)
  expected.json       losses, greedy tokens of base and adapter, how close any decision was,
                      how much of gate and up was clamped, settings and versions

Loss: mean over next-token positions whose label is not -100.  Inputs are drawn again until no routing
decision and no greedy choice is closer than the margins, so another order of summation cannot flip one.

Example (fixtures/golden/parity-b)
  make_checkpoint.py OUT --layers 3 --hidden 64 --intermediate 96 --heads 4 --kv-heads 1 --head-dim 64 \\
      --experts 6 --top-k 4 --vocab 256 --window 5 --expert-gain 4 --seed 11
  make_parity.py OUT OUT --rank 3 --alpha 7
"""
import argparse
import json
import os
import sys

import peft
import torch
import transformers
from safetensors.torch import save_file

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
PARAMETERS = {"router": "mlp.router.weight", "gate_up_proj": "mlp.experts.gate_up_proj", "down_proj": "mlp.experts.down_proj"}


def load(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    quantized = getattr(config, "quantization_config", None) is not None
    model = transformers.GptOssForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager",
        quantization_config=transformers.Mxfp4Config(dequantize=True) if quantized else None)
    return model.float().eval()  # dequantized experts stay bf16 otherwise


class Watch:
    """Sees every routing decision and every clamp of the forward passes since it was started."""

    def __init__(self, model):
        for number, layer in enumerate(model.model.layers):
            layer.mlp.router.register_forward_hook(self.routing(number))
            layer.mlp.experts._apply_gate = self.gate(layer.mlp.experts)
        self.start()

    def start(self):
        self.indices, self.margin = {}, float("inf")
        self.clamped = {"gate": [0, 0], "up": [0, 0]}

    def routing(self, number):
        def hook(module, _, out):
            logits, _, indices = out
            top = logits.detach().topk(module.top_k + 1, dim=-1).values
            # Neighbours within the chosen decide the order in which they are listed, so they count too.
            self.margin = min(self.margin, (top[:, :-1] - top[:, 1:]).min().item())
            self.indices[number] = indices.detach().clone()
        return hook

    def gate(self, experts):
        original = type(experts)._apply_gate

        def apply(gate_up):
            for name, hit in (("gate", gate_up[..., ::2] > experts.limit), ("up", gate_up[..., 1::2].abs() > experts.limit)):
                self.clamped[name][0] += int(hit.sum())
                self.clamped[name][1] += hit.numel()
            return original(experts, gate_up)
        return apply

    def shares(self):
        return {name: hit / max(1, of) for name, (hit, of) in self.clamped.items()}


@torch.no_grad()
def greedy(model, prompt, steps):
    """Tokens by a full forward pass each, and how close the closest choice was."""
    ids, margin = prompt.clone(), float("inf")
    for _ in range(steps):
        top = model(input_ids=ids).logits[0, -1].topk(2)
        margin = min(margin, (top.values[0] - top.values[1]).item())
        ids = torch.cat([ids, top.indices[:1][None]], dim=1)
    return ids[0, prompt.shape[1]:].tolist(), margin


def loss_of(model, ids, labels):
    logits = model(input_ids=ids).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
    return logits, loss


def draw_inputs(a, vocab, seed):
    gen = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocab, (a.batch, a.time), generator=gen)
    labels = ids.clone()
    labels[torch.rand(labels.shape, generator=gen) < 0.3] = -100
    labels[0, :5] = -100  # a prompt, as data has it
    prompt = torch.randint(0, vocab, (1, 7), generator=gen)
    return ids, labels, prompt


def adapt(model, a):
    targets = a.targets.split(",")
    unknown = [t for t in targets if t not in ATTENTION and t not in PARAMETERS]
    if unknown:
        sys.exit(f"unknown targets {unknown}")
    parameters = [PARAMETERS[t] for t in targets if t in PARAMETERS]
    wrapped = peft.get_peft_model(model, peft.LoraConfig(
        r=a.rank, lora_alpha=a.alpha, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
        target_modules=[t for t in ATTENTION if t in targets], target_parameters=parameters or None))
    gen = torch.Generator().manual_seed(a.seed)
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if p.requires_grad:
                std = a.b_std if "lora_B" in name else p.shape[-1] ** -0.5
                p.copy_(torch.randn(p.shape, generator=gen) * std)
    return wrapped.eval()


def deltas(wrapped, layer):
    """What each wrapped parameter of a layer gains, as PEFT itself computes it."""
    found = {}
    for name, module in wrapped.named_modules():
        if f".layers.{layer}." in name and type(module).__name__ == "ParamWrapper":
            found[f"delta.{layer}.{module.parameter_name if 'experts' in name else 'router'}"] = \
                module.get_delta_weight("default").detach().clone().contiguous()
    return found


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint")
    ap.add_argument("out")
    ap.add_argument("--rank", type=int, default=3)
    ap.add_argument("--alpha", type=int, default=7)
    ap.add_argument("--targets", default=",".join([*ATTENTION, *PARAMETERS]))
    ap.add_argument("--b-std", type=float, default=0.05)
    ap.add_argument("--batch", type=int, default=2)
    ap.add_argument("--time", type=int, default=24)
    ap.add_argument("--greedy", type=int, default=32)
    ap.add_argument("--delta-layer", type=int, default=1)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--tries", type=int, default=500)
    ap.add_argument("--router-margin", type=float, default=2e-4)
    ap.add_argument("--greedy-margin", type=float, default=1e-2)
    a = ap.parse_args()
    torch.set_num_threads(1)  # one order of summation

    model = load(a.checkpoint)
    vocab = model.config.vocab_size
    watch = Watch(model)
    wrapped = adapt(model, a)
    for seed in range(a.seed, a.seed + a.tries):
        ids, labels, prompt = draw_inputs(a, vocab, seed)
        watch.start()
        with wrapped.disable_adapter(), torch.no_grad():
            base_logits, base_loss = loss_of(wrapped, ids, labels)
            if watch.margin < a.router_margin:
                continue
            base_tokens, base_close = greedy(wrapped, prompt, a.greedy)
        watch.indices.clear()
        watch.clamped = {"gate": [0, 0], "up": [0, 0]}
        wrapped.zero_grad()
        logits, loss = loss_of(wrapped, ids, labels)
        indices, shares = dict(watch.indices), watch.shares()
        if watch.margin < a.router_margin or base_close < a.greedy_margin:
            continue
        loss.backward()
        tokens, close = greedy(wrapped, prompt, a.greedy)
        if watch.margin > a.router_margin and close > a.greedy_margin:
            break
    else:
        sys.exit("no inputs without a close decision; try more, or smaller margins")

    tensors = {"input_ids": ids, "labels": labels, "prompt": prompt,
               "base.logits": base_logits, "lora.logits": logits.detach()}
    tensors |= {f"router.{n}.indices": i for n, i in indices.items()}
    tensors |= {"grad." + name.replace(".default.", "."): p.grad
                for name, p in wrapped.named_parameters() if p.requires_grad}
    tensors |= deltas(wrapped, a.delta_layer)
    os.makedirs(a.out, exist_ok=True)
    save_file({name: t.contiguous() for name, t in tensors.items()}, os.path.join(a.out, "case.safetensors"))
    adapter = os.path.join(a.out, "adapter")
    wrapped.peft_config["default"].base_model_name_or_path = os.path.basename(os.path.normpath(a.out))
    wrapped.save_pretrained(adapter)
    os.remove(os.path.join(adapter, "README.md"))  # a form to fill in, and it names the folder of this machine
    with open(os.path.join(adapter, "adapter_config.json")) as f:
        written = json.load(f)
    for key in ("target_modules", "target_parameters"):  # PEFT keeps sets, so their order changes from run to run
        written[key] = sorted(written[key]) if written[key] else written[key]
    with open(os.path.join(adapter, "adapter_config.json"), "w") as f:
        json.dump(written, f, indent=2, sort_keys=True)
        f.write("\n")
    squares = sum(float(p.grad.double().square().sum()) for p in wrapped.parameters() if p.requires_grad)
    with open(os.path.join(a.out, "expected.json"), "w") as f:
        json.dump({
            "base_loss": base_loss.item(), "lora_loss": loss.item(), "grad_norm": squares ** 0.5,
            "rank": a.rank, "alpha": a.alpha, "targets": a.targets.split(","),
            "greedy": {"base": base_tokens, "lora": tokens},
            "closest": {"routing": watch.margin, "greedy": min(base_close, close)},
            "clamped": shares, "seed": seed,
            "made_with": {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__, "peft": peft.__version__},
        }, f, indent=1)
        f.write("\n")
    for name in ("case.safetensors", os.path.join("adapter", "adapter_model.safetensors")):
        os.chmod(os.path.join(a.out, name), 0o644)  # safetensors makes them private
    print(open(os.path.join(a.out, "expected.json")).read())


if __name__ == "__main__":
    main()
