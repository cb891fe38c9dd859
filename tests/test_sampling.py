"""Sampling against closed forms, and the values that break a careless sampler."""

import pytest
import torch

from llm_core.sampling import Sampler, greedy

LOGITS = torch.tensor([[2.0, 1.0, 0.5, -1.0, 2.5]])


def test_temperature_divides_the_logits():
    torch.testing.assert_close(Sampler(0.5).probabilities(LOGITS), (LOGITS / 0.5).softmax(-1))


def test_temperature_zero_is_argmax_and_tiny_ones_do_not_overflow():
    assert greedy(LOGITS).tolist() == [4]
    assert Sampler(0).probabilities(LOGITS).tolist() == [[0, 0, 0, 0, 1]]
    assert Sampler(1e-30, seed=0)(LOGITS * 1e30).tolist() == [4]
    for tiny in ({"temperature": 5e-300}, {"top_p": 5e-300}):  # 0 in 32 bits
        assert Sampler(**tiny, seed=0)(LOGITS).tolist() == [4]


def test_top_k_keeps_k_and_more_than_all_is_all():
    p = Sampler(1.0, top_k=2).probabilities(LOGITS)
    assert (p > 0).tolist() == [[True, False, False, False, True]]
    torch.testing.assert_close(p[0, [0, 4]], LOGITS[0, [0, 4]].softmax(-1))
    torch.testing.assert_close(Sampler(1.0, top_k=999).probabilities(LOGITS), LOGITS.softmax(-1))


def test_top_k_keeps_exactly_k_of_equal_logits():
    assert (Sampler(1.0, top_k=2).probabilities(torch.zeros(1, 5)) > 0).sum() == 2


def test_top_p_keeps_the_fewest_that_reach_p():
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    for top_p, kept in ((0.4, 1), (0.5, 1), (0.51, 2), (0.8, 2), (0.9, 3), (1.0, 4), (1e-9, 1)):
        got = Sampler(1.0, top_p=top_p).probabilities(p.log())
        assert (got > 0).sum() == kept, top_p
        torch.testing.assert_close(got[0, :kept], p[0, :kept] / p[0, :kept].sum())


def test_drawn_tokens_follow_the_distribution():
    sampler = Sampler(0.8, top_k=4, seed=0)
    wanted = sampler.probabilities(LOGITS)[0]
    drawn = sampler(LOGITS.expand(20000, -1)).bincount(minlength=5) / 20000
    assert (drawn - wanted).abs().max() < 4 * (0.25 / 20000) ** 0.5  # four standard deviations
    assert drawn[3] == 0


def test_same_seed_same_tokens():
    rows = LOGITS.expand(50, -1)
    assert torch.equal(Sampler(1.0, seed=7)(rows), Sampler(1.0, seed=7)(rows))
    assert not torch.equal(Sampler(1.0, seed=7)(rows), Sampler(1.0, seed=8)(rows))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": -1}, "temperature must be 0 or more"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.5}, "top_p must be"),
    ],
)
def test_impossible_options_get_a_sentence(options, says):
    with pytest.raises(ValueError, match=says):
        Sampler(**options)
