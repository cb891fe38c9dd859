"""Our logits against transformers', tiny random models, positions past 0 and past YaRN's original context."""

import pytest
import torch
from torch import nn

from llm_core.checkpoint.hf_folder import load_hf
from tests.parity.families import FAMILIES, SEEDS, compare, v3, widen


@pytest.mark.parametrize("seed", [pytest.param(s, marks=[pytest.mark.slow] if s else []) for s in SEEDS])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_greedy_tokens_equal_transformers(family, seed):
    found = compare(family, seed)
    assert found.spread > 0.3  # the comparison means something
    assert found.difference < 1e-4
    assert found.greedy_equal


def test_mtp_has_no_part_in_it(tmp_path):
    """transformers' V3 config announces a module by default, and its folder never holds one."""
    torch.manual_seed(0)
    theirs = widen(v3())
    theirs.save_pretrained(tmp_path)
    assert theirs.config.num_nextn_predict_layers == 1 and load_hf(tmp_path).config.n_mtp_modules == 0


@pytest.mark.parametrize("change", [
    lambda model: setattr(model.blocks[1].attention, "scale", model.blocks[1].attention.scale * 1.02),
    lambda model: setattr(model.blocks[1].attention, "rope_layout", "halves"),
    lambda model: model.blocks[2].feed_forward.router.selection_bias.zero_(),
    lambda model: setattr(model.blocks[2], "attention_norm", nn.Identity()),
    lambda model: model.blocks[1].feed_forward.experts.up.data.copy_(model.blocks[1].feed_forward.experts.gate.data)])
def test_a_small_mistake_is_seen(change, monkeypatch):
    def broken(folder):
        model = load_hf(folder)
        change(model)
        return model

    monkeypatch.setattr("tests.parity.families.load_hf", broken)
    assert compare("DeepSeek-V3 (YaRN)", 0).difference > 1e-3
