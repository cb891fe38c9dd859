"""The texts that the lab learns from, and the part of each that is held out."""

from __future__ import annotations

import torch
from torch import Tensor

from llm_core.data import Corpus, TokenText, shakespeare, split_document, tokenized, windows
from llm_core.tokenizer import Tokenizer
from llm_core.validation import one_of

SOURCES = ("plays", "scene", "own")
LEAST_CHARACTERS, MOST_CHARACTERS = 2_000, 200_000
HELD_OUT = 0.1  # of a short text, so that something is left to measure with
SCENE_CHARACTERS = 6_000
EVALUATED = 4096  # held-out tokens that are read at each look, at most: about as long as three steps take


def corpus(source: str, own: str = "") -> Corpus:
    """"plays": Shakespeare's; "scene": the first 6,000 characters of the first play; "own": the text given.

    ValueError if a text of one's own is too short or too long.
    """
    one_of("source", source, SOURCES)
    if source == "plays":
        return shakespeare()
    if source == "own":
        check_own(own)
    text = own if source == "own" else shakespeare().train[0][:SCENE_CHARACTERS]
    train, held_out = split_document(text, HELD_OUT)
    return Corpus("a text of one's own" if source == "own" else "a scene", [train], [held_out])


def check_own(text: str) -> None:
    """ValueError with a sentence if the text cannot be learned from here."""
    if not isinstance(text, str):
        raise ValueError(f"the text must be text, not {type(text).__name__}")
    n = len(text.strip())
    if n < LEAST_CHARACTERS:
        raise ValueError(f"the text has {n:,} characters and needs at least {LEAST_CHARACTERS:,}: paste more, or take "
                         "the plays")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"the text has {len(text):,} characters and may have {MOST_CHARACTERS:,}: paste a part of it")


def as_tokens(text: Corpus, tokenizer: Tokenizer, context: int) -> TokenText:
    """ValueError if too few tokens are left for a context, to learn from or to measure with."""
    tokens = tokenized(text, tokenizer)
    if len(tokens.train) <= context or len(tokens.held_out) < 8:
        raise ValueError(f"the text makes {len(tokens.train):,} tokens to learn from and {len(tokens.held_out):,} held "
                         f"out; a context of {context} needs {context + 1} and 8: paste more text, or shorten the "
                         "context")
    return tokens


def held_out_windows(tokens: Tensor, tokenizer: Tokenizer, context: int) -> tuple[Tensor, Tensor, int]:
    """data.windows of held-out tokens [M], some of them, evenly over the text, if there are many: inputs [N, T],
    targets [N, T], and the bytes of text that the targets stand for."""
    inputs, targets = windows(tokens, context)
    most = max(1, EVALUATED // inputs.shape[1])
    if len(inputs) > most:
        rows = torch.linspace(0, len(inputs) - 1, most).long()
        inputs, targets = inputs[rows], targets[rows]
    wanted = targets[(targets != -100) & (targets != tokenizer.end_of_text)].tolist()
    return inputs, targets, sum(len(tokenizer.token_bytes(id)) for id in wanted)
