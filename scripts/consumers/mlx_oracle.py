"""Logits of mlx-lm's own gpt-oss on a CPU, from a folder in the published layout, with an adapter or without.

    Model(FOLDER, ADAPTER or None).logits(ids)

What mlx-lm wants beside its model and its reader of adapters (transformers, a terminal) is replaced by stand-ins where it
is not installed, so that the quick part needs none of it. Weights in BF16 are widened to F32, because a CPU would round
activations. mlx-lm rounds the bounds of YaRN's ramp, as llama.cpp does.
"""
import importlib.util
import json
import sys
import types
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np


def _package(name, folder):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [str(folder)]


def _stand_in(name, **what):
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(what)


if importlib.util.find_spec("transformers") is None:
    _root = Path(importlib.util.find_spec("mlx_lm").submodule_search_locations[0])
    # Without their __init__, which import everything.
    _package("mlx_lm", _root)
    _package("mlx_lm.tuner", _root / "tuner")
    _stand_in("mlx_lm.cli_ui", rprint=print)
    _stand_in("mlx_lm.utils", get_total_parameters=lambda model: 0)
from mlx_lm.models import gpt_oss  # noqa: E402
from mlx_lm.tuner.utils import load_adapters  # noqa: E402


class Model:
    def __init__(self, folder, adapter=None):
        config = json.loads((folder / "config.json").read_text())
        weights = {}
        for file in sorted(folder.glob("*.safetensors")):
            weights.update(mx.load(str(file)))
        self.model = gpt_oss.Model(gpt_oss.ModelArgs.from_dict(config))
        weights = {name: w.astype(mx.float32) if w.dtype == mx.bfloat16 else w
                   for name, w in self.model.sanitize(weights).items()}
        nn.quantize(self.model, group_size=32, bits=4, mode="mxfp4",
                    class_predicate=lambda path, _: f"{path}.scales" in weights)
        # Strict: a tensor that it does not know, or misses, is an error.
        self.model.load_weights(list(weights.items()), strict=True)
        if adapter:
            load_adapters(self.model, str(adapter))
        self.model.eval()

    def logits(self, ids):
        return np.array(self.model(mx.array(ids)).astype(mx.float32))
