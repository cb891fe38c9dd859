"""The model as a whole: its tensors against the formula, no look into the future, and what it refuses."""

import math

import pytest
import torch

from llm_core import LanguageModel, accounting, presets
from llm_core.config import ModelConfig
from tests.tiny_configs import CONFIGS, build, some_ids


@pytest.mark.parametrize("name", presets.names() + presets.grid_names())
def test_formula_equals_the_sum_of_real_tensors(name):
    config = presets.get(name)
    with torch.device("meta"):  # every tensor has its shape, none has memory: 671 B parameters fit
        model = LanguageModel(config)
    counts = accounting.count_parameters(config)
    assert sum(p.numel() for p in model.parameters()) == counts.total + counts.mtp
    assert sum(p.numel() for p in model.mtp.parameters()) == counts.mtp
    assert sum(b.numel() for b in model.buffers()) == counts.router_biases + counts.mtp_router_biases


@pytest.mark.parametrize("name", CONFIGS)
def test_parts_equal_the_tensors_of_each_kind(name):
    """Summed by the tensors' own names, a second way to the same parts."""
    model = build(name)
    sums = {}
    for key, p in model.named_parameters():
        if "norm" in key:
            part = "norms"
        elif ".attention." in key:
            part = "attention"
        elif "router" in key:
            part = "router"
        elif "experts" in key:
            part = "routed experts"
        elif "shared" in key:
            part = "shared experts"
        elif "feed_forward" in key:
            part = "dense feed-forward"
        else:
            part = {
                "token_embedding.weight": "token embedding",
                "position_embedding.weight": "position embedding",
                "output_head.weight": "output head",
            }[key]
        sums[part] = sums.get(part, 0) + p.numel()
    assert sums == accounting.count_parameters(model.config).by_part


@pytest.mark.parametrize("name", CONFIGS)
def test_a_token_never_sees_what_comes_after(name):
    """The gradient of position 7's logits reaches the embeddings of tokens 0 to 7 and of no later one."""
    model, ids = build(name), some_ids(1)
    seen = {}
    handle = model.token_embedding.register_forward_hook(lambda m, i, out: (out.retain_grad(), seen.update(x=out))[1])
    model(ids).logits[0, 7].sum().backward()
    handle.remove()
    reached = seen["x"].grad[0].abs().sum(-1) > 0
    assert reached[:8].all() and not reached[8:].any()


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_of_a_batch_do_not_mix(name):
    model, ids = build(name), some_ids(3)
    together = model(ids).logits
    for row in range(3):
        torch.testing.assert_close(model(ids[row : row + 1]).logits[0], together[row], atol=1e-5, rtol=1e-5)


def test_word_order_matters_with_and_without_rope():
    for name in ("GPT-2", "MHA", "MLA"):
        model = build(name)
        a, b = model(torch.tensor([[1, 2, 3]])).logits[0, -1], model(torch.tensor([[2, 1, 3]])).logits[0, -1]
        assert (a - b).abs().max() > 1e-2, name


def test_last_only_gives_the_last_row():
    model, ids = build("DeepSeek-V3"), some_ids()
    torch.testing.assert_close(model(ids, last_only=True).logits, model(ids).logits[:, -1:])


def test_one_routing_for_each_moe_layer():
    out = build("DeepSeek-V3")(some_ids(2, 20))
    assert [r.experts.shape for r in out.routing] == [(40, 3)] * 2
    assert build("GPT-2")(some_ids()).routing == []


def test_dropout_acts_in_training_only():
    config = CONFIGS["GPT-2"].replace(dropout=0.5, attention_dropout=0.5)
    torch.manual_seed(0)
    model, ids = LanguageModel(config), some_ids()
    model.eval()
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


def test_the_start_is_a_uniform_guess():
    """A new model knows nothing: its loss is ln V, and what is added to the stream starts small.

    Logits of normal numbers cost half their variance more: D numbers of size 1 times weights of init_std.
    """
    torch.manual_seed(0)
    model = LanguageModel(presets.get("deepseek-mini")).eval()
    blind = math.log(2048) + model.config.init_std**2 * model.config.d_model / 2
    ids = torch.randint(0, 2048, (4, 64))
    loss = torch.nn.functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() == pytest.approx(blind, abs=0.05) and blind < math.log(2048) + 0.2
    outputs = [
        p.std().item()
        for key, p in model.named_parameters()
        if key.endswith(("o_proj.weight", "down.weight", "experts.down"))
        and "q_down" not in key
        and "kv_down" not in key
    ]
    std = model.config.init_std / math.sqrt(2 * model.config.n_layers)
    assert len(outputs) == 5 + 1 + 4 + 4  # attention of 4 blocks and the MTP module, dense, shared and routed experts
    assert outputs == pytest.approx([std] * len(outputs), abs=0.001)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (torch.zeros(1, 0, dtype=torch.long), "give at least one"),
        (torch.zeros(1, 65, dtype=torch.long), "65 tokens are more than the model's context of 64; keep the last 64"),
        (torch.tensor([[61]]), "token id 61 is not in the vocabulary of 61 entries"),
        (torch.tensor([[-1]]), "token id -1"),
        (torch.tensor([1, 2]), "must be [batch, tokens]"),
    ],
)
def test_bad_ids_get_a_sentence(ids, says):
    with pytest.raises(ValueError) as error:
        build("MHA")(ids)
    assert says in str(error.value)


def test_preset_names_are_suggested():
    with pytest.raises(ValueError, match="nearest: deepseek-v3"):
        ModelConfig.preset("deepsek-v3")


def test_alias_r1_is_v3():
    assert presets.get("deepseek-r1") == presets.get("deepseek-v3")
