"""What is seen on the way equals what the model does: its logits, its attention, its routing."""

import pytest
import torch
import torch.nn.functional as F

from llm_core import accounting, load_pretrained, presets, trace
from tests.tiny_configs import CONFIGS, build, some_ids

every_model = pytest.mark.parametrize("name", CONFIGS)


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@every_model
def test_the_traced_run_is_the_models_own(name):
    model, ids = build(name), some_ids(1, 20)
    seen, out = trace.trace(model, ids), model(ids)
    assert torch.equal(seen.logits, out.logits[0]) and torch.equal(seen.layers[-1].leaving, out.hidden[0])
    assert len(seen.layers) == model.config.n_layers
    close(seen.final @ (model.token_embedding.weight if model.config.tie_embeddings else model.output_head.weight).T,
          seen.logits)
    for before, after in zip(seen.layers, seen.layers[1:]):
        assert torch.equal(before.leaving, after.entering)
    for layer in seen.layers:
        close(layer.between, layer.entering + layer.attended)
        close(layer.leaving, layer.between + layer.fed)
    if model.config.rope is None:
        close(seen.layers[0].entering, seen.token_embedding + seen.position_embedding)
    else:
        assert seen.position_embedding is None and torch.equal(seen.layers[0].entering, seen.token_embedding)


