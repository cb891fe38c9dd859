"""The cache: laid out as the formula says, and invisible in the result."""

import pytest
import torch

from llm_core import accounting, generate
from llm_core.cache import Cache
from tests.tiny_configs import CONFIGS, build, some_ids


@pytest.mark.parametrize("name", CONFIGS)
def test_formula_equals_the_bytes_of_real_tensors(name):
    config = CONFIGS[name]
    for dtype, bits in ((torch.float32, 32), (torch.bfloat16, 16)):
        assert Cache(config, 3, 17, dtype=dtype).nbytes == accounting.cache_bytes(config, 3, 17, bits=bits)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cached_greedy_decoding_equals_uncached_token_for_token(name, seed):
    model, ids = build(name, seed), some_ids(2, 20, seed)
    wanted = generate(model, ids, 40, use_cache=False)
    assert wanted.shape == (2, 60)
    assert torch.equal(generate(model, ids, 40), wanted)
    for chunk in (1, 7, 19):
        assert torch.equal(generate(model, ids, 40, prefill_chunk=chunk), wanted)


@pytest.mark.parametrize("name", CONFIGS)
def test_truncate_and_redo_equals_never_done(name):
    model, ids = build(name), some_ids(2, 20)
    cache = model.new_cache(2)
    model(ids[:, :12], cache)
    model(ids[:, 3:9], cache)  # a wrong way
    cache.truncate(12)
    torch.testing.assert_close(model(ids[:, 12:], cache).logits, model(ids).logits[:, 12:], atol=2e-5, rtol=1e-5)


def test_an_uncached_call_in_between_changes_nothing():
    model, ids = build("DeepSeek-V3"), some_ids(1, 20)
    cache = model.new_cache(1)
    model(ids[:, :10], cache)
    model(some_ids(3, 15, seed=9))
    torch.testing.assert_close(model(ids[:, 10:], cache).logits, model(ids).logits[:, 10:], atol=2e-5, rtol=1e-5)


def test_layers_do_not_move_the_length():
    model = build("MHA")
    cache, lengths = model.new_cache(1), []
    for block in model.blocks:
        block.register_forward_hook(lambda *_: lengths.append(cache.length))
    model(some_ids(1, 5), cache)
    assert lengths == [0, 0, 0] and cache.length == 5


def test_a_refused_call_leaves_the_cache_as_it_was():
    model, cache = build("MHA"), build("MHA").new_cache(1, 8)
    model(some_ids(1, 6), cache)
    with pytest.raises(ValueError, match="room for 8 tokens and holds 6; 3 more do not fit, 2 would"):
        model(some_ids(1, 3), cache)
    assert cache.length == 6
    with pytest.raises(ValueError, match="cannot keep 7 positions of a cache that holds 6"):
        cache.truncate(7)


def test_past_the_context_gets_a_sentence():
    model, cache = build("MHA"), build("MHA").new_cache(1, 100)
    model(some_ids(1, 60), cache)
    with pytest.raises(ValueError, match="65 tokens are more than the model's context of 64; 4 more would fit"):
        model(some_ids(1, 5), cache)


@pytest.mark.parametrize("tokens", [10**13, 10**18, 10**30])
def test_more_memory_than_there_is_gets_a_sentence(tokens):
    with pytest.raises(ValueError, match=f"a cache for {tokens:,} tokens takes .* bytes, which cannot be had here"):
        build("MLA").new_cache(1, tokens)


@pytest.mark.parametrize(("batch", "tokens", "sentence"), [
    (1, -5, "max_tokens must be a whole number of at least 0, not -5"),
    (0, 10, "batch must be a whole number of at least 1, not 0"),
    (1, 10.5, "max_tokens must be a whole number of at least 0, not 10.5")])
def test_a_size_that_counts_nothing_is_named(batch, tokens, sentence):
    with pytest.raises(ValueError, match=sentence):
        build("MLA").new_cache(batch, tokens)
