"""A whole model with quantised weights, ready to generate."""

from __future__ import annotations

import copy

from torch import nn

from llm_core.model import LanguageModel
from llm_core.moe import Experts
from llm_core.quantization.integers import check
from llm_core.quantization.linear import QuantizedExperts, quantized_linear

KEPT = ("output_head", "eh_proj")  # linear layers that stay as they are, by the last part of their name


def quantize_model(model: LanguageModel, bits: int = 8, per: str | int = "channel", *,
                   head: bool = False) -> LanguageModel:
    """A copy of the model whose linear layers and experts have `bits` bits a weight; `per` as in integers.quantize.

    The default, 8 bits with a scale for each output, and 4 bits per 32, 64, 128 or 256 inputs, run on torch's own
    kernels; the rest is turned back into numbers at every call, which shows what it does to the loss, not to the clock.

    These stay in the model's own precision, as DeepSeek-V3 keeps them out of FP8 (arXiv:2412.19437, section 3.3.1),
    since little is to be won there and much to be lost: the embeddings (one row of them is read for a token), the
    output head (its errors go straight into the logits), the routers (a small error sends a token to other experts),
    the norms (a handful of numbers), biases, and MTP's eh_proj.
    head True: the output head is quantised too. Of a tied head, which *is* the embedding, a quantised copy is made: the
    embedding stays, and config.tie_embeddings of the copy is False.
    For inference only. ValueError for bits or per that cannot be.
    """
    check(bits, per)
    replaced = {}
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Linear) and (last not in KEPT or (head and last == "output_head")):
            replaced[id(module)] = quantized_linear(module.weight, module.bias, bits, per)
        elif isinstance(module, Experts):
            replaced[id(module)] = QuantizedExperts(module, bits, per)
    quantized = copy.deepcopy(model, memo=replaced)  # what stands in the memo is taken instead of being copied
    if head and model.config.tie_embeddings:
        quantized.config = model.config.replace(tie_embeddings=False)
        quantized.output_head = quantized_linear(model.token_embedding.weight, None, bits, per)
    return quantized.eval().requires_grad_(False)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, scales among them; what is shared counts once."""
    tensors = {id(tensor): tensor.nbytes for tensor in [*model.parameters(), *model.buffers()]}
    return sum(tensors.values())
