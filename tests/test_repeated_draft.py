"""One module for many guesses, and what a guess costs by the clock."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_core import generate
from llm_core.draft_cost import draft_cost
from llm_core.drafts import BigramDraft, MTPDraft, PromptLookupDraft
from llm_core.repeated_draft import RepeatedMTPDraft
from llm_core.sampling import Sampler, greedy
from llm_core.speculative import speculate
from tests.test_mtp import build
from tests.tiny_configs import some_ids

V = 61


def by_hand(model, text, count):
    """Without a cache: each guess from all rows anew, those behind the text reading the module's own output."""
    h, known, out = model.final_norm(model(text[None]).hidden)[:, :-1], text, []
    for _ in range(count):
        ahead = model.predict_at_depth(1, h, known[None, 1:])
        out.append(ahead.logits[0, -1].argmax().item())
        known = torch.cat([known, torch.tensor(out[-1:])])
        h = torch.cat([h, ahead.hidden[:, -1:]], dim=1)
    return out


@pytest.mark.parametrize("name", ["GPT-2", "GQA", "DeepSeek-V3"])
@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(2, 20), st.integers(0, 3), st.integers(1, 4)), min_size=2, max_size=6))
def test_repeated_guesses_follow_from_the_text_alone(name, calls):
    model = build(name, 1)
    draft = RepeatedMTPDraft(model)
    with torch.no_grad():
        for length, seed, count in calls:
            text = torch.cat([some_ids(1, 9)[0], some_ids(1, 20, seed)[0]])[:length]
            hidden = model(text[None]).hidden[:, :-1]
            got = draft.propose(text, hidden, count, greedy)
            assert got.tokens == by_hand(model, text, count) and got.q.shape == (count, V)
            assert got.tokens[:1] == MTPDraft(model).propose(text, hidden, 1, greedy).tokens


@pytest.mark.parametrize("gamma", [1, 2, 4])
def test_greedy_text_stays_the_same(gamma):
    model, prompt = build("DeepSeek-V3", 1), some_ids(1, 6)
    got = [t for done in speculate(model, prompt, 20, RepeatedMTPDraft(model, 26), gamma=gamma) for t in done.tokens]
    assert got == generate(model, prompt, 20)[0, 6:].tolist()


def test_q_is_shaped_by_the_sampler():
    model, text = build("MHA", 1), some_ids(1, 10)[0]
    got = RepeatedMTPDraft(model).propose(text, model(text[None]).hidden[:, :-1].detach(), 3, Sampler(0.7, 4, seed=0))
    assert ((got.q > 0).sum(-1) == 4).all() and all(got.q[i, x] > 0 for i, x in enumerate(got.tokens))


def test_a_chain_of_modules_is_told_so():
    with pytest.raises(ValueError, match="2 MTP modules, one for each depth: give MTPDraft"):
        RepeatedMTPDraft(build("MHA", 2))


class Clock:
    """Stands in for time: a pass over r rows takes 10 + r, a guess 3 each."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def test_costs_are_of_the_rows_and_guesses_asked_for(monkeypatch):
    from llm_core import draft_cost as module

    clock, model, ids = Clock(), build("GQA", 1), some_ids(1, 12)[0]
    monkeypatch.setattr(module, "time", clock)
    model.register_forward_hook(lambda m, given, out: setattr(clock, "now", clock.now + 10 + given[0].shape[1]))
    draft = RepeatedMTPDraft(model)
    model.mtp[0].register_forward_hook(lambda *_: setattr(clock, "now", clock.now + 3))
    slow = iter([0, 500])  # the text is read, then one try is held up by something else on the machine
    model.register_forward_hook(lambda *_: setattr(clock, "now", clock.now + next(slow, 0)))
    got = draft_cost(model, draft, ids, 3, tries=3)
    assert (got.guesses, got.one_row, got.all_rows, got.guessing) == (3, 11, 14, 9)
    assert got.c == pytest.approx((14 + 9) / 11 - 1)


@pytest.mark.parametrize("draft", [BigramDraft(torch.arange(60), V), PromptLookupDraft(V)])
def test_costs_of_drafts_without_a_model(draft):
    model = build("GQA", 0)
    got = draft_cost(model, draft, [*range(8), *range(8)], 2, tries=1)
    assert got.guesses == 2 and min(got.one_row, got.all_rows, got.guessing) > 0
    assert draft_cost(model, PromptLookupDraft(V), range(16), 2, tries=1).guesses == 0  # nothing was found
    with pytest.raises(ValueError, match="at least 5 tokens, and there are 4"):
        draft_cost(model, draft, [1, 2, 3, 4], 2)
