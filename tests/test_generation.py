"""generate and stream: one is the other, both stop where they must."""

import pytest
import torch

from llm_core import generate, stream
from llm_core.sampling import Sampler
from tests.tiny_configs import build, some_ids


def test_generate_is_the_stream_put_together():
    model, ids = build("DeepSeek-V3"), some_ids(2, 5)
    steps = list(stream(model, ids, 8))
    assert torch.equal(torch.stack([s.token for s in steps], 1), generate(model, ids, 8)[:, 5:])
    assert [s.cached for s in steps] == list(range(5, 13))
    assert all(torch.equal(s.logits.argmax(-1), s.token) for s in steps)


def test_a_list_is_a_batch_of_one_and_zero_tokens_is_the_prompt():
    model = build("MHA")
    assert generate(model, [1, 2, 3], 0).tolist() == [[1, 2, 3]]
    assert generate(model, [1, 2, 3], 4).shape == (1, 7)


def test_generation_ends_when_the_context_is_full():
    """64 positions can be read; one more token can be picked from the last."""
    model = build("MHA")
    for use_cache in (True, False):
        assert generate(model, some_ids(1, 60), 99, use_cache=use_cache).shape == (1, 65)
        assert generate(model, some_ids(1, 64), 99, use_cache=use_cache).shape == (1, 65)


def test_stop_token_ends_the_text():
    model, ids = build("MHA"), some_ids(1, 5)
    text = generate(model, ids, 20)[0, 5:].tolist()
    stop = text[3]
    assert generate(model, ids, 20, stop_token=stop)[0, 5:].tolist() == text[: text.index(stop) + 1]


def test_seeded_sampling_repeats_and_is_the_same_with_and_without_cache():
    model, ids = build("GQA"), some_ids(1, 5)
    texts = [generate(model, ids, 30, Sampler(1.0, seed=3), use_cache=c) for c in (True, True, False)]
    assert torch.equal(texts[0], texts[1]) and torch.equal(texts[0], texts[2])


def test_training_mode_is_put_back_also_when_a_stream_is_left_early():
    model = build("MHA").train()
    steps = stream(model, [1, 2], 10)
    next(steps)
    steps.close()
    assert model.training


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: stream(m, [], 5), "the prompt is empty"),
        (
            lambda m: stream(m, list(range(60)) + [0] * 5, 5),
            "the prompt has 65 tokens, the model's context holds 64; keep the last 64",
        ),
        (lambda m: stream(m, [1], -1), "max_new_tokens must be 0 or more"),
        (lambda m: stream(m, [1], 5, prefill_chunk=0), "prefill_chunk must be at least 1"),
    ],
)
def test_bad_input_gets_a_sentence_before_anything_runs(call, says):
    with pytest.raises(ValueError, match=says):
        call(build("MHA"))
