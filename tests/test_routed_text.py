"""Where a text's tokens go, against routers asked one by one through hooks."""

import pytest
import torch

from llm_core import load_pretrained, presets, routed_text
from llm_core.model import LanguageModel
from llm_core.specialisation import by_chance, mutual_information


@pytest.fixture(scope="module")
def mini():
    return load_pretrained("deepseek-mini")


def test_it_is_what_each_router_says(mini):
    model, words = mini
    ids = words.encode("But soft! What light through yonder window breaks?")
    heard, hooks = {}, []
    for number, block in enumerate(model.blocks):
        if hasattr(block.feed_forward, "router"):
            hooks.append(block.feed_forward.router.register_forward_hook(
                lambda router, given, out, number=number: heard.__setitem__(number, (router, given[0]))))
    found = routed_text.route(model, ids)
    for hook in hooks:
        hook.remove()
    assert list(found) == list(heard) == [1, 2, 3]
    for number, (router, x) in heard.items():
        scores = (torch.sigmoid(x @ router.weight.T) + router.selection_bias).detach()
        for t, row in enumerate(scores.tolist()):
            groups = [row[n:n + 2] for n in range(0, 8, 2)]  # 4 groups of 2; both of the 2 best groups are open
            opened = sorted(range(4), key=lambda g: -sum(groups[g]))[:2]
            best = sorted((e for g in opened for e in (2 * g, 2 * g + 1)), key=lambda e: -row[e])[:3]
            assert found[number].experts[t] == best
            assert sum(found[number].weights[t]) == pytest.approx(1, abs=1e-5)
        everybody = [e for row in found[number].experts for e in row]
        assert found[number].load == [everybody.count(e) for e in range(8)]
        assert found[number].imbalance == pytest.approx(max(found[number].load) * 8 / len(everybody))


def test_information_beside_an_untrained_model_and_chance(mini):
    model, words = mini
    ids = torch.tensor([words.encode("to be or not to be, that is the question")])
    other = routed_text.untrained(model.config)
    bits = routed_text.information({"trained": model, "untrained": other}, ids)
    assert list(bits) == ["trained", "untrained", "by chance"] and all(list(row) == [1, 2, 3] for row in bits.values())
    with torch.no_grad():
        own, random = model(ids).routing, other(ids).routing
    for place, layer in enumerate((1, 2, 3)):
        assert bits["trained"][layer] == mutual_information(ids[0], own[place].experts)
        assert bits["untrained"][layer] == mutual_information(ids[0], random[place].experts)
        assert bits["by chance"][layer] == by_chance(ids[0], own[place].experts)


def test_the_untrained_model_is_the_same_each_time_and_disturbs_nothing(mini):
    config = mini[0].config
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = routed_text.untrained(config)
    assert torch.equal(torch.random.get_rng_state(), before) and not one.training
    torch.manual_seed(6)
    other = routed_text.untrained(config)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))


@pytest.mark.parametrize("ids, sentence", [
    (torch.zeros(1, 0, dtype=torch.long), "no token to send"), (torch.zeros(3, dtype=torch.long), "no token to send"),
    (torch.zeros(1, 257, dtype=torch.long), "257 tokens, and the model's context holds 256")])
def test_texts_that_cannot_be_sent(mini, ids, sentence):
    with pytest.raises(ValueError, match=sentence):
        routed_text.routings(mini[0], ids)


def test_a_model_without_experts():
    tiny = LanguageModel(presets.get("tiny-mha-w24-l1"))
    with pytest.raises(ValueError, match="no experts"):
        routed_text.routings(tiny, torch.zeros(1, 3, dtype=torch.long))
