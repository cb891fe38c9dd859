"""Multi-token prediction: a module computed by hand, rows that point at the right tokens, a loss by hand, a cache."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_core import LanguageModel, accounting, generate
from llm_core.mtp import Ahead, mtp_loss
from tests.test_accounting import configs
from tests.tiny_configs import CONFIGS, some_ids

KINDS = ("GPT-2", "MHA", "GQA", "MLA", "DeepSeek-V3")


def build(name: str, depth: int, seed: int = 0, std: float = 0.2) -> LanguageModel:
    """As tiny_configs builds it, with MTP modules, and with norms that are not all ones: a wrong norm must show."""
    torch.manual_seed(seed)
    model = LanguageModel(CONFIGS[name].replace(n_mtp_modules=depth)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=std) if p.dim() > 1 else p.add_(torch.randn_like(p) * 0.3)
        for buffer in model.buffers():
            buffer.normal_(std=0.2)
    return model


def ahead_of(model, ids, depth=None):
    return model.predict_ahead(model(ids).hidden, ids, depth)


# Tensors

@given(configs())
@settings(max_examples=60, deadline=None)
def test_formula_equals_the_tensors_of_random_configs(config):
    with torch.device("meta"):
        model = LanguageModel(config)
    counts = accounting.count_parameters(config)
    assert sum(p.numel() for p in model.parameters()) == counts.total + counts.mtp
    assert sum(p.numel() for p in model.mtp.parameters()) == counts.mtp
    assert sum(b.numel() for b in model.buffers()) == counts.router_biases + counts.mtp_router_biases


@pytest.mark.parametrize("name", KINDS)
def test_a_module_has_the_tensors_of_the_formula_and_neither_embedding_nor_head(name):
    """Every row of the formula is a tensor of that size; the stacked experts count as one."""
    model = build(name, 2)
    for module in model.mtp:
        assert {key for key, _ in module.named_children()} == {"enorm", "hnorm", "eh_proj", "block", "final_norm"}
        assert module.eh_proj.weight.shape == (32, 64) and module.eh_proj.bias is None
    wanted = sorted(row.total // 2 for row in accounting.mtp_rows(model.config))
    assert sorted(p.numel() for p in model.mtp[1].parameters()) == wanted


def test_a_model_without_modules_is_what_it_was():
    assert not any(key.startswith("mtp") for key in LanguageModel(CONFIGS["MHA"]).state_dict())


# What a module computes

def rms(x, weight, eps=1e-6):
    return x / math.sqrt((x * x).mean().item() + eps) * weight


def turned(x, position):
    """RoPE by complex numbers: pair i of width d turned by position * 10000^(-2i / d)."""
    angles = position * 10000.0 ** (-torch.arange(0, len(x), 2).double() / len(x))
    return torch.view_as_real(torch.view_as_complex(x.double().view(-1, 2).contiguous()) *
                              torch.polar(torch.ones_like(angles), angles)).flatten().float()


def module_by_hand(model, k, hidden, ids):
    """Row after row, head after head, from the paper's formulas; MHA with 4 heads of 8. hidden: list of [D], T rows."""
    m = model.mtp[k - 1]
    a, f = m.block.attention, m.block.feed_forward
    keys, values, out = [], [], []
    for i in range(len(ids) - k):
        e = rms(model.token_embedding.weight[ids[i + k]], m.enorm.weight)
        h = rms(hidden[i], m.hnorm.weight)
        x = m.eh_proj.weight[:, :32] @ e + m.eh_proj.weight[:, 32:] @ h  # the embedding's half first
        n = rms(x, m.block.attention_norm.weight)
        keys.append((a.k_proj.weight @ n).view(4, 8))
        values.append((a.v_proj.weight @ n).view(4, 8))
        q, mixed = (a.q_proj.weight @ n).view(4, 8), []
        for head in range(4):
            scores = torch.stack([turned(q[head], i) @ turned(keys[j][head], j) / 8**0.5 for j in range(i + 1)])
            weights = scores.exp() / scores.exp().sum()
            mixed.append(sum(weights[j] * values[j][head] for j in range(i + 1)))
        x = x + a.o_proj.weight @ torch.cat(mixed)
        n = rms(x, m.block.feed_forward_norm.weight)
        gate = f.gate.weight @ n
        x = x + f.down.weight @ (gate / (1 + (-gate).exp()) * (f.up.weight @ n))
        out.append(rms(x, m.final_norm.weight))
    return out


def test_two_modules_by_hand_and_the_second_reads_the_first():
    model, ids = build("MHA", 2), some_ids(1, 9)
    with torch.no_grad():
        output = model(ids)
        hidden = [rms(x, model.final_norm.weight) for x in output.hidden[0]]
        for k, got in enumerate(model.predict_ahead(output.hidden, ids), start=1):
            hidden = module_by_hand(model, k, hidden, ids[0].tolist())
            assert got.logits.shape == (1, 9 - k, 61) and len(hidden) == 9 - k
            torch.testing.assert_close(got.hidden[0], torch.stack(hidden), atol=2e-5, rtol=1e-4)
            wanted = torch.stack(hidden) @ model.output_head.weight.T  # the main model's head
            torch.testing.assert_close(got.logits[0], wanted, atol=5e-5, rtol=1e-4)


