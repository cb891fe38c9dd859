"""Mutual information of tokens and experts, against closed forms and another way to compute it."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_core.specialisation import by_chance, mutual_information


def by_entropies(tokens, experts):
    """H(token) + H(expert) - H(both)."""
    pairs = [(t, e) for t, row in zip(tokens.tolist(), experts.tolist()) for e in row]

    def entropy(things):
        return -sum(n / len(things) * math.log2(n / len(things)) for n in Counter(things).values())

    return entropy([t for t, _ in pairs]) + entropy([e for _, e in pairs]) - entropy(pairs)


@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
def test_it_is_the_sum_of_entropies(n, k, ids, n_experts, seed):
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(ids, (n,), generator=draw) * 1000
    experts = torch.randint(n_experts, (n, k), generator=draw)
    assert mutual_information(tokens, experts) == pytest.approx(by_entropies(tokens, experts), abs=1e-9)


def test_what_one_can_say_in_the_head():
    tokens = torch.arange(8).repeat(10)
    assert mutual_information(tokens, (tokens % 4)[:, None]) == pytest.approx(2)  # the id decides: log2 of 4
    assert mutual_information(tokens, torch.zeros(80, 1, dtype=torch.long)) == 0
    assert mutual_information(tokens, torch.arange(80)[:, None] // 8 % 2) == pytest.approx(0)


def test_chance_is_more_than_nothing_where_tokens_are_few():
    draw = torch.Generator().manual_seed(0)
    tokens, experts = torch.randint(500, (1000,), generator=draw), torch.randint(8, (1000, 1), generator=draw)
    found, chance = mutual_information(tokens, experts), by_chance(tokens, experts)
    assert chance > 0.5 and found == pytest.approx(chance, rel=0.1)
    assert by_chance(tokens, experts) == chance


@pytest.mark.parametrize("shapes", [((3,), (4, 1)), ((3, 1), (3, 1)), ((3,), (3,)), ((0,), (0, 2))])
def test_shapes_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match="tokens .N. and experts .N, K. are needed"):
        mutual_information(*(torch.zeros(shape, dtype=torch.long) for shape in shapes))
