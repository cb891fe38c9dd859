"""Reading a prompt, and what memory a long text takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from llm_core import LanguageModel
from llm_core.accounting import forward_flops
from tests.benchmarks import peers
from tests.benchmarks.measuring import interleaved, peak
from tests.benchmarks.results import Row


@torch.inference_mode()
def rows() -> Iterator[Row]:
    for name, made in (("GPT-2 124M", peers.gpt2), ("small DeepSeek-V3", peers.deepseek)):
        theirs, ours = made()
        prompt = peers.ids(ours, 1024)
        t = interleaved({"theirs": partial(theirs, prompt, use_cache=True, logits_to_keep=1),
                         "ours": partial(read, ours, prompt)}, rounds=7)
        flops = forward_flops(ours.config, 1024)
        limit = (flops.total - flops.by_part["output head"] * 1023 / 1024) / peak()  # one row of logits is wanted
        yield Row(f"{name} reads a prompt of 1,024 tokens, over transformers", t["theirs"] / t["ours"], 1, None,
                  f"{1000 * t['ours']:.0f} against {1000 * t['theirs']:.0f} ms; products at peak {1000 * limit:.0f}")
    yield memory_row()


def read(model: LanguageModel, prompt: Tensor) -> Tensor:
    return model(prompt, model.new_cache(1, prompt.shape[1]), last_only=True).logits


def memory_row() -> Row:
    """In a process of its own: what other rows left behind would hide what grows."""
    told = subprocess.run([sys.executable, "-m", "tests.benchmarks.memory"], check=True, capture_output=True, text=True)
    grew, cache, tokens = json.loads(told.stdout)
    return Row(f"memory over {tokens:,} decoded tokens: what grew, off from the cache", abs(grew / cache - 1) * 100, 5,
               None, f"{grew / 1e6:.1f} MB, and the cache has {cache / 1e6:.1f}", at_most=True, unit="%")