def test_a_tied_head_is_the_embedding_for_modules_too():
    model, ids = build("GPT-2", 1), some_ids(1, 9)
    got = ahead_of(model, ids)[0]
    torch.testing.assert_close(got.logits, got.hidden @ model.token_embedding.weight.T)


@pytest.mark.parametrize("name", KINDS)
def test_row_i_of_depth_k_reads_the_tokens_up_to_i_plus_k_and_no_later_one(name):
    model, ids, place = build(name, 3), some_ids(1, 12), 6
    other = ids.clone()
    other[0, place] = (ids[0, place] + 1) % 61
    with torch.no_grad():
        for k, (a, b) in enumerate(zip(ahead_of(model, ids), ahead_of(model, other), strict=True), start=1):
            moved = (a.logits - b.logits)[0].abs().amax(-1)  # [T - k]
            assert moved[:place - k].max() < 1e-5, f"depth {k} looked ahead"
            assert (moved[place - k:] > 1e-4).all(), f"depth {k} missed what it may see"


def test_depth_limits_how_many_modules_run():
    model, ids = build("DeepSeek-V3", 3), some_ids(2, 10)
    all_three = ahead_of(model, ids)
    assert [a.logits.shape for a in all_three] == [(2, 9, 61), (2, 8, 61), (2, 7, 61)]
    assert torch.equal(ahead_of(model, ids, 2)[1].logits, all_three[1].logits) and len(ahead_of(model, ids, 2)) == 2
    assert [a.routing.experts.shape for a in all_three] == [(18, 3), (16, 3), (14, 3)]


# The cache

@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("pieces", [[1] * 10, [4, 1, 5], [9, 1]])
def test_cached_in_pieces_equals_uncached(name, pieces):
    model, ids = build(name, 2), some_ids(2, 12)
    with torch.no_grad():
        output = model(ids)
        wanted = model.predict_ahead(output.hidden, ids)
        h, cache, got = model.final_norm(output.hidden), model.new_mtp_cache(2, 10), [[], []]
        for n in pieces:  # rows first .. first + n - 1 of both modules
            first = cache.length
            hidden = h[:, first:first + n]
            for k in (1, 2):
                ahead = model.predict_at_depth(k, hidden, ids[:, first + k:first + k + n], cache)
                got[k - 1].append(ahead.logits)
                hidden = ahead.hidden
            cache.advance(n)
        for k in (1, 2):
            torch.testing.assert_close(torch.cat(got[k - 1], 1), wanted[k - 1].logits[:, :10], atol=2e-5, rtol=1e-4)
        with pytest.raises(ValueError, match="room for 10 tokens and holds 10; 1 more do not fit"):
            model.predict_at_depth(1, h[:, :1], ids[:, :1], cache)


def test_the_cache_has_a_layer_for_each_module():
    model = build("DeepSeek-V3", 2)
    assert len(model.new_mtp_cache(3, 7).layers) == 2
    assert model.new_mtp_cache(3, 7).nbytes * 3 == model.new_cache(3, 7).nbytes * 2  # the model itself has 3 layers


# The model around it

@pytest.mark.parametrize("name", KINDS)
def test_plain_calls_and_generation_run_no_module(name):
    model, ids = build(name, 2), some_ids(2, 8)
    plain = LanguageModel(CONFIGS[name]).eval()
    plain.load_state_dict({key: t for key, t in model.state_dict().items() if not key.startswith("mtp.")})
    for module in model.mtp.modules():
        module.register_forward_pre_hook(lambda *_: pytest.fail("an MTP module ran"))
    assert torch.equal(model(ids).logits, plain(ids).logits)
    assert len(model(ids).routing) == len(plain(ids).routing)
    assert torch.equal(generate(model, ids, 6), generate(plain, ids, 6))
    with pytest.raises(pytest.fail.Exception):
        ahead_of(model, ids)  # the hook can fail


def test_modules_start_as_the_model_does():
    """Normal with init_std, what is added to the stream smaller: eh_proj 0.02, a module's o_proj 0.02 / sqrt(2 * 3)."""
    torch.manual_seed(0)
    config = CONFIGS["MHA"].replace(n_mtp_modules=1, d_model=256)
    module = LanguageModel(config).mtp[0]
    assert abs(module.eh_proj.weight.std().item() - 0.02) < 0.001
    assert abs(module.block.attention.o_proj.weight.std().item() - 0.02 / 6**0.5) < 0.0005


