"""The router that learns step by step, against loops over tokens and Adam written out, and what it is there to show."""

import math
import threading

import pytest
import torch
import torch.nn.functional as F

from llm_core import balancing_steps as steps
from llm_core.balancing_steps import Run, Setting


def by_hand(setting: Setting, n_steps: int) -> list[tuple[list[int], list[float], float]]:
    """Load, bias and error of each step: token by token, each with its experts one after another; Adam by its paper."""
    source = Run(setting)  # for the first weights and the tokens alone
    weights = [w.detach().clone().requires_grad_(True) for w in
               (source.router.weight, source.experts.gate, source.experts.up, source.experts.down)]
    rates = (steps.ROUTER_RATE, *[steps.EXPERT_RATE] * 3)
    m, v = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
    bias, out = [0.0] * steps.EXPERTS, []
    for step in range(1, n_steps + 1):
        x, target = source.tokens()
        router, gate, up, down = weights
        load, error, best, share = [0] * steps.EXPERTS, 0.0, [0] * steps.EXPERTS, 0.0
        for token, wanted in zip(x, target):
            scores = torch.sigmoid(router @ token)
            order = sorted(range(steps.EXPERTS), key=lambda e: -(scores[e].item() + bias[e]))[:steps.CHOSEN]
            total = sum(scores[e] for e in order)
            said = sum(scores[e] / total * (down[e] @ (F.silu(gate[e] @ token) * (up[e] @ token))) for e in order)
            error = error + ((said - wanted) ** 2).mean() / len(x)
            share = share + scores / scores.sum() / len(x)
            for e in order:
                load[e] += 1
            for e in sorted(range(steps.EXPERTS), key=lambda e: -scores[e].item())[:steps.CHOSEN]:
                best[e] += 1
        even = len(x) * steps.CHOSEN / steps.EXPERTS
        loss = error + setting.alpha * sum(n / even * share[e] for e, n in enumerate(best))
        out.append((load, list(bias), error.item()))
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for i, (w, g) in enumerate(zip(weights, gradients)):
                m[i] = 0.9 * m[i] + 0.1 * g
                v[i] = 0.999 * v[i] + 0.001 * g * g
                w -= rates[i] * (m[i] / (1 - 0.9**step)) / ((v[i] / (1 - 0.999**step)).sqrt() + 1e-8)
        bias = [b + setting.gamma * ((n < even) - (n > even)) for b, n in zip(bias, load)]
    return out


@pytest.mark.parametrize("setting", [Setting(seed=3), Setting(gamma=0.02), Setting(alpha=0.5, seed=1)])
def test_it_is_what_loops_by_hand_give(setting):
    for step, (load, bias, error) in zip(Run(setting).until(3), by_hand(setting, 4)):
        assert sum(abs(a - b) for a, b in zip(step.load, load)) <= 4  # two tokens may stand on an edge
        assert step.bias == pytest.approx(bias, abs=1e-6)
        assert step.error == pytest.approx(error, rel=1e-3)
        assert step.imbalance == pytest.approx(max(step.load) * steps.EXPERTS / sum(step.load))


def test_the_bias_follows_from_the_loads():
    path, bias = Run(Setting(gamma=0.01, seed=2)).until(60), [0.0] * 8
    for step in path:
        assert step.bias == pytest.approx(bias, abs=1e-5)
        moves = step.moves(0.01)
        assert moves == [math.copysign(0.01, 64 - n) if n != 64 else 0 for n in step.load] and step.mean == 64
        bias = [b + move for b, move in zip(bias, moves)]


def last(setting: Setting, until: int = 150, over: int = 20) -> float:
    """The imbalance, mean of the last steps."""
    return sum(step.imbalance for step in steps.run(setting).until(until)[-over:]) / over


@pytest.mark.parametrize("seed", [0, 1])
def test_left_alone_it_collapses_and_bias_and_loss_flatten_it(seed):
    alone, bias, loss = last(Setting(seed=seed)), last(Setting(0.02, 0, seed)), last(Setting(0, 0.1, seed))
    assert alone > 2.3 and bias < 1.6 and loss < 1.6
    assert last(Setting(0.002, 0, seed), 60) > last(Setting(0.02, 0, seed), 60)  # too slow to be there yet


def test_the_same_seed_is_the_same_run_however_far_one_looks_at_a_time():
    setting = Setting(gamma=0.02, seed=7)
    at_once, bit_by_bit = Run(setting).until(30), Run(setting)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    for step in range(31):
        bit_by_bit.until(step)
    assert bit_by_bit.until(30) == at_once and len(bit_by_bit.until(10)) == 11
    assert torch.equal(torch.random.get_rng_state(), before)
    assert Run(Setting(gamma=0.02, seed=8)).until(5) != at_once[:6]


def test_several_readers_at_once_get_one_run():
    run, found = Run(Setting(gamma=0.02, seed=9)), []
    readers = [threading.Thread(target=lambda n=n: found.append(run.until(n))) for n in (25, 10, 25, 18)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    expected = Run(Setting(gamma=0.02, seed=9)).until(25)
    assert sorted(map(len, found)) == [11, 19, 26, 26] and all(path == expected[:len(path)] for path in found)


@pytest.mark.parametrize("arguments, sentence", [
    ({"gamma": -0.1}, "gamma must be a finite number of at least 0"), ({"alpha": 11.0}, "alpha 11.0 is too large"),
    ({"gamma": float("nan")}, "gamma must be"), ({"seed": -1}, "seed must be a whole number"),
    ({"seed": 2**40}, "too large")])
def test_settings_that_cannot_be(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Setting(**arguments)


def test_there_is_a_last_step():
    with pytest.raises(ValueError, match="step 401 is beyond the last one, 400"):
        Run(Setting()).until(401)
    with pytest.raises(ValueError, match="step must be a whole number of at least 0"):
        Run(Setting()).until(-1)
