"""What the writing pages share, without a browser: limits, likeliest tokens, and what is said about odd input."""

import time

import pytest
import torch

from apps import writing
from llm_core import presets, tokenizer
from llm_core.generation import generate
from llm_core.model import LanguageModel
from llm_core.sampling import Sampler

COURSE = tokenizer.get("course")
PROMPT = COURSE.encode("A true friend")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LanguageModel(presets.tiny(24, 1, "MLA")).eval()


def test_the_written_text_is_what_generate_gives(model):
    for slowly in (False, True):
        last = list(writing.write(model, COURSE, PROMPT, 12, Sampler(0.8, 50, seed=3), slowly=slowly))[-1]
        ids = generate(model, PROMPT, 12, Sampler(0.8, 50, seed=3))[0].tolist()
        assert COURSE.decode(ids) == "A true friend" + last.text
        assert last.tokens == 12 and last.token == ids[-1] and last.ended == "All 12 tokens are written."


def test_a_seed_writes_the_same_text_again_and_with_more_threads():
    model, words = writing.load("deepseek-mini")
    before, texts = torch.get_num_threads(), []
    for seed, threads in ((3, 1), (3, 1), (3, 2), (4, 1)):
        torch.set_num_threads(threads)
        *_, last = writing.write(model, words, words.encode("ROMEO:\n"), 40, writing.sampler(0.8, 50, 1.0, seed))
        texts.append(last.text)
    torch.set_num_threads(before)
    assert texts[0] == texts[1] == texts[2] != texts[3]


def test_slowly_shows_each_token_and_keeps_to_the_updates_a_browser_can_follow(model):
    start = time.perf_counter()
    seen = list(writing.write(model, COURSE, PROMPT, 6, Sampler(seed=0), slowly=True))
    assert [p.tokens for p in seen] == [1, 2, 3, 4, 5, 6]
    assert time.perf_counter() - start >= 5 / writing.UPDATES_A_SECOND
    assert "".join(p.last for p in seen) == seen[-1].text


def test_texts_that_are_written_together_share_the_updates(model):
    pace = writing.Pace()
    with pace:
        assert pace.pause() == 1 / writing.UPDATES_A_SECOND and pace.pause(most=6) == 1 / 6
        with pace, pace, pace:
            assert pace.pause() == pace.pause(most=6) == 4 / writing.UPDATES_FOR_ALL
    assert pace.texts == 0
    for ends in (list, lambda text: (next(text), text.close())):  # written whole, or left in the middle
        text = writing.write(model, COURSE, PROMPT, 6, Sampler(seed=0), slowly=True)
        ends(text)
        assert writing.PACE.texts == 0


def test_the_page_itself_ends_a_text_that_takes_too_long_or_grows_too_long(model):
    last = list(writing.write(model, COURSE, PROMPT, 50, Sampler(seed=0), max_seconds=0.0))[-1]
    assert last.tokens == 1 and "seconds, this page's limit" in last.ended
    last = list(writing.write(model, COURSE, PROMPT, 10**9, Sampler(seed=0)))[-1]
    assert last.tokens == writing.MAX_NEW_TOKENS


def test_the_context_ends_a_text(model):
    room = model.config.max_seq_len
    last = list(writing.write(model, COURSE, [5] * (room - 3), 50, Sampler(seed=0)))[-1]
    assert last.tokens == 4 and last.ended == f"The context of {room} tokens is full." and last.cached == room


def test_the_model_can_end_its_text(model):
    class AlwaysTheEnd:
        def __call__(self, logits):
            return torch.tensor([COURSE.end_of_text])

    last = list(writing.write(model, COURSE, PROMPT, 9, AlwaysTheEnd()))[-1]
    assert last.text == "" and last.ended == "The model ended its text."


def test_prompts_that_cannot_be_read_get_a_sentence(model):
    with pytest.raises(ValueError, match="the prompt is empty"):
        next(writing.write(model, COURSE, [], 5, Sampler()))
    with pytest.raises(ValueError, match="the prompt has 300 tokens, the model's context holds 256"):
        next(writing.write(model, COURSE, [5] * 300, 5, Sampler()))
    with pytest.raises(ValueError, match="the prompt is empty"):
        writing.next_logits(model, [])


def test_candidates_are_the_models_own_probabilities(model):
    logits = writing.next_logits(model, PROMPT)
    with torch.no_grad():
        expected = model(torch.tensor([PROMPT])).logits[0, -1].softmax(-1)
    rows = writing.candidates(logits, Sampler(0.5, 3), COURSE)
    best = expected.topk(writing.SHOWN)
    assert [row.id for row in rows] == best.indices.tolist()
    assert [row.raw for row in rows] == pytest.approx(best.values.tolist(), abs=1e-6)
    # Temperature 0.5 squares probabilities, and only three of them stay.
    squares = best.values[:3] ** 2
    assert [row.shaped for row in rows] == pytest.approx([*(squares / squares.sum()).tolist(), *[0.0] * 7], abs=1e-5)
    assert writing.can_be_drawn(logits, Sampler(0.5, 3)) == 3


def test_a_chosen_token_is_always_shown(model):
    logits = writing.next_logits(model, PROMPT)
    unlikely = int(logits.argmin())
    rows = writing.candidates(logits, Sampler(), COURSE, unlikely)
    assert len(rows) == writing.SHOWN and rows[-1].id == unlikely and rows[-1].rank == len(logits) and rows[-1].chosen
    rows = writing.candidates(logits, Sampler(), COURSE, int(logits.argmax()))
    assert [row.chosen for row in rows] == [True] + [False] * (writing.SHOWN - 1)


def test_odd_settings_are_explained():
    assert "always takes the likeliest" in writing.remarks(writing.sampler(0), 2048)
    assert "Top-k 5,000 is more than the 2,048 tokens" in writing.remarks(writing.sampler(1, 5000), 2048)
    assert writing.remarks(writing.sampler(1, 2048, 0.9, 1), 2048) == ""
    assert writing.sampler(0.5, 3.0, None, 7.0).top_k == 3
    assert writing.sampler(None, None).temperature == 1


@pytest.mark.parametrize("settings, sentence", [
    ((-1,), "temperature must be 0 or more"),
    ((float("nan"),), "temperature must be 0 or more"),
    ((1, 0), "top_k must be at least 1"),
    ((1, 2.5), "top-k must be a whole number, not 2.5"),
    ((1, None, 0), "top_p must be above 0"),
    ((1, None, None, 1e30), "the seed must be below 2"),
    ((1, float("inf")), "top-k must be a whole number"),
])
def test_settings_that_cannot_be_get_a_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        writing.sampler(*settings)


def test_the_cache_line_has_formula_and_tensors(model):
    assert writing.cache_line(model, 10) == (
        "Cache: (12 latent + 8 rope key) numbers × 1 layer × 10 tokens × 4 bytes = 800 bytes; its tensors: 800 bytes")


def test_text_of_prompt_and_model_cannot_become_markup():
    shown = writing.text_html("<b>&", "x<script>", "<script>")
    assert "<b>" not in shown and "<script>" not in shown and "&lt;b&gt;&amp;" in shown
    row = writing.Candidate(1, 7, "<i> \n", 0.5, 0.25, chosen=True)
    assert "&lt;i&gt;␣↵" in writing.bars_html([row]) and "<i>" not in writing.bars_html([row])
