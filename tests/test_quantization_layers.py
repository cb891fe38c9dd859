"""Quantised layers against 64-bit products of their own weights, and quantised models against the loss before."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llm_core import accounting, data, generate, load_pretrained
from llm_core.moe import Experts
from llm_core.quantization import linear
from llm_core.quantization.integers import quantize, relative_error
from llm_core.quantization.linear import (
    Int4Linear,
    Int8Linear,
    QuantizedExperts,
    QuantizedLinear,
    aligned,
    quantized_linear,
)
from llm_core.quantization.model import quantize_model, weight_bytes
from llm_core.training.evaluate import total_loss
from tests.tiny_configs import CONFIGS, build, some_ids

MINIS = ("gpt-mini", "deepseek-mini")


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("inputs", [1, 13, 16, 24, 40, 192])  # 13 and 24 are sizes that the bare kernel fails on
@pytest.mark.parametrize("rows", [1, 3, linear.FEW_ROWS, 40])
@pytest.mark.parametrize("outputs", [1, 6, 17])
def test_int8_layer_equals_the_product_with_its_weight(inputs, rows, outputs):
    layer = Int8Linear(numbers(outputs, inputs, seed=1), numbers(outputs, seed=2))
    x = numbers(rows, inputs).bfloat16().float()
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    torch.testing.assert_close(layer(x).double(), exact, rtol=0.02, atol=0.02 * exact.abs().max().item())
    weight = numbers(outputs, inputs, seed=1)
    torch.testing.assert_close(layer.weight, quantize(weight, scale_dtype=torch.bfloat16).dequantize())


def test_int8_layer_runs_torchs_kernel_and_does_without(monkeypatch):
    layer, calls, kernel = Int8Linear(numbers(20, 64, seed=1)), [], torch._weight_int8pack_mm
    monkeypatch.setattr(torch, "_weight_int8pack_mm", lambda *a: calls.append(a[0].shape) or kernel(*a))
    x = numbers(2, 3, 64)
    with_kernel = layer(x)
    assert calls == [(6, 64)] and with_kernel.shape == (2, 3, 20)
    monkeypatch.setattr(linear, "kernel_is_there", lambda *_: False)
    torch.testing.assert_close(layer(x), with_kernel, rtol=0.02, atol=0.1)
    assert len(calls) == 1


def test_activations_that_begin_anywhere_are_moved_to_where_the_kernel_can_read_them():
    layer, store = Int8Linear(numbers(8, 32, seed=1)), numbers(4, 200).bfloat16()
    for start in range(5):
        x = store.flatten()[start:start + 64].view(2, 32)
        torch.testing.assert_close(layer(x), layer(x.clone()))
        assert aligned(x).data_ptr() % 64 == 0
    torch.testing.assert_close(layer(store[:, :32]), layer(store[:, :32].clone()))  # rows that are not side by side


@pytest.mark.parametrize("group", [32, 64])
def test_int4_layer_equals_the_product_with_its_weight(group):
    weight, bias = numbers(45, 128, seed=1), numbers(45, seed=2)
    layer = quantized_linear(weight, bias, 4, group)
    assert isinstance(layer, Int4Linear)
    wanted = quantize(weight, 4, group, scale_dtype=torch.bfloat16).dequantize()
    torch.testing.assert_close(layer.weight, wanted, rtol=0.01, atol=0.01)
    x = numbers(3, 5, 128)
    exact = F.linear(x.bfloat16().double(), wanted.double(), bias.double())
    torch.testing.assert_close(layer(x).double(), exact, rtol=0.02, atol=0.02 * exact.abs().max().item())


@pytest.mark.parametrize(("shape", "bits", "per", "kind"), [
    ((48, 128), 8, "channel", Int8Linear), ((48, 128), 4, 32, Int4Linear), ((47, 128), 4, 32, Int4Linear),
    ((48, 120), 4, 32, QuantizedLinear), ((48, 128), 4, 48, QuantizedLinear),
    ((48, 128), 4, "channel", QuantizedLinear), ((48, 128), 8, "tensor", QuantizedLinear),
    ((48, 128), 6, "channel", QuantizedLinear)])
def test_each_weight_gets_the_layer_that_can_hold_it(shape, bits, per, kind):
    weight, x = numbers(*shape, seed=1), numbers(3, shape[1])
    layer = quantized_linear(weight, None, bits, per)
    assert type(layer) is kind
    exact = x @ quantize(weight, bits, per, scale_dtype=torch.bfloat16).dequantize().T
    assert relative_error(exact, layer(x)) < 0.01
    bits_of_codes = -(-shape[1] * bits // 8) * shape[0]
    assert bits_of_codes < weight_bytes(layer) < bits_of_codes + shape[0] * shape[1] / 7


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_experts_equal_a_loop_over_tokens(bits):
    layer = build("DeepSeek-V3").blocks[2].feed_forward
    made = QuantizedExperts(layer.experts, bits, "channel")
    x = numbers(9, 32)
    routing = layer.router(x)
    got = made(x, routing)
    for n in range(9):
        wanted = torch.zeros(32)
        for e, weight in zip(routing.experts[n], routing.weights[n], strict=True):
            gate, up, down = (getattr(made, name)[e].weight for name in ("gate", "up", "down"))
            wanted += weight * (down @ (F.silu(gate @ x[n]) * (up @ x[n])))
        assert relative_error(wanted, got[n]) < 0.03
    assert relative_error(layer.experts(x, routing), got) < {8: 0.04, 4: 0.4}[bits]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_quantised_model_is_near_the_model_and_keeps_what_it_should(name):
    model, ids = build(name), some_ids()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    made = quantize_model(model)
    wanted, got = model(ids).logits, made(ids).logits
    if model.config.moe is None:  # a router near a tie may choose another expert, and then everything is different
        assert relative_error(wanted, got) < 0.05
    assert not [m for n, m in made.named_modules() if isinstance(m, (nn.Linear, Experts)) and "output_head" not in n]
    assert {n for n, _ in made.named_parameters()} == {n for n, _ in model.named_parameters() if any(
        part in n for part in ("embedding", "norm", "output_head", "router"))}
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())  # the model is untouched
    assert not any(p.requires_grad for p in made.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_quantised_head_is_a_matrix_of_its_own(name):
    model, ids = build(name), some_ids()
    made, plain = quantize_model(model, head=True), quantize_model(model)
    assert not made.config.tie_embeddings and isinstance(made.output_head, Int8Linear)
    head = model.token_embedding.weight if model.config.tie_embeddings else model.output_head.weight
    torch.testing.assert_close(made.output_head.weight, quantize(head, scale_dtype=torch.bfloat16).dequantize())
    assert torch.equal(made.token_embedding.weight, model.token_embedding.weight)
    assert relative_error(plain(ids).logits, made(ids).logits) < 0.02


@pytest.mark.parametrize("name", ["GPT-2", "MLA", "DeepSeek-V3"])
@pytest.mark.parametrize("bits", [8, 4])
def test_cached_decoding_equals_uncached(name, bits):
    """Through the kernel with one row and without it with many, and MLA's absorbed way through `weight`."""
    made, ids = quantize_model(build(name), bits), some_ids(1, 12)
    cache = made.new_cache(1)
    steps = torch.cat([made(piece, cache).logits for piece in ids.split(1, dim=1)], dim=1)
    assert relative_error(made(ids).logits, steps) < 0.05
    assert generate(made, ids, 5).shape == (1, 17)


