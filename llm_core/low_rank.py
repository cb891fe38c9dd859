"""How few numbers hold a trained model's keys and values: a latent found by singular value decomposition (SVD).

A layer's keys and values are W x, one after the other, with W = [W_k; W_v] of shape [K, D]. The best basis of r
directions (Eckart and Young 1936) gives W x ~ U_r (U_r^T W) x: r numbers to keep, and one matrix to expand them with.
That is how MLA (arXiv:2405.04434, section 2.1.2) stores them, but found afterwards instead of trained.
Shapes: D width, K = 2 x key-value heads x head width, H query heads, G key-value heads, d head width, r rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from llm_core.attention.grouped import GroupedAttention
from llm_core.attention.latent import LatentAttention
from llm_core.config import GroupedAttentionConfig, LatentAttentionConfig, ModelConfig
from llm_core.linear import Linear
from llm_core.model import LanguageModel
from llm_core.validation import whole


@dataclass(frozen=True)
class Factor:
    """One layer: weight [K, D], its directions as columns of basis [K, K], the strongest first, and how strong [K]."""

    weight: Tensor
    basis: Tensor
    strength: Tensor

    def kept(self, rank: int) -> float:
        """The share of all squares (of the weight's numbers, or of the keys and values that it makes) kept by `rank`
        directions, 0 to 1."""
        squares = self.strength.double() ** 2
        return (squares[:rank].sum() / squares.sum()).item()


@torch.no_grad()
def input_moments(model: LanguageModel, token_ids: Tensor) -> list[Tensor]:
    """For each layer the mean of x x^T [D, D] over what enters its attention, for token_ids [B, T]."""
    moments: list[Tensor] = []

    def note(module, inputs):
        x = inputs[0].flatten(0, 1).double()  # [B * T, D]
        moments.append(x.T @ x / len(x))

    hooks = [block.attention.register_forward_pre_hook(note) for block in model.blocks]
    try:
        model(token_ids, last_only=True)
    finally:
        for hook in hooks:
            hook.remove()
    return moments


@torch.no_grad()
def factors(model: LanguageModel, moments: list[Tensor] | None = None) -> list[Factor]:
    """A Factor for each layer of a model with MHA, GQA or MQA. Without `moments` the plain SVD of the weights; with
    those of input_moments the directions in which keys and values really vary (their principal components).

    ValueError for MLA, which keeps a latent already.
    """
    _grouped(model.config)
    out = []
    for layer, block in enumerate(model.blocks):
        weight = torch.cat([block.attention.k_proj.weight, block.attention.v_proj.weight]).double()  # [K, D]
        square = weight @ weight.T if moments is None else weight @ moments[layer] @ weight.T  # [K, K]
        values, vectors = torch.linalg.eigh(square)  # the smallest first; U of the SVD of a matrix, and its squares
        out.append(Factor(weight.float(), vectors.flip(1).float(), values.flip(0).clamp(min=0).sqrt().float()))
    return out


@torch.no_grad()
def compress(model: LanguageModel, found: list[Factor], rank: int) -> LanguageModel:
    """The model whose keys and values go through `rank` numbers a token and layer; all its other weights are shared
    with `model`, which stays as it is.

    Its logits are those of a model that caches these numbers, before RoPE, and expands them at each step; it computes
    them the short way, with the two matrices multiplied once. ValueError if the rank is not from 1 to K.
    """
    check_rank(model.config, rank)
    weights = dict(model.state_dict())
    for layer, factor in enumerate(found):
        basis = factor.basis[:, :rank]
        k, v = (basis @ (basis.T @ factor.weight)).chunk(2)  # [K / 2, D] each
        weights[f"blocks.{layer}.attention.k_proj.weight"] = k.contiguous()
        weights[f"blocks.{layer}.attention.v_proj.weight"] = v.contiguous()
    out = LanguageModel.unfilled(model.config)
    out.load_state_dict(weights, assign=True)
    return out.requires_grad_(False).eval()


@torch.no_grad()
def as_latent(model: LanguageModel, found: list[Factor], rank: int) -> LanguageModel:
    """The same as compress, built of LatentAttention: its cache really holds `rank` numbers, and it can absorb.

    Only for a model without RoPE. Its attention has no norm on the latent, since the model was not trained with one.
    Biases: the keys' can go, as it adds the same to all scores of a query; the values' moves behind the output
    projection, as the weights of the mixture sum to 1.
    """
    config = latent_config(model.config, rank)
    if model.config.rope is not None:
        raise ValueError("this model turns its keys with RoPE, so they cannot be rebuilt from a latent by one matrix; "
                         "compress does it step by step, and gpt-mini has no RoPE")
    out = LanguageModel.unfilled(config)
    weights = {name: tensor for name, tensor in model.state_dict().items() if ".attention." not in name}
    out.load_state_dict(weights, assign=True, strict=False)
    for mine, its, factor in zip(out.blocks, model.blocks, found):
        mine.attention = _latent_layer(config, its.attention, factor.basis[:, :rank], factor.weight)
    return out.requires_grad_(False).eval()


def _latent_layer(config: ModelConfig, old: GroupedAttention, basis: Tensor, weight: Tensor) -> LatentAttention:
    H, G, d, r = old.n_heads, old.kv_heads, old.head_dim, basis.shape[1]
    new = LatentAttention(config)
    up = basis.reshape(2, G, d, r)  # keys, then values, of each key-value head
    up = up.repeat_interleave(H // G, dim=1).transpose(0, 1)  # [H, 2, d, r]: every query head has its own copy
    new.kv_down.weight.copy_(basis.T @ weight)  # [r, D]
    new.kv_up.weight.copy_(up.reshape(H * 2 * d, r))
    new.kv_norm, new.q_proj = nn.Identity(), old.q_proj
    if old.v_proj.bias is None and old.o_proj.bias is None:
        new.o_proj = old.o_proj
    else:
        new.o_proj = Linear(H * d, config.d_model)
        new.o_proj.weight, new.o_proj.bias = old.o_proj.weight, nn.Parameter(_moved_bias(old))
    return new


def _moved_bias(old: GroupedAttention) -> Tensor:
    """The output's bias with the values' in it: W_o b_v + b_o [D]."""
    bias = torch.zeros(old.o_proj.out_features) if old.o_proj.bias is None else old.o_proj.bias.clone()
    if old.v_proj.bias is not None:
        values = old.v_proj.bias.view(old.kv_heads, old.head_dim)
        bias += old.o_proj.weight @ values.repeat_interleave(old.n_heads // old.kv_heads, dim=0).flatten()
    return bias


def latent_config(config: ModelConfig, rank: int) -> ModelConfig:
    """What is kept when keys and values go through a latent: a config for accounting's cache figures (no rope key, as
    the keys are turned after they are rebuilt)."""
    check_rank(config, rank)
    heads, d = config.attention.n_heads, config.head_dim
    return config.replace(attention=LatentAttentionConfig(heads, rank, d, 0, d), rope=None)


def full_rank(config: ModelConfig) -> int:
    """K: the numbers of all keys and values of a token in one layer."""
    return 2 * _grouped(config).kv_heads * config.head_dim


def check_rank(config: ModelConfig, rank: int) -> None:
    whole("rank", rank)
    if rank > full_rank(config):
        raise ValueError(f"rank cannot be {rank}: a token's keys and values are {full_rank(config)} numbers a layer, "
                         f"so {full_rank(config)} lose nothing already")


def _grouped(config: ModelConfig) -> GroupedAttentionConfig:
    if not isinstance(config.attention, GroupedAttentionConfig):
        raise ValueError("this model has MLA: it keeps a latent already; give one with MHA, GQA or MQA")
    return config.attention
