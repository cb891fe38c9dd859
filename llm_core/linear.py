"""Linear layers: x W^T + b, in inference on a CPU by whichever way reads the weights fastest."""

from __future__ import annotations

import threading

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_core.weighted_rows import runs, weighted_rows

SMALL, MIDDLE, LARGE = 2**15, 2**16, 2**18  # numbers of weights; where the ways cross, on two cores
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


class Linear(nn.Linear):
    """nn.Linear by `linear`; same parameters, same names."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]"""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear: x [..., I], weight [O, I], bias [O] -> [..., O]. Three ways to one result.

    A token that is decoded reads every weight for one row of x, so only reading speed counts. F.linear leaves 32-bit
    numbers to BLAS, which for a few rows reads at a third of what the memory gives.
    - One row and a matrix that is not large: multiply all, sum each row. Both steps use every core, and what lies
      between them stays in the cores' caches. (In the same place each time: new memory costs more than the work.)
    - A large matrix: oneDNN, which torch brings too and takes for 16 bits; also for many rows it is no slower. It is
      called by a private name, so what it has not been tried with goes to F.linear, and so do weights with gaps between
      their rows, which it reads hundreds of times slower.
    """
    size = weight.numel()
    if size < SMALL or not plain_inference(x, weight):
        return F.linear(x, weight, bias)
    if size <= LARGE and x.numel() == weight.shape[1]:
        products = torch.mul(weight, x.reshape(-1), out=_here.products[:size].view(weight.shape))  # [O, I]
        out = products.sum(dim=-1).view(*x.shape[:-1], -1)
        return out if bias is None else out + bias
    if size > MIDDLE and x.numel() > 0 and _ONEDNN is not None and weight.is_contiguous():
        return _ONEDNN(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def by_head(x: Tensor, weight: Tensor) -> Tensor:
    """A matrix for each head: x [B, H, T, I], weight [H, I, O] -> [B, H, T, O]."""
    H, I, O = weight.shape
    if x.numel() != H * I or not plain_inference(x, weight):
        return x @ weight
    if weight.stride()[1:] == (O, 1) and weight.stride(0) % O == 0:  # one token, and rows of one matrix
        step = weight.stride(0) // O  # rows from a head's first to the next head's
        rows = weight.as_strided(((H - 1) * step + I, O), (O, 1))
        return weighted_rows(rows, runs(H, I, step), x.reshape(H, I)).view(1, H, 1, O)
    return (x[0].mT * weight).sum(dim=1)[None, :, None]  # one token, as in `linear`


class _PerThread(threading.local):
    def __init__(self):
        with torch.inference_mode(False):  # else it could be written in inference mode only
            self.products = torch.empty(LARGE, dtype=torch.float32, device="cpu")


_here = _PerThread()


def plain_inference(x: Tensor, weight: Tensor) -> bool:
    return (not torch.is_grad_enabled() and x.dtype == weight.dtype == torch.float32
            and x.device.type == weight.device.type == "cpu" and not torch.is_autocast_enabled("cpu"))