@pytest.fixture(scope="module")
def held_out():
    """Windows of the held-out text, every 60th: about 1,600 tokens."""
    course = load_pretrained("gpt-mini")[1]
    inputs, targets = data.windows(data.tokens(data.shakespeare(), course)[1], 256)
    return inputs[::60], targets[::60]


@pytest.mark.parametrize("name", MINIS)
def test_held_out_loss_of_the_minis(name, held_out):
    """8 bits: within 1 % (measured: 0.005 %). 4 bits in groups of 32: some tenths. 2 bits: broken."""
    model, _ = load_pretrained(name)
    base = total_loss(model, *held_out)
    change = {bits: total_loss(quantize_model(model, bits, per), *held_out) / base - 1
              for bits, per in ((8, "channel"), (4, 32), (3, 32), (2, 32))}
    assert abs(change[8]) < 1e-3
    assert 0.0005 < change[4] < 0.01 < change[3] < 0.03
    assert change[2] > 0.2
    assert abs(total_loss(quantize_model(model, head=True), *held_out) / base - 1) < 1e-3


@pytest.mark.parametrize("name", MINIS)
def test_bytes_of_the_minis(name):
    model, _ = load_pretrained(name)
    counts = accounting.count_parameters(model.config)
    made = quantize_model(model)
    assert weight_bytes(model) == 4 * (counts.total + counts.mtp) + sum(b.nbytes for b in model.buffers())
    linear_weights = sum(m.weight.numel() for name, m in model.named_modules()
                         if isinstance(m, nn.Linear) and not name.endswith("eh_proj"))  # MTP's, which is kept
    linear_weights += sum(p.numel() for m in model.modules() if isinstance(m, Experts) for p in m.parameters())
    outputs = sum(m.shape[0] for m in made.modules() if isinstance(m, Int8Linear))
    saved = 3 * linear_weights - 2 * outputs  # 4 bytes become 1, and each output has a scale of 2
    assert weight_bytes(made) == weight_bytes(model) - saved  # every width of the minis is a multiple of 16
    assert weight_bytes(quantize_model(model, head=True)) - weight_bytes(made) == 2048 * (192 + 2)


def test_what_cannot_be_gets_a_sentence():
    with pytest.raises(ValueError, match="bits must be a whole number from 2 to 8, not 16"):
        quantize_model(build("MHA"), 16)
    with pytest.raises(ValueError, match="per must be tensor, channel, or the size of a group"):
        quantize_model(build("MHA"), 8, "row")
