"""How often guesses would stand: place by place, and against the rule that accepts them."""

import pytest
import torch

from llm_core.acceptance import Acceptance, draft_acceptance, expected_tokens, mtp_acceptance, overlap, together
from llm_core.drafts import ModelDraft, MTPDraft, PromptLookupDraft
from llm_core.sampling import Sampler
from llm_core.speculative import verify
from tests.test_mtp import build
from tests.tiny_configs import some_ids

V = 61


def test_overlap_by_hand():
    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2]])
    q = torch.tensor([[0.4, 0.1, 0.5], [0.2, 0.7, 0.1], [0.0, 0.0, 0.0]])
    got = overlap(p, q)
    assert got.greedy == pytest.approx(1 / 3) and got.positions == 3
    assert got.expected == pytest.approx((0.4 + 0.1 + 0.2 + 0.1 + 0.7 + 0.1) / 3)


def test_teacher_forced_acceptance_of_each_depth_position_by_position():
    model, ids = build("DeepSeek-V3", 2, std=0.1), some_ids(2, 16)
    p = model(ids).logits.softmax(-1)
    for k, got in enumerate(mtp_acceptance(model, ids), start=1):
        q = model.predict_ahead(model(ids).hidden, ids)[k - 1].logits.softmax(-1)
        same, shared = [], []
        for b in range(2):
            for i in range(16 - k):  # both guess token i + k + 1, the model at position i + k
                same.append(p[b, i + k].argmax() == q[b, i].argmax())
                shared.append(sum(min(p[b, i + k, x].item(), q[b, i, x].item()) for x in range(V)))
        assert got.positions == len(same)
        assert got.greedy == pytest.approx(sum(same).item() / len(same), abs=1e-6)
        assert got.expected == pytest.approx(sum(shared) / len(shared), abs=1e-5)


def test_acceptance_of_any_draft_is_measured_alike():
    model, ids = build("MLA", 1, std=0.1).train(), some_ids(1, 24)
    one, = mtp_acceptance(model, ids)
    other = draft_acceptance(model, MTPDraft(model), ids[0])
    assert (other.greedy, other.positions) == (pytest.approx(one.greedy), one.positions)
    assert other.expected == pytest.approx(one.expected, abs=1e-5)
    itself = draft_acceptance(model, ModelDraft(model), ids[0])
    assert itself.greedy == 1 and itself.expected == pytest.approx(1, abs=1e-5)
    assert model.training


def test_acceptance_of_a_sure_guess_is_the_models_probability_for_it():
    """And a place without a guess counts as none accepted: before token 4 comes again, nothing can be looked up."""
    model, ids = build("MHA", 0, std=0.1), torch.tensor([4, 8, 2, 4, 8])
    p = model(ids[None]).logits[0].softmax(-1)
    got = draft_acceptance(model, PromptLookupDraft(V), ids)  # 8 behind the second 4, 2 behind the second 8
    assert got.expected == pytest.approx((p[3, 8] + p[4, 2]).item() / 4, rel=1e-5) and got.positions == 4
    assert got.greedy == sum([(p[3].argmax() == 8).item(), (p[4].argmax() == 2).item()]) / 4
    assert draft_acceptance(model, PromptLookupDraft(V), torch.arange(20)).expected == 0


def test_several_texts_count_by_their_positions():
    got = together([Acceptance(0.5, 0.2, 10), Acceptance(0.8, 0.8, 30)])
    assert (got.greedy, got.expected, got.positions) == (pytest.approx(0.725), pytest.approx(0.65), 40)


def test_expected_tokens_is_the_closed_form_and_what_a_draft_of_that_rate_brings():
    for alpha, gamma in ((0.0, 4), (0.5, 1), (0.8, 4), (0.99, 7)):
        assert expected_tokens(alpha, gamma) == pytest.approx((1 - alpha ** (gamma + 1)) / (1 - alpha))
    assert expected_tokens(1.0, 4) == 5
    sampler, brought = Sampler(1.0, seed=0), 0
    p = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0]).expand(4, -1)
    q = torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15]).expand(3, -1)  # three guesses, alpha = 0.1 + 0.2 + 0.2 + 0.1
    for _ in range(4000):
        brought += 1 + verify(p, q, sampler.draw(q).tolist(), sampler)[0]
    assert brought / 4000 == pytest.approx(expected_tokens(0.6, 3), abs=0.08)
