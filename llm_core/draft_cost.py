"""What guesses brought and what they cost, by this machine's clock: p and c in the speed-up (1 + p) / (1 + c).

Leviathan et al. 2023, arXiv:2211.17192, section 3.3, count the draft alone and call it c, since there the second row of
a pass is free. Here both are measured: the rows more that the model reads, and the guesses that the draft makes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from llm_core.drafts import Draft
from llm_core.model import LanguageModel
from llm_core.sampling import Sampler, greedy
from llm_core.speculative import Pass, evaluating
from llm_core.validation import whole


@dataclass(frozen=True)
class DraftCost:
    """Seconds of a pass over one row, of one over 1 + guesses rows, and of making the guesses, each the median of some.

    guesses: how many the draft made here, which may be fewer than it was asked for.
    """

    guesses: int
    one_row: float
    all_rows: float
    guessing: float

    @property
    def c(self) -> float:
        """What a pass with guesses costs more than a plain one, in plain passes."""
        return (self.all_rows + self.guessing) / self.one_row - 1


@dataclass(frozen=True)
class Tally:
    """What passes brought. passes: those behind the prompt's own; checking: how many of them had guesses to check."""

    passes: int
    checking: int
    guesses: int
    accepted: int

    @property
    def p(self) -> float:
        """The share of guesses that stood; 0 if there were none. Those behind a wrong one did not."""
        return self.accepted / self.guesses if self.guesses else 0.0

    @property
    def brings(self) -> float:
        """Tokens of a pass with guesses: its own and those that stood. 1 + p where it checks one guess."""
        return 1 + self.accepted / self.checking if self.checking else 1.0

    @property
    def tokens_a_pass(self) -> float:
        """Over all passes, also those for which the draft had no guess."""
        return (self.passes + self.accepted) / self.passes if self.passes else 1.0

    def speed_up(self, c: float) -> float:
        """What this should be worth: plain passes for the same tokens, over passes of which the checking cost 1 + c."""
        return (self.passes + self.accepted) / (self.passes + self.checking * c) if self.passes else 1.0


def tally(passes: Iterable[Pass]) -> Tally:
    """Of what `speculate` yielded. The first pass reads the prompt, as plain writing does, and is left out."""
    behind = list(passes)[1:]
    return Tally(len(behind), sum(bool(done.drafted) for done in behind), sum(len(done.drafted) for done in behind),
                 sum(done.accepted for done in behind))


@torch.inference_mode()
def draft_cost(model: LanguageModel, draft: Draft, token_ids: Sequence[int], guesses: int = 1,
               sampler: Sampler = greedy, tries: int = 10) -> DraftCost:
    """Measure at the end of a text [T]: its last 1 + guesses tokens are read anew, all at once and one alone.

    ValueError for a text of fewer than 3 + guesses tokens.
    """
    whole("guesses", guesses)
    whole("tries", tries)
    text = torch.as_tensor(token_ids, dtype=torch.long)
    start = len(text) - 1 - guesses
    if start < 2:
        raise ValueError(f"{guesses} guesses are measured behind a text of at least {guesses + 3} tokens, and there "
                         f"are {len(text)}")
    with evaluating(model, draft):
        cache = model.new_cache(1, len(text))
        hidden = model(text[None, :start], cache).hidden

        def read(rows: int) -> None:
            model(text[None, start:start + rows], cache, last_only=rows == 1)
            cache.truncate(start)

        def guess(known: int) -> list[int]:
            return draft.propose(text[:known], hidden[:, :known - 1], guesses, sampler).tokens

        made = len(guess(start + 1))
        costs = []
        for _ in range(tries):
            guess(start)  # so that the next one has one new token to read, as after a pass whose guess was rejected
            costs.append([_seconds(work, given) for work, given in ((read, 1), (read, 1 + made), (guess, start + 1))])
    return DraftCost(made, *map(median, zip(*costs)))


def _seconds(work: Callable[[int], object], given: int) -> float:
    start = time.perf_counter()
    work(given)
    return time.perf_counter() - start
