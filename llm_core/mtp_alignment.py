"""Which row of which MTP depth reads and guesses what: the one table that all mistakes of MTP are made in.

DeepSeek-V3, arXiv:2412.19437, section 2.2; mtp.py has the modules themselves. Over a text of n tokens, 0 .. n - 1, of
which the last is only a target: row i of depth k reads token i + k and guesses token i + k + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llm_core.generation import as_batch
from llm_core.model import LanguageModel
from llm_core.speculative import evaluating
from llm_core.validation import whole


@dataclass(frozen=True)
class AlignedRow:
    """Row `row` of depth `depth`. reads and target: places of tokens in the text; it knows tokens 0 .. reads.

    hidden_of: the depth whose hidden state of the same row it reads too; None at depth 0, which reads the text.
    """

    depth: int
    row: int
    reads: int
    target: int
    hidden_of: int | None


def aligned_rows(n_tokens: int, depths: int) -> list[AlignedRow]:
    """Every row of depths 0 .. depths over a text of n_tokens tokens, depth by depth. Each depth has a row fewer.

    ValueError if the deepest depth would have no row: it needs n_tokens of at least depths + 2.
    """
    whole("depths", depths, least=0)
    whole("n_tokens", n_tokens)
    if n_tokens < depths + 2:
        raise ValueError(f"depth {depths} needs a text of at least {depths + 2} tokens, to read {depths + 1} and guess "
                         f"one, and there are {n_tokens}")
    return [AlignedRow(k, i, i + k, i + k + 1, k - 1 if k else None)
            for k in range(depths + 1) for i in range(n_tokens - 1 - k)]


@torch.inference_mode()
def likeliest(model: LanguageModel, token_ids: Sequence[int]) -> list[list[int]]:
    """What the model (depth 0) and each of its MTP modules hold likeliest in the rows of aligned_rows, depth by depth.

    token_ids [n], the last of which is not read: depth k answers for its n - 1 - k rows.
    """
    read = as_batch(token_ids)[:, :-1]  # [1, T]
    with evaluating(model):
        out = model(read)
        depths = min(len(model.mtp), read.shape[1] - 1)
        ahead = model.predict_ahead(out.hidden, read, depths) if depths else []
    return [out.logits[0].argmax(-1).tolist(), *(depth.logits[0].argmax(-1).tolist() for depth in ahead)]
