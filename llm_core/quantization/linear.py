"""Linear layers whose weights are kept in few bits while the activations stay floating-point ("weight-only").

One token reads every weight once, so a layer is as fast as its weights are few bytes, if they are turned back into
numbers on the way into the multiplication. torch has such kernels for 8 and 4 bits. Where they cannot run, and for all
other widths, the weight is first turned back whole. Shapes: O outputs, I inputs, N rows of activations.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_core.moe import Experts, Routing
from llm_core.quantization.integers import Quantized, quantize

FEW_ROWS = 16  # up to here torch's int8 kernel wins; beyond, an ordinary matrix product of whole codes does
KERNEL_GROUPS = (32, 64, 128, 256)  # sizes of a group that torch's 4-bit kernel knows


class QuantizedLinear(nn.Module):
    """A linear layer in any width from 2 to 8 bits, packed; the weight is turned back into numbers at every call."""

    def __init__(self, weight: Tensor, bias: Tensor | None, bits: int, per: str | int):
        super().__init__()
        made = quantize(weight, bits, per, scale_dtype=torch.bfloat16)
        self.bits, self.per, self.shape, self.dtype = bits, per, weight.shape, weight.dtype
        self.register_buffer("packed", made.packed)  # [O, bytes]
        self.register_buffer("scale", made.scale)  # [O, groups]
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The weight as numbers, [O, I], made afresh: for those who need the matrix itself (MLA's absorbed way)."""
        return Quantized(self.packed, self.scale, None, self.shape, self.bits, self.per).dequantize().to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]"""
        return F.linear(x, self.weight.to(x.dtype), self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.shape[1]}, out_features={self.shape[0]}, bits={self.bits}, per={self.per}"


class Int8Linear(nn.Module):
    """Codes int8 [O, I], one scale for each output. Activations go in as bf16, as torch's kernel takes them.

    The kernel is torch._weight_int8pack_mm(bf16 [N, I], int8 [O, I], bf16 scales [O]) -> bf16 [N, O]. On x86 it reads
    16 numbers at a time from aligned places and checks neither: with I = 24 it returns garbage, with I = 13 it ends
    the process (seen with torch 2.13). So codes are filled up with zeros to a multiple of 16, and activations too.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        made = quantize(weight, 8, "channel", scale_dtype=torch.bfloat16)
        self.shape, self.dtype = weight.shape, weight.dtype
        self.register_buffer("codes", F.pad(made.codes.to(torch.int8), (0, -weight.shape[1] % 16)))
        self.register_buffer("scale", made.scale[:, 0].contiguous())  # [O]
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The weight as numbers, [O, I], made afresh: for those who need the matrix itself (MLA's absorbed way)."""
        return (self.codes[:, :self.shape[1]] * self.scale[:, None].float()).to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]"""
        rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)  # [N, I]
        if unused := self.codes.shape[1] - rows.shape[1]:
            rows = F.pad(rows, (0, unused))
        if len(rows) <= FEW_ROWS and kernel_is_there("_weight_int8pack_mm", rows):
            out = torch._weight_int8pack_mm(aligned(rows), aligned(self.codes), self.scale)  # [N, O]
        else:
            out = F.linear(rows, self.codes.to(torch.bfloat16)) * self.scale  # a code of 8 bits is exact in bf16
        out = out.to(x.dtype)
        return (out if self.bias is None else out + self.bias).reshape(*x.shape[:-1], -1)

    def extra_repr(self) -> str:
        return f"in_features={self.shape[1]}, out_features={self.shape[0]}, bits=8, per=channel"


class Int4Linear(nn.Module):
    """Codes of 4 bits in groups of 32, 64, 128 or 256 inputs, laid out and multiplied by torch's kernel for the CPU.

    The kernel takes O in steps of 16 (rows of zeros fill it up) and counts its codes from 0: a weight is
    (code - 8) scale + shift, shift 0 here.
    Its layout depends on the processor, so quantised layers are made where they run, and not stored.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, group: int):
        super().__init__()
        made = quantize(F.pad(weight, (0, 0, 0, -weight.shape[0] % 16)), 4, group, scale_dtype=torch.bfloat16)
        self.shape, self.dtype, self.group = weight.shape, weight.dtype, group
        codes = (made.codes + 8).int()
        self.register_buffer("packed", torch._convert_weight_to_int4pack_for_cpu(codes, 1))  # uint8 [O, I / 2]
        scale = made.scale.T  # [groups, O]
        self.register_buffer("scale_and_shift", torch.stack([scale, torch.zeros_like(scale)], dim=-1).contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @staticmethod
    def fits(weight: Tensor, bits: int, per: str | int) -> bool:
        """Whether torch's kernel can take this weight."""
        return (bits == 4 and per in KERNEL_GROUPS and weight.shape[1] % per == 0
                and kernel_is_there("_weight_int4pack_mm_for_cpu", weight))

    @property
    def weight(self) -> Tensor:
        """The weight as numbers, [O, I], in bf16's precision. Only the kernel knows its layout, so let it multiply."""
        return self._product(torch.eye(self.shape[1])).T.to(self.dtype)

    def _product(self, x: Tensor) -> Tensor:
        rows = aligned(x.reshape(-1, x.shape[-1]).to(torch.bfloat16))  # [N, I]
        out = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, self.group, self.scale_and_shift)
        return out[:, :self.shape[0]]

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]"""
        out = self._product(x).to(x.dtype)  # [N, O]
        return (out if self.bias is None else out + self.bias).reshape(*x.shape[:-1], -1)

    def extra_repr(self) -> str:
        return f"in_features={self.shape[1]}, out_features={self.shape[0]}, bits=4, per={self.group}"


class QuantizedExperts(nn.Module):
    """The experts of an MoE layer, each of their matrices a quantised layer of its own."""

    def __init__(self, experts: Experts, bits: int, per: str | int):
        super().__init__()
        for name in ("gate", "up", "down"):
            layers = [quantized_linear(weight, None, bits, per) for weight in getattr(experts, name)]
            setattr(self, name, nn.ModuleList(layers))

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """x [N, D] -> [N, D]. An expert whom no token chose is not read."""
        out = torch.zeros_like(x)
        for e in routing.experts.unique().tolist():
            token, place = torch.where(routing.experts == e)  # which tokens chose e, and as which of their K
            hidden = F.silu(self.gate[e](x[token])) * self.up[e](x[token])
            out.index_add_(0, token, self.down[e](hidden) * routing.weights[token, place, None].to(x.dtype))
        return out


def quantized_linear(weight: Tensor, bias: Tensor | None, bits: int, per: str | int) -> nn.Module:
    """The fastest layer that can hold this weight in this way."""
    weight = weight.contiguous()  # codes would lie as it does, and kernels would copy turned ones at every call
    if bits == 8 and per == "channel":
        return Int8Linear(weight, bias)
    if Int4Linear.fits(weight, bits, per):
        return Int4Linear(weight, bias, per)
    return QuantizedLinear(weight, bias, bits, per)


def kernel_is_there(name: str, x: Tensor) -> bool:
    """torch's kernels of this kind are private names that not every build has, and these are for the CPU."""
    return x.device.type == "cpu" and hasattr(torch.ops.aten, name)


def aligned(x: Tensor) -> Tensor:
    """x itself, or a copy if it does not begin at a multiple of 64 bytes, as a slice of another tensor may not."""
    return x.contiguous() if x.data_ptr() % 64 == 0 else x.clone(memory_format=torch.contiguous_format)
