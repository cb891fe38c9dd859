"""A model with stacked matrices says what the model says, and keeps what belongs to others alone."""

import pytest
import torch

from llm_core import generate, load_pretrained, speculate
from llm_core.quantization.model import quantize_model
from llm_core.stacked import stack_for_decoding
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
    """One scale for each output: stacking outputs changes no code."""
    model = load_pretrained(name)[0]
    ids = torch.randint(0, model.config.vocab_size, (1, 30), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain, stacked = quantize_model(model)(ids).logits, quantize_model(stack_for_decoding(model))(ids).logits
    torch.testing.assert_close(stacked, plain, atol=0.02, rtol=0.02)
