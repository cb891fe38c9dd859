"""A latent found by SVD, against numpy's SVD, projections written out by hand, and the model itself."""

import numpy as np
import pytest
import torch

from llm_core import LanguageModel, accounting, low_rank
from llm_core.cache import Cache
from tests.tiny_configs import CONFIGS, build, some_ids

NO_ROPE = {"GPT-2": CONFIGS["GPT-2"],  # MHA with biases
           "GQA": CONFIGS["GQA"].replace(rope=None), "MQA": CONFIGS["MQA"].replace(rope=None)}


def filled(config, seed=0) -> LanguageModel:
    """A tiny model all of whose numbers matter, its biases too."""
    torch.manual_seed(seed)
    model = LanguageModel(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.normal_(std=0.3)
    return model


@pytest.mark.parametrize("name", ["GPT-2", "MHA", "GQA", "MQA"])
def test_plain_directions_are_those_of_numpys_svd(name):
    model = build(name)
    for block, factor in zip(model.blocks, low_rank.factors(model)):
        joint = np.concatenate([block.attention.k_proj.weight.detach().numpy(),
                                block.attention.v_proj.weight.detach().numpy()])
        u, s, _ = np.linalg.svd(joint)
        shown = min(joint.shape)
        np.testing.assert_allclose(factor.strength[:shown], s[:shown], rtol=2e-4)
        for rank in (1, 3, shown // 2):
            mine = factor.basis[:, :rank] @ factor.basis[:, :rank].T
            np.testing.assert_allclose(mine, u[:, :rank] @ u[:, :rank].T, atol=2e-4)
            assert factor.kept(rank) == pytest.approx((s[:rank]**2).sum() / (s**2).sum(), rel=1e-4)


def test_directions_from_data_are_the_principal_components_of_keys_and_values():
    model, ids = filled(CONFIGS["GPT-2"]), some_ids(4)
    found = low_rank.factors(model, low_rank.input_moments(model, ids))
    heard = {}
    for layer, block in enumerate(model.blocks):
        block.attention.register_forward_pre_hook(lambda m, x, layer=layer: heard.update({layer: x[0]}))
    model(ids)
    for layer, (block, factor) in enumerate(zip(model.blocks, found)):
        a, x = block.attention, heard[layer].flatten(0, 1)
        made = torch.cat([x @ a.k_proj.weight.T, x @ a.v_proj.weight.T], dim=1).detach().numpy()  # [N, K], no bias
        _, s, vt = np.linalg.svd(made, full_matrices=False)
        np.testing.assert_allclose(factor.strength[:5], s[:5] / len(x)**0.5, rtol=1e-3)
        mine = (factor.basis[:, :5] @ factor.basis[:, :5].T).numpy()
        np.testing.assert_allclose(mine, vt[:5].T @ vt[:5], atol=1e-3)


@pytest.mark.parametrize("name", ["GPT-2", "MHA", "GQA", "MQA"])
def test_full_rank_loses_nothing_and_the_original_stays(name):
    model, ids = filled(CONFIGS[name]), some_ids()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    whole = model(ids).logits
    found = low_rank.factors(model)
    full = low_rank.full_rank(model.config)
    torch.testing.assert_close(low_rank.compress(model, found, full)(ids).logits, whole, atol=2e-4, rtol=1e-4)
    small = low_rank.compress(model, found, 1)
    assert (small(ids).logits - whole).abs().max() > 0.1
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert small.token_embedding.weight.data_ptr() == model.token_embedding.weight.data_ptr()  # shared, not copied


def test_a_compressed_layer_is_the_projection_written_out():
    model = filled(CONFIGS["GPT-2"])
    found = low_rank.factors(model)
    small = low_rank.compress(model, found, 7)
    x = torch.randn(5, model.config.d_model)
    a, b = model.blocks[1].attention, small.blocks[1].attention
    joint = torch.cat([a.k_proj.weight, a.v_proj.weight])
    latent = x @ joint.T @ found[1].basis[:, :7]  # [5, 7]: what would be cached
    keys = latent @ found[1].basis[:joint.shape[0] // 2, :7].T + a.k_proj.bias
    torch.testing.assert_close(b.k_proj(x), keys, atol=1e-4, rtol=1e-4)


def test_the_loss_of_keys_and_values_is_what_kept_says():
    model, ids = filled(CONFIGS["MHA"]), some_ids(4)
    [moment, *_] = low_rank.input_moments(model, ids)
    factor = low_rank.factors(model, low_rank.input_moments(model, ids))[0]
    basis = factor.basis[:, :6]
    lost = factor.weight - basis @ basis.T @ factor.weight
    share = (lost.double() @ moment @ lost.double().T).trace() / (factor.weight.double() @ moment
                                                                   @ factor.weight.double().T).trace()
    assert 1 - share.item() == pytest.approx(factor.kept(6), abs=1e-4)


@pytest.mark.parametrize("name", NO_ROPE)
@pytest.mark.parametrize("absorbed", [True, False])
def test_as_latent_attention_it_says_the_same(name, absorbed):
    model, ids = filled(NO_ROPE[name]), some_ids()
    found, rank = low_rank.factors(model), 5
    expected = low_rank.compress(model, found, rank)(ids).logits
    latent = low_rank.as_latent(model, found, rank)
    for block in latent.blocks:
        block.attention.absorbed = absorbed
    torch.testing.assert_close(latent(ids).logits, expected, atol=2e-4, rtol=1e-3)
    cache = latent.new_cache(2, ids.shape[1])
    steps = torch.cat([latent(ids[:, t:t + 1], cache).logits for t in range(ids.shape[1])], dim=1)
    torch.testing.assert_close(steps, expected, atol=2e-4, rtol=1e-3)


def test_its_cache_holds_the_rank_and_nothing_else():
    config = low_rank.latent_config(CONFIGS["GPT-2"], 5)
    assert accounting.cache_bytes_per_token(config) == 3 * 5 * 2
    assert Cache(config, 1, 10, dtype=torch.bfloat16).nbytes == 3 * 5 * 2 * 10
    assert low_rank.full_rank(CONFIGS["GPT-2"]) == 64 and low_rank.full_rank(CONFIGS["MQA"]) == 16


@pytest.mark.parametrize("call, sentence", [
    (lambda m: low_rank.compress(m, low_rank.factors(m), 65), "rank cannot be 65: .* so 64 lose nothing already"),
    (lambda m: low_rank.compress(m, low_rank.factors(m), 0), "rank must be"),
    (lambda m: low_rank.factors(build("MLA")), "it keeps a latent already"),
    (lambda m: low_rank.as_latent(build("MHA"), low_rank.factors(build("MHA")), 4), "turns its keys with RoPE"),
])
def test_what_cannot_be_is_said(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(build("GPT-2"))
