"""Linear layers that train in FP8 as DeepSeek-V3's do, simulated: numbers are rounded to FP8 and multiplied in 32 bits.

arXiv:2412.19437, sections 3.3.1 and 3.3.2. Three products, all of their inputs in FP8: Fprop (y = x W^T), Dgrad (the
gradient of x, dy W) and Wgrad (the gradient of W, dy^T x). Weights are kept in 32 bits (the master copy), and rounded
anew at every use. Shapes: N tokens, I inputs, O outputs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_core.linear import Linear
from llm_core.model import LanguageModel
from llm_core.moe import Experts, Routing
from llm_core.quantization.fp8 import ACTIVATION_TILE, WEIGHT_BLOCK, dequantize_tiles, get_format, quantize_tiles
from llm_core.quantization.model import KEPT


@dataclass(frozen=True)
class Recipe:
    """How numbers are rounded. V3's is the default. A tile or block of None: one scale for the whole tensor.

    gradient_format: V3 takes E4M3 for gradients too; earlier work took E5M2, with more range and fewer digits.
    """

    activation_tile: tuple[int, int] | None = ACTIVATION_TILE
    weight_block: tuple[int, int] | None = WEIGHT_BLOCK
    format: str = "e4m3"
    gradient_format: str = "e4m3"

    def __post_init__(self):
        get_format(self.format)
        get_format(self.gradient_format)


V3 = Recipe()


def rounded(x: Tensor, tile: tuple[int, int] | None, format: str) -> Tensor:
    """x as FP8 keeps it, in 32 bits. Tiles lie along the last dimension, which is the one that is summed over."""
    return dequantize_tiles(*quantize_tiles(x, tile, format), tile)


class _Fp8Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, recipe: Recipe) -> Tensor:
        """x [N, I], weight [O, I] -> [N, O]"""
        x8 = rounded(x, recipe.activation_tile, recipe.format)
        w8 = rounded(weight, recipe.weight_block, recipe.format)
        ctx.save_for_backward(x8, w8)  # the input is kept as FP8 has it, which on a GPU saves memory
        ctx.recipe = recipe
        return x8 @ w8.T

    @staticmethod
    def backward(ctx, dy: Tensor):
        """dy [N, O]. Dgrad sums over outputs, Wgrad over tokens: tiles of dy and x lie along what is summed."""
        (x8, w8), recipe = ctx.saved_tensors, ctx.recipe
        tile, format = recipe.activation_tile, recipe.gradient_format
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = rounded(dy, tile, format) @ w8  # [N, I]
        if ctx.needs_input_grad[1]:
            dw = rounded(dy.T, tile, format) @ rounded(x8.T, tile, recipe.format).T  # [O, I]
        return dx, dw, None


def fp8_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, recipe: Recipe = V3) -> Tensor:
    """F.linear with all three products in simulated FP8: x [..., I], weight [O, I] -> [..., O]. The bias is exact."""
    out = _Fp8Linear.apply(x.reshape(-1, x.shape[-1]), weight, recipe).view(*x.shape[:-1], len(weight))
    return out if bias is None else out + bias


class Fp8Linear(nn.Linear):
    """nn.Linear on fp8_linear; same parameters, same names."""

    recipe = V3

    def forward(self, x: Tensor) -> Tensor:
        return fp8_linear(x, self.weight, self.bias, self.recipe)


class Fp8Experts(Experts):
    """The experts of moe.py on fp8_linear; same parameters, same names."""

    recipe = V3

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """x [N, D] -> [N, D]"""
        out = torch.zeros_like(x)
        for e in routing.experts.unique().tolist():
            token, place = torch.where(routing.experts == e)
            gate, up = (fp8_linear(x[token], weight[e], recipe=self.recipe) for weight in (self.gate, self.up))
            expert = fp8_linear(F.silu(gate) * up, self.down[e], recipe=self.recipe)
            out = out.index_add(0, token, expert * routing.weights[token, place, None])
        return out


def train_in_fp8(model: LanguageModel, recipe: Recipe = V3) -> LanguageModel:
    """A copy that trains with FP8 in its linear layers and experts; its tensors have the names of the model's.

    What V3 keeps in higher precision stays so: embeddings, output head, routers, norms, and attention itself (the
    softmax and its two products), of which MLA's absorbed way is a part.
    """
    copied = copy.deepcopy(model)
    for name, module in copied.named_modules():
        if type(module) in (nn.Linear, Linear) and name.rpartition(".")[2] not in KEPT:
            module.__class__ = Fp8Linear
        elif type(module) is Experts:
            module.__class__ = Fp8Experts
        else:
            continue
        module.recipe = recipe
    return copied
