"""What must hold for every valid config, tried on random tiny ones. 500 examples in all."""

import json
import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from llm_core import LanguageModel, ModelConfig, accounting, cache_layout, generate
from llm_core.cache import Cache
from llm_core.pretrained.store import load_weights, save_weights
from tests import strategies
from tests.strategies import SEEDS, build, configs, ids


def same(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """32 bits, added up in another order."""
    torch.testing.assert_close(got, wanted, atol=1e-4 * wanted.abs().max().clamp(min=1).item(), rtol=1e-4)


# Counting

@given(configs())
@settings(max_examples=80)
def test_formula_equals_tensors(config):
    model = LanguageModel.unfilled(config)
    counted = accounting.count_parameters(config)
    assert sum(p.numel() for p in model.parameters()) == counted.total + counted.mtp
    assert sum(b.numel() for b in model.buffers()) == counted.router_biases + counted.mtp_router_biases
    shapes = sorted(tuple(p.shape) for name, p in model.named_parameters()
                    if "mtp" not in name and ".experts." not in name)
    rows = [row for row in accounting.rows(config) if row.part != "routed experts"]
    assert shapes == sorted(row.shape for row in rows for _ in range(row.copies))


@given(configs(), st.integers(1, 3), st.integers(1, 20), st.sampled_from([torch.float32, torch.bfloat16]))
@settings(max_examples=50)
def test_formula_equals_the_cache(config, batch, tokens, dtype):
    cache = Cache(config, batch, tokens, dtype=dtype)
    assert cache.nbytes == accounting.cache_bytes(config, batch, tokens, bits=8 * dtype.itemsize)
    per_token = accounting.cache_bytes_per_token(config, bits=8 * dtype.itemsize)
    assert cache.nbytes == batch * tokens * per_token
    # What a layer really writes fills these tensors: their last dimensions, and no others.
    held = {name: tuple(tensor.shape[2:]) for name, tensor in cache.layers[0].items()}
    assert held == cache_layout.entry_shapes(config)


@given(configs(), st.integers(1, 9), st.integers(0, 9), st.booleans())
@settings(max_examples=50)
def test_parts_sum_to_the_total(config, tokens, cached, absorbed):
    counted = accounting.count_parameters(config)
    assert sum(counted.by_part.values()) == counted.total == sum(row.total for row in accounting.rows(config))
    assert sum(counted.active_by_part.values()) == counted.active <= counted.total
    flops = accounting.forward_flops(config, tokens, tokens + cached, absorbed and config.attention.kind == "MLA")
    assert sum(flops.by_part.values()) == flops.total
    memory = accounting.training_memory(config)
    assert memory.weights + memory.gradients + memory.master_weights + memory.adam_moments == memory.total


@given(configs(), SEEDS, st.integers(1, 6), st.integers(0, 6), st.booleans())
@settings(max_examples=70)
def test_flops_are_what_torch_counts(config, seed, tokens, cached, absorbed):
    """torch's counter sees the operations as they run: mm, addmm and bmm. The routed experts are ordinary linear layers
    on the tokens they got, so they are seen too. The fused attention kernel of the CPU is not in the counter's list, so
    attention takes torch's "math" way here, which is made of matrix products. Some things are brought into line:
    - that way multiplies all tokens with all and then throws the future away; the formula counts causal pairs only. A
      pair costs the same in both, so the attention part is scaled by the number of pairs.
    - where no gradient is wanted, some products are made in ways that are not counted (linear.py): so one is.
    - values narrower than keys are padded with zeros for the kernel (attention/causal.py), and the counter counts the
      zeros. The formula does not. (MLA's absorbed way has no part in it: it does without the kernel.)
    - embedding lookups, norms, softmax, activations, rope and biases are no products, and neither counts them.
    """
    latent = config.attention.kind == "MLA"
    absorbed = absorbed and latent
    context = min(tokens + cached, config.max_seq_len)
    tokens = min(tokens, context)
    model, text = build(config, seed), ids(config, 1, context, seed)
    for block in model.blocks if latent else []:
        block.attention.absorbed = absorbed
    with sdpa_kernel(SDPBackend.MATH):
        cache = model.new_cache(1)
        if context > tokens:
            model(text[:, :context - tokens], cache)
        with FlopCounterMode(display=False) as counter:
            model(text[:, context - tokens:], cache)

    formula = accounting.forward_flops(config, tokens, context, absorbed)
    pairs = sum(context - tokens + i + 1 for i in range(tokens))
    a_pair = formula.by_part["attention scores and values"] // pairs  # all layers and heads
    narrower = config.head_dim - config.attention.v_head_dim if latent and not absorbed else 0
    zeros = 2 * config.n_layers * config.attention.n_heads * max(0, narrower)
    attention = (a_pair + zeros) * tokens * context
    others = formula.total - formula.by_part["attention scores and values"]
    assert counter.get_total_flops() == others + attention


# Reading

@given(configs(), SEEDS, st.data())
@settings(max_examples=80)
def test_cached_equals_uncached_in_any_pieces(config, seed, data):
    model, text = build(config, seed), ids(config, 2, config.max_seq_len, seed)
    cache, pieces, done = model.new_cache(2), [], 0
    with torch.no_grad():
        whole = model(text).logits
        while done < text.shape[1]:
            n = data.draw(st.integers(1, text.shape[1] - done))
            pieces.append(model(text[:, done:done + n], cache).logits)
            done += n
    same(torch.cat(pieces, dim=1), whole)
    assert cache.length == text.shape[1]


@given(configs(), SEEDS, st.data())
@settings(max_examples=50)
def test_truncate_and_redo_equals_never_done(config, seed, data):
    """Go wrong, go back, go on: as if the wrong way had never been taken."""
    model, text = build(config, seed), ids(config, 2, config.max_seq_len, seed)
    keep = data.draw(st.integers(1, config.max_seq_len - 1))
    wrong = data.draw(st.integers(1, config.max_seq_len - keep))
    back = data.draw(st.integers(0, keep))
    cache = model.new_cache(2)
    with torch.no_grad():
        model(text[:, :keep], cache)
        model(ids(config, 2, wrong, seed + 1), cache)
        cache.truncate(back)
        same(model(text[:, back:], cache).logits, model(text).logits[:, back:])


@given(configs(), SEEDS, st.data())
@settings(max_examples=40)
def test_greedy_generation_within_the_context_never_stops_with_an_error(config, seed, data):
    model = build(config, seed)
    prompt = data.draw(st.integers(1, config.max_seq_len))
    new = data.draw(st.integers(0, config.max_seq_len - prompt))
    chunk = data.draw(st.none() | st.integers(1, prompt))
    text = generate(model, ids(config, 2, prompt, seed), new, prefill_chunk=chunk)
    assert text.shape == (2, prompt + new) and torch.equal(text[:, :prompt], ids(config, 2, prompt, seed))
    assert 0 <= text.min() and text.max() < config.vocab_size
    uncached = generate(model, ids(config, 2, prompt, seed), new, use_cache=False)
    for row, other in zip(text, uncached, strict=True):  # a tie of two logits may be broken otherwise
        differ = (row != other).nonzero()
        if len(differ):
            at = int(differ[0])
            logits = model(row[None, :at]).logits[0, -1]
            assert (logits[row[at]] - logits[other[at]]).abs() < 1e-3 * logits.abs().max().clamp(min=1)


# Keeping

@given(configs(), SEEDS)
@settings(max_examples=40)
def test_save_and_load_give_the_same_model(config, seed):
    """Files are in bf16, so a model whose numbers are bf16 numbers comes back exactly: each tensor, and each logit."""
    model, text = build(config, seed), ids(config, 2, config.max_seq_len, seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.bfloat16())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_weights(path, {"": model})
        loaded = load_weights(path, config)
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with torch.no_grad():
        assert torch.equal(model(text).logits, loaded(text).logits)


@given(configs())
@settings(max_examples=40)
def test_a_config_comes_back_from_its_description(config):
    description = config.to_dict()
    assert ModelConfig.from_dict(json.loads(json.dumps(description))) == config
    assert ModelConfig.from_dict(description).to_dict() == description


def test_five_hundred_examples():
    """The number that CI is meant to run, added up; and that the strategies reach every kind of part."""
    tests = [f for name, f in globals().items() if name.startswith("test_") and hasattr(f, "hypothesis")]
    assert sum(f._hypothesis_internal_use_settings.max_examples for f in tests) == 500
    seen = set()

    @settings(max_examples=150, database=None, derandomize=True)
    @given(strategies.configs())
    def look(config):
        moe, rope = config.moe, config.rope
        seen.update([config.attention.kind, config.norm, config.feed_forward.activation,
                     f"tied {config.tie_embeddings}", "experts" if moe else "dense", "learned" if not rope else
                     type(rope.scaling).__name__, rope.layout if rope else "", f"MTP {config.n_mtp_modules}"])
        if moe:
            seen.update([moe.scoring, moe.group_score, f"closed {moe.n_limited_groups < moe.n_expert_groups}",
                         f"bias {moe.selection_bias}", f"shared {moe.n_shared_experts > 0}"])

    look()
    wanted = {"MHA", "GQA", "MQA", "MLA", "layernorm", "rmsnorm", "gelu", "swiglu", "tied True", "tied False", "dense",
              "experts", "learned", "NoneType", "YarnConfig", "Llama3RopeConfig", "interleaved", "halves", "MTP 0",
              "MTP 2", "softmax", "sigmoid", "max", "top2", "closed True", "bias True", "bias False", "shared True",
              "shared False"}
    assert wanted <= seen, wanted - seen
