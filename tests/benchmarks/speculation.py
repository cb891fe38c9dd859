"""Guesses of the MTP module on deepseek-mini: what they are worth by the clock, and by (1 + p) / (1 + c)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from llm_core import data, generate, load_pretrained
from llm_core.draft_cost import draft_cost, tally
from llm_core.drafts import MTPDraft
from llm_core.speculative import speculate
from llm_core.stacked import stack_for_decoding
from tests.benchmarks.measuring import interleaved
from tests.benchmarks.results import Row

TOKENS, TEXTS = 120, 6


def rows() -> Iterator[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model gains nothing by a second
    try:
        yield from _rows()
    finally:
        torch.set_num_threads(threads)


def _rows() -> Iterator[Row]:
    mini, tokenizer = load_pretrained("deepseek-mini")
    mini = stack_for_decoding(mini)
    ids = tokenizer.encode("\n".join(data.shakespeare().held_out))
    prompts = [ids[start:start + 64] for start in range(0, TEXTS * 300, 300)]
    plain = [generate(mini, prompt, TOKENS)[0].tolist() for prompt in prompts]
    passes = [list(speculate(mini, prompt, TOKENS, gamma=1)) for prompt in prompts]
    for prompt, text, done in zip(prompts, plain, passes, strict=True):
        assert prompt + [token for one in done for token in one.tokens] == text, "speculation changed the text"
    t = interleaved({"plain": lambda: [generate(mini, prompt, TOKENS) for prompt in prompts],
                     "guessed": lambda: [list(speculate(mini, prompt, TOKENS, gamma=1)) for prompt in prompts]},
                    rounds=9)
    found = [tally(done) for done in passes]
    guesses, accepted = sum(one.guesses for one in found), sum(one.accepted for one in found)
    costs = sorted(draft_cost(mini, MTPDraft(mini, 256), text[:length], tries=30).c
                   for text in plain for length in (90, 130, 170))
    p, c = accepted / guesses, costs[len(costs) // 2]
    measured, predicted = t["plain"] / t["guessed"], (1 + p) / (1 + c)
    note = (f"p = {p:.2f} of {guesses} guesses, c = {c:.2f}: predicted {predicted:.2f}, measured {measured:.2f}; "
            f"{TEXTS * TOKENS / t['plain']:.0f} tokens/s, guessed {TEXTS * TOKENS / t['guessed']:.0f}; same tokens")
    yield Row("MTP speculation on deepseek-mini, over plain greedy", measured, 1.15, 1.3, note)
    yield Row("its measured speed-up off from (1 + p) / (1 + c)", abs(measured / predicted - 1) * 100, 10, None,
              "as above", at_most=True, unit="%")
