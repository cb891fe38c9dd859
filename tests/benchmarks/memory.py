"""Run by reading.py: bytes that the process grew by while it wrote a long text, bytes of the cache, and tokens."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from llm_core import LanguageModel, presets, stream
from llm_core.accounting import cache_bytes
from llm_core.config import FeedForwardConfig, GroupedAttentionConfig

TOKENS = 4096


def resident(which: str) -> int:
    """VmRSS, bytes in memory now; VmHWM, the most there ever were. Linux alone tells."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[which].split()[0]) * 1024


def main() -> None:
    torch.manual_seed(0)
    config = presets.get("gpt2").replace(d_model=512, n_layers=4, attention=GroupedAttentionConfig(8),
                                         feed_forward=FeedForwardConfig(512, "gelu"), vocab_size=2048,
                                         max_seq_len=TOKENS + 1024)
    model = LanguageModel(config).eval()
    for _ in stream(model, [1, 2, 3], 300):  # what is made once is made now
        pass
    before = resident("VmRSS")
    written = sum(1 for _ in stream(model, [1, 2, 3], TOKENS))
    print(json.dumps([resident("VmHWM") - before, cache_bytes(config, 1, written, bits=32), written]))


if __name__ == "__main__":
    main()
