"""Beyond the trained length: the measurement itself, and what the shipped models do there."""

import math

import pytest
import torch
import torch.nn.functional as F

from llm_core import LanguageModel, load_pretrained, past_context, presets
from llm_core.config import YarnConfig
from llm_core.training import copying


def test_stretches_are_means():
    places, values = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([1.0, 3.0, 5.0, 7.0, 100.0])
    curve = past_context.in_stretches(places, values, [2, 4, 6, 8])
    assert curve.ends == [2, 4, 6, 8] and curve.counts == [2, 2, 1, 0]
    assert curve.values[:3] == [2, 6, 100] and math.isnan(curve.values[3])
    assert curve.mean() == pytest.approx(116 / 5) and curve.mean(upto=4) == 4 and curve.mean(after=2) == 112 / 3
    assert curve.mean(after=2, upto=4) == 6


def test_a_stretched_model_shares_its_weights_and_is_the_same_within_its_context():
    torch.manual_seed(0)
    model = LanguageModel(presets.tiny(48, 2, "MLA").replace(max_seq_len=16, init_std=0.3)).eval()
    longer, ids = past_context.stretched(model, 1, 64), torch.randint(0, 100, (1, 16))
    assert longer.config.max_seq_len == 64 and longer.config.rope.scaling is None
    assert longer.token_embedding.weight.data_ptr() == model.token_embedding.weight.data_ptr()
    assert torch.equal(longer(ids).logits, model(ids).logits)
    yarn = past_context.stretched(model, 4, 64)
    assert yarn.config.rope.scaling == YarnConfig(4.0, 16) and model.config.rope.scaling is None
    assert not torch.allclose(yarn(ids).logits, model(ids).logits, atol=1e-3)
    with pytest.raises(ValueError, match="learned positions"):
        past_context.stretched(load_pretrained("gpt-mini")[0], 4, 1024)


def test_loss_by_position_is_cross_entropy_token_by_token():
    torch.manual_seed(0)
    model = LanguageModel(presets.tiny(48, 2, "GQA").replace(init_std=0.3)).eval()
    texts = torch.randint(0, model.config.vocab_size, (3, 13))
    curve = past_context.loss_by_position(model, texts, [6, 12])
    with torch.no_grad():
        one_by_one = [[F.cross_entropy(model(row[None, :t]).logits[0, -1], row[t]).item() for t in range(1, 13)]
                      for row in texts]
    for i, cut in enumerate((slice(0, 6), slice(6, 12))):
        wanted = torch.tensor([row[cut] for row in one_by_one]).mean().item()
        assert curve.values[i] == pytest.approx(wanted, abs=1e-4) and curve.counts[i] == 18


def test_recall_is_the_share_of_right_answers_by_distance():
    class Guesser(torch.nn.Module):  # always says value 30
        def forward(self, ids):
            return type("Out", (), {"logits": F.one_hot(torch.full_like(ids, 30), 64).float()})

    curve = past_context.recall_by_distance(Guesser(), 4, 256, [64, 128, 256], seed=5)
    _, targets, back = copying.texts(4, 256, seed=5)
    far, right = back[targets >= 0], targets[targets >= 0] == 30
    assert sum(curve.counts) == 96 == len(far) and curve.counts[0] == (far <= 64).sum()
    assert curve.values[1] == pytest.approx(right[(far > 64) & (far <= 128)].float().mean().item())


def test_yarn_carries_a_model_as_far_as_its_factor():
    """What the page shows of the copying model: right within its context, lost beyond, and found again by YaRN."""
    plain, two, four = (past_context.measure("copying", factor) for factor in (1, 2, 4))
    assert past_context.trained_context("copying") == 1024 and plain.ends[-1] == 4096
    assert plain.mean(upto=1024) > 0.97 and plain.mean(after=1536) < 0.2
    assert two.mean(upto=1792) > 0.9 and two.mean(after=3072) < 0.3
    assert four.mean() > 0.9
    assert past_context.measure("copying", 4) is four  # remembered


@pytest.mark.slow
def test_text_becomes_dear_beyond_the_context_without_yarn():
    plain, four = past_context.measure("deepseek-mini", 1), past_context.measure("deepseek-mini", 4)
    within = plain.mean(upto=256)
    assert plain.mean(after=256) > within + 1 and four.mean(after=256) < within + 0.4
    texts = past_context.held_out(1025, 8)
    assert texts.shape == (8, 1025) and len({tuple(row.tolist()) for row in texts}) == 8


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda: past_context.measure("gpt-mini", 2), "the model must be one of deepseek-mini, copying, not 'gpt-mini'"),
    (lambda: past_context.measure("copying", 3), "the factor must be one of 1, 2, 4, 8, not 3")])
def test_what_cannot_be_measured_is_said(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