def test_router_biases_are_moved_with_and_without_the_modules():
    model, ids = build("DeepSeek-V3", 2), some_ids(2, 10)
    output = model(ids)
    ahead = model.predict_ahead(output.hidden, ids)
    biases = [m.selection_bias for m in model.modules() if getattr(m, "selection_bias", None) is not None]
    before = [b.clone() for b in biases]
    model.update_router_biases(output.routing, 0.5)
    assert [bool((b != was).any()) for b, was in zip(biases, before, strict=True)] == [True, True, False, False]
    before = [b.clone() for b in biases]
    model.update_router_biases([*output.routing, *(a.routing for a in ahead)], 0.5)
    for b, was, routing in zip(biases, before, [*output.routing, *(a.routing for a in ahead)], strict=True):
        load = torch.tensor([(routing.experts == e).sum().item() for e in range(8)]).float()
        torch.testing.assert_close(b, was + 0.5 * torch.sign(load.mean() - load))
    with pytest.raises(ValueError):
        model.update_router_biases(output.routing[:1], 0.5)


# The loss

def test_loss_equals_the_sum_by_hand():
    model, text = build("MLA", 2), some_ids(2, 11)
    inputs, targets = text[:, :-1], text[:, 1:].clone()
    targets[0, 4] = -100
    ahead = ahead_of(model, inputs)
    total, counted = 0.0, 19  # 2 * 10 targets, one of which does not count
    for k in (1, 2):
        for b in range(2):
            for i in range(10 - k):
                if targets[b, i + k] != -100:  # row i guesses token i + k + 1 of the text
                    logits = ahead[k - 1].logits[b, i]
                    total -= (logits[text[b, i + k + 1]] - logits.logsumexp(-1)).item()
    assert mtp_loss(ahead, targets, 0.3).item() == pytest.approx(0.3 / 2 * total / counted, rel=1e-5)


def test_a_perfect_guess_costs_nothing_and_a_blind_one_the_log_of_the_vocabulary():
    targets = torch.arange(10)[None]
    perfect = torch.nn.functional.one_hot(targets[:, 1:], 12).float() * 100
    assert mtp_loss([Ahead(perfect, perfect)], targets, 1.0).item() < 1e-6
    blind = torch.zeros(1, 9, 12)
    assert mtp_loss([Ahead(blind, blind)], targets, 1.0).item() == pytest.approx(0.9 * math.log(12))  # 9 rows of T = 10


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_teaches_the_shared_embedding_the_head_and_the_whole_model(name):
    """Every tensor of the model and of the modules gets a gradient from the MTP loss alone."""
    model, text = build(name, 2), some_ids(4, 30)
    mtp_loss(ahead_of(model, text[:, :-1]), text[:, 1:], 0.1).backward()
    left_out = {key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert left_out == set()


def test_a_few_steps_of_training_lower_both_losses():
    torch.manual_seed(0)
    model = LanguageModel(CONFIGS["DeepSeek-V3"].replace(n_mtp_modules=2))
    text = some_ids(8, 21)
    optimizer, seen = torch.optim.Adam(model.parameters(), 0.01), []
    for _ in range(25):
        output = model(text[:, :-1])
        main = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), text[:, 1:].flatten())
        extra = mtp_loss(model.predict_ahead(output.hidden, text[:, :-1]), text[:, 1:], 1.0)
        seen.append((main.item(), extra.item()))
        optimizer.zero_grad()
        (main + extra).backward()
        optimizer.step()
    assert seen[-1][0] < 0.7 * seen[0][0] and seen[-1][1] < 0.7 * seen[0][1]


# What cannot be

@pytest.mark.parametrize(("call", "says"), [
    (lambda m, ids, h: m.predict_ahead(h, ids, 3), "depth 3 needs as many MTP modules, and this model has n_mtp"),
    (lambda m, ids, h: m.predict_ahead(h, ids, 0), "depth 0"),
    (lambda m, ids, h: m.predict_ahead(h[:, :2], ids[:, :2]), "at least 3 tokens, and there are 2"),
    (lambda m, ids, h: m.predict_ahead(h[:, 1:], ids), r"hidden has \[1, 7\] rows for token ids of \[1, 8\]"),
    (lambda m, ids, h: mtp_loss([], ids, 0.1), "no predictions to score"),
    (lambda m, ids, h: mtp_loss(m.predict_ahead(h, ids), ids[:, 1:], 0.1),
     r"depth 1 has logits for \[1, 7\] rows, which do not go with targets of \[1, 7\]; \[1, 6\] would")])
def test_what_cannot_be_gets_a_sentence(call, says):
    model, ids = build("MHA", 2), some_ids(1, 8)
    with pytest.raises(ValueError, match=says):
        call(model, ids, model(ids).hidden)


@given(st.integers(1, 3), st.integers(4, 10), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_longer_text_does_not_change_earlier_rows(depth, tokens, seed):
    model, ids = build("DeepSeek-V3", depth), some_ids(1, 12, seed)
    with torch.no_grad():
        for a, b in zip(ahead_of(model, ids), ahead_of(model, ids[:, :tokens]), strict=True):
            torch.testing.assert_close(a.logits[:, :b.logits.shape[1]], b.logits, atol=2e-5, rtol=1e-4)
