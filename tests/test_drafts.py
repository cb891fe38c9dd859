"""Drafts: each follows from the text alone, whatever it keeps, and says truly what it drew from."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_core import generate
from llm_core.drafts import BigramDraft, ModelDraft, MTPDraft, PromptLookupDraft
from llm_core.sampling import Sampler, greedy
from tests.test_mtp import build
from tests.tiny_configs import some_ids

V = 61


@pytest.mark.parametrize("name", ["GPT-2", "GQA", "DeepSeek-V3"])
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(2, 20), st.integers(0, 3)), min_size=2, max_size=6), st.integers(1, 3))
def test_mtp_drafts_follow_from_the_text_alone(name, calls, depth):
    """A kept cache never shows: texts that grow, shrink and branch, against predict_ahead on text and guesses."""
    model = build(name, depth)
    draft = MTPDraft(model)
    with torch.no_grad():
        for length, seed in calls:
            text = torch.cat([some_ids(1, 9)[0], some_ids(1, 20, seed)[0]])[:length]
            got = draft.propose(text, model(text[None]).hidden[:, :-1], depth, greedy)
            whole = torch.cat([text, torch.tensor(got.tokens)])[None]
            ahead = model.predict_ahead(model(whole).hidden, whole)
            assert got.tokens == [a.logits[0, length - 2].argmax().item() for a in ahead]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(2, 20), st.integers(0, 3)), min_size=2, max_size=6))
def test_a_draft_model_follows_the_text_alone(calls):
    model = build("MLA", 0)
    draft = ModelDraft(model)
    with torch.no_grad():
        for length, seed in calls:
            text = torch.cat([some_ids(1, 9)[0], some_ids(1, 20, seed)[0]])[:length]
            got = draft.propose(text, None, 4, greedy)
            assert got.tokens == generate(model, text, 4)[0, length:].tolist()


def test_drafts_shape_their_q_as_the_sampler_does():
    model, text = build("MHA", 2), some_ids(1, 10)[0]
    hidden, sampler = model(text[None]).hidden[:, :-1].detach(), Sampler(0.7, top_k=4, seed=0)
    with torch.no_grad():
        for draft in (MTPDraft(model), ModelDraft(model), BigramDraft(some_ids(1, 5000)[0], V)):
            got = draft.propose(text, hidden, 2, sampler)
            assert got.q.shape == (2, V) and ((got.q > 0).sum(-1) == 4).all()
            torch.testing.assert_close(got.q.sum(-1), torch.ones(2))
            assert all(got.q[i, x] > 0 for i, x in enumerate(got.tokens))
        q = ModelDraft(model).propose(text, None, 1, sampler).q
        torch.testing.assert_close(q, sampler.probabilities(model(text[None]).logits[:, -1]))


def test_a_bigram_table_counts_what_followed():
    text = some_ids(1, 300)[0] % 7
    draft = BigramDraft(torch.cat([text, torch.tensor([9])]), 12)  # 9 comes last, so nothing follows it
    for last in range(7):
        followers = [b for a, b in zip(text.tolist(), [*text[1:].tolist(), 9], strict=True) if a == last]
        q = draft.propose(torch.tensor([0, last]), None, 1, Sampler(1.0)).q[0]
        torch.testing.assert_close(q, torch.tensor([followers.count(x) / len(followers) for x in range(12)]))
    for last in (8, 9, 11):
        assert draft.propose(torch.tensor([0, last]), None, 3, greedy).tokens == []


@pytest.mark.parametrize(("text", "guess"), [
    ([1, 2, 3, 4, 9, 2, 3], [4, 9, 2]),
    ([1, 2, 7, 1, 2, 8, 1, 2], [8, 1, 2]),  # the latest place
    ([5, 1, 2, 7, 3, 2, 8, 5, 1, 2], [7, 3, 2]),  # three equal tokens before one
    ([4, 4], [4]),
    ([1, 2, 3], []),
    ([1], [])])
def test_prompt_lookup_copies_what_followed_the_same_words(text, guess):
    got = PromptLookupDraft(10).propose(torch.tensor(text), None, 3, Sampler(1.0))
    assert got.tokens == guess
    assert torch.equal(got.q, torch.eye(10)[guess])
