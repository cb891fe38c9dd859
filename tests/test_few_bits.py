"""What few bits do to a real model: held-out text, loss, bytes and texts against plain ways of finding them."""

import math

import pytest
import torch
import torch.nn.functional as F

from llm_core import few_bits, generate, load_pretrained
from llm_core.data import shakespeare
from llm_core.moe import Experts
from llm_core.quantization.model import quantize_model


@pytest.fixture(scope="module")
def gpt():
    return load_pretrained("gpt-mini")


def test_the_text_is_held_out_and_loss_is_cross_entropy(gpt):
    model, tokenizer = gpt
    inputs, targets = few_bits.held_out(tokenizer)
    assert inputs.shape == targets.shape == (4, 256) and torch.equal(inputs[:, 1:], targets[:, :-1])
    ends = shakespeare().held_out
    for row in inputs:
        assert sum(end.startswith(tokenizer.decode(row.tolist())[:200]) for end in ends) == 1
    with torch.no_grad():
        by_hand = F.cross_entropy(model(inputs).logits.flatten(0, 1), targets.flatten()).item()
    assert few_bits.loss(model, (inputs, targets)) == pytest.approx(by_hand, abs=1e-4)
    assert few_bits.blind_loss(model) == pytest.approx(math.log(2048))
    assert few_bits.lost(4.0, 3.0, 7.0) == 0.25 and few_bits.lost(9.0, 3.0, 7.0) > 1


@pytest.mark.parametrize("name", ["gpt-mini", "deepseek-mini"])
def test_size_is_that_of_the_exchanged_layers(name):
    model, _ = load_pretrained(name)
    weights = 0
    for part, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and not part.endswith(("output_head", "eh_proj")):
            weights += module.in_features * module.out_features
        elif isinstance(module, Experts):
            weights += sum(p.numel() for p in module.parameters())
    assert few_bits.size(model, 16) == few_bits.Size(weights, 2 * weights)
    small = few_bits.size(quantize_model(model, 4, "tensor"))
    assert small.weights == weights and 4 <= small.bits_a_weight < 4.01
    rows = few_bits.size(quantize_model(model, 8, 64))  # at 2 bytes for each 64 numbers, or fewer at a row's end
    assert 8.25 <= rows.bits_a_weight < 8.3


def test_which_layers_run_on_kernels(gpt):
    model, _ = gpt
    assert few_bits.on_kernels(quantize_model(model, 8, "channel"))
    assert not few_bits.on_kernels(quantize_model(model, 3, "channel"))
    assert not few_bits.on_kernels(model)


def test_models_that_write_in_turns_write_what_they_write_alone(gpt):
    model, tokenizer = gpt
    small = quantize_model(model, 4, "tensor")
    both = few_bits.write_in_turns((model, small), tokenizer, "A true friend", 12, max_seconds=60)
    ids = tokenizer.encode("A true friend")
    for written, alone in zip(both, (model, small), strict=True):
        assert written.ids == generate(alone, ids, 12)[0, len(ids):].tolist()
        assert written.text == tokenizer.decode(written.ids) and written.seconds > 0
    assert both[0].ids != both[1].ids
    short = few_bits.write_in_turns((model,), tokenizer, "A true friend", 12, max_seconds=0)
    assert len(short[0].ids) == 2
    assert len(few_bits.write_in_turns((model,), tokenizer, "A true friend", 12, 0, at_least=5)[0].ids) == 5
    with pytest.raises(ValueError, match="the prompt is empty"):
        few_bits.write_in_turns((model,), tokenizer, "")


def test_matrices(gpt):
    model, _ = gpt
    for name in few_bits.MATRICES:
        x = few_bits.matrix(name, model)
        assert x.dim() == 2 and not x.requires_grad and torch.equal(x, few_bits.matrix(name, model))
    assert few_bits.matrix("random, behind SiLU", model).min() > -0.279  # SiLU's least value
    with pytest.raises(ValueError, match="the matrix must be one of"):
        few_bits.matrix("no such", model)


@pytest.mark.parametrize("make", [few_bits.activations, few_bits.weights])
def test_outliers_of_the_drawn_matrices(make):
    plain, none = make(1)
    spoiled, mask = make(1000)
    assert not none.any() and torch.equal(plain[~mask], spoiled[~mask])
    assert mask.sum() == (256 if make is few_bits.activations else 3)
    assert spoiled[mask].abs().mean() > 300 * plain[~mask].abs().mean()


def test_ratios_of_two_runs_and_the_growth_of_a_loss():
    slow, fast = few_bits.Written("", [], 0.5), few_bits.Written("", [], 0.25)
    assert fast.times_as_fast_as(slow) == 2 and slow.times_as_fast_as(fast) == 0.5
    assert few_bits.grown(3.5, 3.0) == 0.5 and few_bits.grown(3.0, 3.5) == -0.5
    inputs, targets = few_bits.held_out(load_pretrained("gpt-mini")[1])
    assert inputs.numel() == few_bits.held_out_tokens()