@every_model
def test_shares_mix_the_values_to_what_attention_gives(name):
    """By another way: the shares, times values that are computed here, through the output matrix."""
    model, ids = build(name), some_ids(1, 12)
    for layer, block in zip(trace.trace(model, ids).layers, model.blocks):
        a, normed = block.attention, layer.attention_normed
        if hasattr(a, "v_proj"):
            v = a.v_proj(normed).view(12, a.kv_heads, -1).repeat_interleave(a.n_heads // a.kv_heads, dim=1)
        else:
            latent = a.kv_norm(a.kv_down(normed)[:, :a.latent_dim])
            v = a.kv_up(latent).view(12, a.n_heads, -1)[..., a.nope_dim:]
        mixed = torch.einsum("hts,shv->thv", layer.shares, v).flatten(1)
        close(a.o_proj(mixed), layer.attended)
        close(layer.shares.sum(-1), torch.ones(a.n_heads, 12))
        assert not layer.shares.triu(1).any() and torch.equal(layer.to_first, layer.shares[:, :, 0])


@every_model
def test_a_window_shows_the_same_as_the_whole(name):
    model, ids = build(name), some_ids(1, 20)
    whole, part = trace.trace(model, ids), trace.trace(model, ids, 7, 12)
    assert part.start == 7
    for a, b in zip(whole.layers, part.layers):
        for field in ("entering", "attention_normed", "attended", "between", "feed_forward_normed", "fed", "leaving"):
            assert torch.equal(getattr(a, field)[7:12], getattr(b, field))
        close(a.shares[:, 7:12, 7:12], b.shares)
        close(a.to_first[:, 7:12], b.to_first)
        close(a.shares[:, 7:12, :7].sum(-1), b.to_earlier)
        assert not a.to_earlier.any()
        if a.experts is not None:
            assert torch.equal(a.experts[7:12], b.experts) and torch.equal(a.gates[7:12], b.gates)
    close(whole.logits[7:12], part.logits)


def test_experts_are_those_that_the_router_chose():
    model, ids = build("DeepSeek-V3"), some_ids(1, 9)
    routing = iter(model(ids).routing)
    for layer, block in zip(trace.trace(model, ids).layers, model.blocks):
        if layer.experts is None:
            assert not hasattr(block.feed_forward, "router")
        else:
            chosen = next(routing)
            assert torch.equal(layer.experts, chosen.experts) and torch.equal(layer.gates, chosen.weights)


@every_model
def test_the_logit_lens_ends_in_the_models_own_probabilities(name):
    model, ids = build(name), some_ids(1, 10)
    seen = trace.trace(model, ids, 4, 10)
    lens = trace.logit_lens(model, seen)
    assert lens.shape == (model.config.n_layers + 1, 6, model.config.vocab_size)
    close(lens[-1], seen.logits.softmax(-1))
    head = model.token_embedding.weight if model.config.tie_embeddings else model.output_head.weight
    close(lens[1], (model.final_norm(seen.layers[0].leaving) @ head.T).softmax(-1))


@pytest.mark.parametrize("chunk", [trace.CHUNK, 4])
def test_task_losses_are_cross_entropy(chunk, monkeypatch):
    monkeypatch.setattr(trace, "CHUNK", chunk)
    model, ids = build("DeepSeek-V3"), some_ids(1, 15)
    wanted = F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
    close(trace.task_losses(model, ids), wanted)
    assert len(trace.task_losses(model, ids[:, :2])) == 1


def test_tasks_agree_with_the_losses_and_the_last_has_no_target():
    model, ids = build("GQA"), some_ids(1, 15)
    tasks = trace.tasks(trace.trace(model, ids, 6, 15), ids[0].tolist())
    assert [task.target for task in tasks] == [*ids[0, 7:].tolist(), None]
    close(torch.tensor([task.loss for task in tasks[:-1]]), trace.task_losses(model, ids)[6:])
    assert tasks[-1].loss is None and tasks[-1].target_chance is None
    chances = model(ids).logits[0].softmax(-1)
    for row, task in enumerate(tasks):
        best = chances[6 + row]
        assert task.likeliest == best.argmax() and task.chance == pytest.approx(best.max().item())
    assert tasks[0].target_chance == pytest.approx(chances[6, ids[0, 7]].item(), rel=1e-4)


def test_one_token_alone_has_a_trace_and_no_task():
    model = build("GPT-2")
    seen = trace.trace(model, [5])
    assert seen.layers[0].shares.tolist() == [[[1.0]]] * 4 and seen.start == 0


@pytest.mark.parametrize(("ids", "window", "said"), [
    (torch.zeros(2, 3, dtype=torch.long), (0, 3), "one text can be followed at a time, not 2"),
    ([1, 2, 3], (2, 2), "the window 2 to 2 does not lie in a text of 3 tokens"),
    ([1, 2, 3], (0, 4), "the window 0 to 4"), ([1, 2, 3], (-1, 2), "the window -1 to 2"),
    ([], (0, 1), "no tokens"),
    ([61], (0, 1), "not in the vocabulary"), ([1] * 65, (0, 1), "more than the model's context"),
])
def test_what_cannot_be_followed_is_said(ids, window, said):
    with pytest.raises(ValueError, match=said):
        trace.trace(build("GPT-2"), ids, *window)


@every_model
def test_what_is_added_and_the_strongest_heads(name):
    seen = trace.trace(build(name), some_ids(1, 8), 2, 8)
    layer = seen.layers[1]
    attention, feed_forward = trace.added(seen, 3)[1]
    assert attention == pytest.approx(100 * (layer.attended[3].norm() / layer.entering[3].norm()).item(), rel=1e-5)
    assert feed_forward == pytest.approx(100 * (layer.fed[3].norm() / layer.between[3].norm()).item(), rel=1e-5)
    best = trace.strongest_heads(seen, 3)
    assert len(best) == 4
    for column, (where, head, share) in enumerate(best):
        assert seen.layers[where].shares[head, 3, column].item() == share
        assert share == max(s.shares[:, 3, column].max().item() for s in seen.layers)


def test_where_a_guess_settles():
    assert [trace.settles(g) for g in ([5], [1, 5], [5, 5, 5], [5, 1, 5, 5], [1, 2, 3])] == [0, 1, 0, 2, 2]


def test_size_is_the_root_of_the_mean_square():
    close(trace.size(torch.tensor([[3.0, 4.0], [0.0, 0.0]])), torch.tensor([12.5**0.5, 0.0]))


def test_a_model_that_knows_it_looks_back_at_france():
    """What the lesson measures: some head of SmolLM2 looks from "is" at "France" more than at all else."""
    model, tokenizer = load_pretrained("smollm2-135m-instruct")
    seen = trace.trace(model, tokenizer.encode("The capital of France is"))
    to_france = torch.stack([layer.shares[:, 4, 3] for layer in seen.layers])  # [L, H]
    assert to_france.max() > 0.5
    lens = trace.logit_lens(model, seen)[:, 4]
    paris = tokenizer.encode(" Paris")[0]
    assert lens[-1].argmax() == paris and lens[0].argmax() != paris and lens[10].argmax() != paris


@pytest.mark.parametrize("name", ["gpt-mini", "deepseek-mini", "deepseek-v3", "gpt3-175b", "mixtral-8x7b",
                                  "smollm2-135m"])
def test_the_stops_own_all_parameters(name):
    config = presets.get(name)
    first, last = (accounting.journey(config, layer) for layer in (0, config.n_layers - 1))
    counted = accounting.count_parameters(config)
    unique = {(stop.name, stop.copies): stop for stop in [*first, *last]}
    assert sum(stop.parameters * stop.copies for stop in unique.values()) == counted.total
    used = sum(stop.active * stop.copies for stop in unique.values() if stop.copies > 1 or stop.name in (
        "norm 1", "attention", "norm 2", "feed-forward", "experts", "final norm"))
    tables = sum(counted.by_part.get(part, 0) for part in ("token embedding", "position embedding", "output head"))
    assert used + tables == counted.active  # of the tables one row is used; the rule counts them whole
    cache = sum(stop.cache_bytes * stop.copies for stop in unique.values())
    assert cache == accounting.cache_bytes_per_token(config)


def test_a_layer_that_is_not_there():
    with pytest.raises(ValueError, match="layers 0 to 3, and no layer 4"):
        accounting.journey(presets.get("gpt-mini"), 4)
