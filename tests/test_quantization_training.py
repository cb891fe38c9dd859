"""FP8 linear layers for training: each of the three products against one written out, and a model that learns."""

import pytest
import torch
import torch.nn.functional as F

from llm_core import LanguageModel
from llm_core.data import batch_at
from llm_core.quantization.fp8 import dequantize_tiles, quantize_tiles
from llm_core.quantization.fp8_training import Fp8Experts, Fp8Linear, Recipe, fp8_linear, train_in_fp8
from llm_core.quantization.integers import relative_error
from tests.tiny_configs import CONFIGS, build, some_ids


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_tiles(x, columns=128, rows=1, dtype=torch.float8_e4m3fn, largest=448.0):
    """x as FP8 keeps it, tile by tile."""
    out = x.clone()
    for i in range(0, x.shape[0], rows):
        for j in range(0, x.shape[1], columns):
            tile = x[i:i + rows, j:j + columns]
            scale = tile.abs().max() / largest
            out[i:i + rows, j:j + columns] = (tile / scale).to(dtype).float() * scale
    return out


@pytest.mark.parametrize("gradient", ["e4m3", "e5m2"])
def test_fprop_dgrad_and_wgrad_are_the_papers(gradient):
    """Tiles of 128 always lie along what a product sums over: inputs, then outputs, then tokens."""
    x, w, dy = numbers(150, 200).requires_grad_(), numbers(140, 200, seed=1).requires_grad_(), numbers(150, 140, seed=2)
    y = fp8_linear(x, w, recipe=Recipe(gradient_format=gradient))
    y.backward(dy)
    g = {} if gradient == "e4m3" else {"dtype": torch.float8_e5m2, "largest": 57344.0}
    x8, w8 = slow_tiles(x.detach()), slow_tiles(w.detach(), 128, 128)
    torch.testing.assert_close(y, x8 @ w8.T, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(x.grad, slow_tiles(dy, **g) @ w8, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(w.grad, slow_tiles(dy.T, **g) @ slow_tiles(x8.T).T, atol=1e-3, rtol=1e-5)


def test_gradients_point_where_exact_ones_do():
    x, w, b = numbers(2, 60, 200).requires_grad_(), numbers(140, 200, seed=1).requires_grad_(), torch.zeros(140)
    b.requires_grad_()
    exact = torch.autograd.grad(F.linear(x, w, b).square().sum(), (x, w, b))
    got = torch.autograd.grad(fp8_linear(x, w, b).square().sum(), (x, w, b))
    for wanted, gradient in zip(exact, got, strict=True):
        assert 0.005 < relative_error(wanted, gradient) < 0.08
    only_w = torch.autograd.grad(fp8_linear(x.detach(), w).square().sum(), w)[0]
    torch.testing.assert_close(only_w, torch.autograd.grad(fp8_linear(x, w).square().sum(), w)[0])


def test_one_scale_fails_where_tiles_stand():
    x, w = numbers(64, 256), numbers(32, 256, seed=1)
    x[5, 40] = 1e6
    exact, rows = F.linear(x, w), torch.arange(64) != 5
    assert relative_error(exact[rows], fp8_linear(x, w)[rows]) < 0.05
    assert relative_error(exact[rows], fp8_linear(x, w, recipe=Recipe(None, None))[rows]) > 0.7


@pytest.mark.parametrize("name", ["GPT-2", "DeepSeek-V3"])
def test_a_model_in_fp8_has_the_same_tensors_and_keeps_what_v3_keeps(name):
    model = build(name)
    made = train_in_fp8(model)
    assert {k: v.shape for k, v in made.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    kinds = {n: type(m) for n, m in made.named_modules()}
    assert sum(k is Fp8Linear for k in kinds.values()) > 10
    assert sum(k is Fp8Experts for k in kinds.values()) == model.config.n_moe_layers
    assert kinds.get("output_head") is not Fp8Linear
    assert not any(isinstance(m, (Fp8Linear, Fp8Experts)) for m in model.modules())  # the model is untouched
    if name == "GPT-2":
        assert 0.01 < relative_error(model(some_ids()).logits, made(some_ids()).logits) < 0.15


def test_fp8_experts_equal_the_experts_on_rounded_numbers():
    layer = build("DeepSeek-V3").blocks[2].feed_forward
    routing = layer.router(numbers(40, 32))
    made = train_in_fp8(build("DeepSeek-V3")).blocks[2].feed_forward.experts
    error = relative_error(layer.experts(numbers(40, 32), routing), made(numbers(40, 32), routing))
    assert 0.01 < error < 0.1
    made(numbers(40, 32), routing).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in made.parameters())


def losses(model, steps=40):
    text = torch.arange(4000) ** 2 % 61  # a text with a period
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    out = []
    for step in range(steps):
        x, y = batch_at(text, step, 2, 32, seed=0)
        loss = F.cross_entropy(model(x).logits.flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        out.append(loss.item())
    return sum(out[-5:]) / 5


@pytest.mark.parametrize("name", ["GPT-2", "DeepSeek-V3"])
def test_a_model_learns_in_fp8_as_it_does_in_32_bits(name):
    torch.manual_seed(0)
    model = LanguageModel(CONFIGS[name].replace(n_layers=2))
    in_fp8 = losses(train_in_fp8(model))
    exact = losses(model)
    assert exact < 3.0 < 4.1  # log 61 is where it began
    assert abs(in_fp8 / exact - 1) < 0.08


def test_an_unknown_format_gets_a_sentence():
    with pytest.raises(ValueError, match="format must be one of e4m3, e5m2, not 'e8m0'"):
        Recipe(format="e8m0")


def test_a_gradient_that_is_no_number_gets_a_sentence():
    y = fp8_linear(numbers(2, 8).requires_grad_(), numbers(4, 8))
    with pytest.raises(ValueError, match="holds NaN or inf"):
        y.backward(torch.full_like(y, float("inf")))
    assert torch.isfinite(dequantize_tiles(*quantize_tiles(numbers(2, 8)))).all()
