"""A model with stacked matrices says what the model says, and keeps what belongs to others alone."""

import copy

import pytest
import torch

from llm_core import generate, load_pretrained, speculate
from llm_core import stacked as stacked_ways
from llm_core.linear import Linear
from llm_core.quantization.model import quantize_model
from llm_core.stacked import TurnedLinear, stack_for_decoding
from tests.tiny_configs import CONFIGS, build


@pytest.mark.parametrize("name", CONFIGS)
def test_same_logits_with_and_without_cache(name):
    model = build(name)
    stacked = stack_for_decoding(model)
    ids = torch.randint(0, model.config.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(stacked(ids).logits, model(ids).logits, atol=1e-4, rtol=1e-4)
        cache = stacked.new_cache(2, 9)
        parts = [stacked(piece, cache).logits for piece in ids.split([4, 1, 1, 3], dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tokens", [1, 2, stacked_ways.FEW, stacked_ways.FEW + 1, 200])
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
def test_experts_few_and_many_tokens(tokens, mode):
    """Both ways of the stacked layer against the plain one, which is tested against a loop elsewhere."""
    layer = build("DeepSeek-V3").blocks[-1].feed_forward
    x = torch.randn(1, tokens, 32, generator=torch.Generator().manual_seed(0))
    with mode():
        out, routing = stack_for_decoding(layer)(x)
        torch.testing.assert_close(out, layer(x)[0], atol=1e-5, rtol=1e-5)
    for precision in (torch.bfloat16, torch.float64):
        with torch.inference_mode():
            layers = stack_for_decoding(layer), copy.deepcopy(layer)
            out, wanted = (one.to(precision)(x.to(precision))[0] for one in layers)
        torch.testing.assert_close(out, wanted, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("rows", [(), (1,), (1, 1), (2,), (1, 3), (0,)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("turned, shape", [(True, (256, 320)), (True, (512, 2048)), (False, (128, 128)),
                                           (False, (1000, 300)), (False, (1024, 2048))])
def test_turned_layers(turned, shape, bias, rows):
    torch.manual_seed(0)
    holder = torch.nn.Sequential(Linear(shape[1], shape[0], bias=bias))
    other, x = stack_for_decoding(holder), torch.randn(*rows, shape[1])
    assert isinstance(other[0], TurnedLinear) == turned and isinstance(holder[0], Linear)
    assert torch.equal(other[0].weight, holder[0].weight)
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with mode():
            torch.testing.assert_close(other(x), torch.nn.functional.linear(x, holder[0].weight, holder[0].bias),
                                       atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_model_given_is_left_alone_and_no_number_is_lost(name):
    model = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    stacked = stack_for_decoding(model)
    with torch.no_grad():
        for p in stacked.parameters():
            p.zero_()
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert sum(p.numel() for p in stacked.parameters()) == sum(p.numel() for p in model.parameters())


def test_a_tied_head_lies_turned_and_is_the_table_still():
    model, _ = load_pretrained("deepseek-mini")
    stacked = stack_for_decoding(model)
    table = stacked.token_embedding.weight
    assert table.T.is_contiguous() and torch.equal(table, model.token_embedding.weight)
    assert model.token_embedding.weight.is_contiguous()
    rows = torch.randn(1, 2, 192, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(stacked.logits(rows), model.logits(rows), atol=1e-4, rtol=1e-4)
    assert sum(p.numel() for p in stacked.parameters()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["gpt-mini", "deepseek-mini"])
def test_texts_of_the_trained_models(name):
    model, tokenizer = load_pretrained(name)
    prompt, stacked = tokenizer.encode("ROMEO:\n"), stack_for_decoding(model)
    text = generate(model, prompt, 40)
    assert torch.equal(generate(stacked, prompt, 40), text)
    if model.mtp:
        guessed = [token for step in speculate(stacked, prompt, 40, gamma=1) for token in step.tokens]
        assert prompt + guessed == text[0].tolist()


@pytest.mark.parametrize("name", ["gpt-mini", "deepseek-mini"])
def test_quantised_stacked_or_not(name):
    """One scale for each output: stacking outputs changes no code. And codes lie as the kernels read them."""
    model = load_pretrained(name)[0]
    assert all(buffer.is_contiguous() for buffer in quantize_model(stack_for_decoding(model)).buffers())
    ids = torch.randint(0, model.config.vocab_size, (1, 30), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain, stacked = quantize_model(model)(ids).logits, quantize_model(stack_for_decoding(model))(ids).logits
    torch.testing.assert_close(stacked, plain, atol=0.02, rtol=0.02)
