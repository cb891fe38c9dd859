"""A trained model's latent made smaller: what is measured, and what was recorded."""

import numpy as np
import pytest
import torch

from llm_core import low_rank, pretrained, shrinking
from llm_core.accounting import cache_bytes_per_token
from llm_core.attention.latent import LatentAttention
from llm_core.generation import generate
from llm_core.shrinking import SMOLLM2, SUBJECTS


@pytest.fixture(scope="module")
def mini():
    return pretrained.load_pretrained("gpt-mini")


def test_the_loss_is_the_mean_of_minus_log_shares(mini):
    model, tokenizer = mini
    ids = shrinking.held_out("gpt-mini", tokenizer)
    assert ids.shape == (SUBJECTS["gpt-mini"].pieces, shrinking.PIECE + 1)
    with torch.no_grad():
        logits = model(ids[:, :-1]).logits.double().numpy()
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    right = np.take_along_axis(shares, ids[:, 1:, None].numpy(), axis=-1)
    assert shrinking.mean_loss(model, ids) == pytest.approx(-np.log(right).mean(), abs=1e-4)


def test_the_directions_come_from_other_text_than_the_loss(mini):
    _, tokenizer = mini
    learned = shrinking.data.shakespeare().train[0][:8 * shrinking.LEARN_FROM]
    for row in shrinking.held_out("gpt-mini", tokenizer):
        assert tokenizer.decode(row.tolist())[:60] not in learned


@pytest.mark.parametrize("method, rank", [("plain", 64), ("data", 64), ("data", 384)])
def test_what_was_recorded_of_the_mini_is_measured_again(mini, method, rank):
    model, tokenizer = mini
    found = shrinking.directions(model, tokenizer, method)
    small = shrinking.shrunk(model, found, rank)
    [then] = [m for m in shrinking.recorded("gpt-mini")[method] if m.rank == rank]
    assert isinstance(small.blocks[0].attention, LatentAttention)
    assert shrinking.mean_loss(small, shrinking.held_out("gpt-mini", tokenizer)) == pytest.approx(then.loss, abs=5e-3)
    assert shrinking.kept(found, rank) == pytest.approx(then.kept, abs=1e-3)
    assert small.new_cache(1, 1).nbytes == shrinking.cache_bytes("gpt-mini", rank, bits=32)


def test_moments_are_not_listened_to_on_the_model_that_others_use(mini, monkeypatch):
    model, tokenizer = mini
    given = []
    monkeypatch.setattr(low_rank, "input_moments", lambda m, ids: given.append((m, ids)) or [
        torch.eye(m.config.d_model, dtype=torch.float64)] * m.config.n_layers)
    shrinking.directions(model, tokenizer, "data")
    [(twin, ids)] = given
    assert twin is not model and ids.numel() == shrinking.LEARN_FROM
    assert twin.token_embedding.weight.data_ptr() == model.token_embedding.weight.data_ptr()


@pytest.mark.parametrize("name", SUBJECTS)
def test_records_are_whole_and_begin_with_a_model_that_loses_nothing(name):
    recorded, subject = shrinking.recorded(name), SUBJECTS[name]
    for rows in recorded.values():
        assert tuple(m.rank for m in rows) == subject.ranks
        assert rows[0].kept == 1 and rows[0].loss == pytest.approx(recorded["plain"][0].loss, abs=2e-3)
        assert [m.kept for m in rows] == sorted((m.kept for m in rows), reverse=True)
    assert all(data.loss <= plain.loss + 5e-3 for plain, data in zip(recorded["plain"], recorded["data"]))
    assert subject.ranks[0] == low_rank.full_rank(shrinking.config_of(name))
    assert shrinking.cache_bytes(name, subject.ranks[0]) == shrinking.cache_bytes(name)
    assert shrinking.cache_bytes(name) == cache_bytes_per_token(shrinking.config_of(name))


def test_the_capital_of_france():
    said = {method: {m.rank: m.text for m in rows} for method, rows in shrinking.recorded(SMOLLM2).items()}
    assert said["plain"][256].startswith(" Paris") and "Paris" not in said["plain"][224]
    assert all(said["data"][rank].startswith(" Paris") for rank in SUBJECTS[SMOLLM2].ranks if rank >= 128)


@pytest.mark.slow
def test_smollm2_says_what_was_recorded():
    model, tokenizer = pretrained.load_pretrained(SMOLLM2)
    ids, found = tokenizer.encode(SUBJECTS[SMOLLM2].prompt), low_rank.factors(model)
    for rank, knows in ((256, True), (224, False)):
        text = tokenizer.decode(generate(shrinking.shrunk(model, found, rank), ids, 3)[0, len(ids):].tolist())
        assert ("Paris" in text) is knows


@pytest.mark.parametrize("call, sentence", [
    (lambda: shrinking.check("gpt-mini", 100), "rank 100 was not tried with gpt-mini; nearest: 96, 128"),
    (lambda: shrinking.check("gpt-mini", None), "rank must be a whole number"),
    (lambda: shrinking.check("gpt2", 64), "model must be one of"),
    (lambda: shrinking.recorded("gpt2"), "model must be one of"),
    (lambda: shrinking.directions(None, None, "best"), "method must be one of plain, data"),
])
def test_what_cannot_be_is_said(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
