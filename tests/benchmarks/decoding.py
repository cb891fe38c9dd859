"""Tokens a second, one text, greedy, with a cache: each model writes on from the same prompt."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from transformers import DynamicCache

from llm_core import data, load_pretrained
from llm_core.accounting import Hardware, decode_bound
from llm_core.data import tokenized
from llm_core.model import LanguageModel
from llm_core.quantization.model import quantize_model
from llm_core.stacked import stack_for_decoding
from llm_core.training.evaluate import bits_per_byte
from tests.benchmarks import peers
from tests.benchmarks.measuring import bandwidth, interleaved, peak
from tests.benchmarks.results import Row

CHUNK = 512  # tokens of a prompt that are read at once


class Writer:
    """Reads the prompt once; each `write` goes on from there. `read` and `forget` are the model's own."""

    @torch.inference_mode()
    def __init__(self, model: torch.nn.Module, cache: object, prompt: Tensor):
        self.model, self.cache, self.held = model, cache, prompt.shape[1]
        for piece in prompt.split(CHUNK, dim=1):
            self.first = self.read(piece)

    @torch.inference_mode()
    def write(self, tokens: int) -> list[int]:
        token, out = self.first, []
        for _ in range(tokens):
            out.append(token.item())
            token = self.read(token)
        self.forget(tokens)
        return out


class Theirs(Writer):
    """transformers' model, called directly: its `generate` would add some work of its own to each token."""

    def __init__(self, model: torch.nn.Module, prompt: Tensor):
        super().__init__(model, DynamicCache(config=model.config), prompt)

    def read(self, ids: Tensor) -> Tensor:
        return self.model(ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits.argmax(-1)

    def forget(self, tokens: int) -> None:
        self.cache.crop(-tokens)


class Ours(Writer):
    def __init__(self, model: LanguageModel, prompt: Tensor):
        super().__init__(model, model.new_cache(1, prompt.shape[1] + 256), prompt)

    def read(self, ids: Tensor) -> Tensor:
        return self.model(ids, self.cache, last_only=True).logits.argmax(-1)

    def forget(self, tokens: int) -> None:
        self.cache.truncate(self.held)


def rows() -> Iterator[Row]:
    yield from gpt2_rows()
    yield from int8_loss_rows()
    yield from deepseek_rows()


def gpt2_rows() -> Iterator[Row]:
    theirs, ours = peers.gpt2()
    prompt, tokens = peers.ids(ours, 64), 16
    stacked = stack_for_decoding(ours)
    int8 = quantize_model(stacked, 8, head=True)
    writers = {"theirs": Theirs(theirs, prompt), "plain": Ours(ours, prompt), "stacked": Ours(stacked, prompt),
               "int8": Ours(int8, prompt)}
    texts = {name: writer.write(tokens) for name, writer in writers.items()}
    assert texts["theirs"] == texts["plain"] == texts["stacked"], "not the same text"
    t = interleaved({name: partial(writer.write, tokens) for name, writer in writers.items()}, rounds=11)
    speed = {name: tokens / seconds for name, seconds in t.items()}
    yield Row("GPT-2 124M decodes, fp32, over transformers", t["theirs"] / t["stacked"], 1.15, 1.3,
              f"{speed['stacked']:.0f} against {speed['theirs']:.0f} tokens/s, the same tokens; not stacked "
              f"{speed['plain']:.0f}; at full bandwidth {limit(ours, 64, 32):.0f}")
    yield Row("GPT-2 124M decodes, int8 weights, over transformers in fp32", t["theirs"] / t["int8"], 2.5, 3,
              f"{speed['int8']:.0f} against {speed['theirs']:.0f} tokens/s; at full bandwidth {limit(ours, 64, 8):.0f}")


def int8_loss_rows() -> Iterator[Row]:
    """Quantised as above, head and all; on text that the models never saw."""
    for name in ("gpt-mini", "deepseek-mini"):
        model, tokenizer = load_pretrained(name)
        text = tokenized(data.shakespeare(), tokenizer)
        held_out = data.windows(text.held_out[:20_000], 256)
        plain, int8 = (bits_per_byte(m, *held_out, 1) for m in (model, quantize_model(model, 8, head=True)))
        yield Row(f"held-out loss of {name} with int8 weights, off from fp32", abs(int8 / plain - 1) * 100, 1, None,
                  "20,000 tokens of plays", at_most=True, unit="%")


def deepseek_rows() -> Iterator[Row]:
    theirs, ours = peers.deepseek()
    stacked = stack_for_decoding(ours)
    mine = {}
    for held, tokens, must, aim in ((256, 16, 2.2, 2.5), (2048, 8, 5.5, 7), (8192, 4, None, None)):
        prompt = peers.ids(ours, held)
        a, b = Theirs(theirs, prompt), Ours(stacked, prompt)
        assert a.write(tokens) == b.write(tokens), "not the same text"
        t = interleaved({"theirs": partial(a.write, tokens), "ours": partial(b.write, tokens)}, rounds=11)
        mine[held] = b
        figures = f"{tokens / t['ours']:.1f} against {tokens / t['theirs']:.1f} tokens/s, the same tokens"
        if must:
            yield Row(f"small DeepSeek-V3 decodes behind {held:,} cached tokens, over transformers",
                      t["theirs"] / t["ours"], must, aim, f"{figures}; at full bandwidth {limit(ours, held, 32):.0f}")
    over = interleaved({held: partial(mine[held].write, 8) for held in (256, 8192)}, rounds=21)
    yield Row("a token behind 8,192 cached ones, over one behind 256", over[8192] / over[256], 1.8, 1.5,
              f"{125 * over[8192]:.1f} against {125 * over[256]:.1f} ms; behind 8,192 {figures}, "
              f"{t['theirs'] / t['ours']:.0f} times", at_most=True)


def limit(model: LanguageModel, held: int, weight_bits: int) -> float:
    """Tokens a second if all that a token needs were read at full bandwidth: active weights, and the cache."""
    here = Hardware("this machine", bandwidth(), peak())
    return decode_bound(model.config, here, context=held + 1, weight_bits=weight_bits, cache_bits=32).tokens_per_second
