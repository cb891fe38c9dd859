"""Answers to the exercises of the lesson on FP8's formats."""

import math

import torch

from llm_core.quantization import fp8


def value(code, bias=7, least=True, one=1, parts=8, sign=True, nan=True):
    e, m = code >> 3 & 15, code & 7
    if nan and e == 15 and m == 7:
        return math.nan
    size = 2.0**-6 * m / 8 if least and e == 0 else 2.0 ** (e - bias) * (one + m / parts)
    return -size if sign and code >> 7 else size


def scales(x, reduce=lambda piece: piece.abs().amax(1), most=448, empty=1.0, pieces=None):
    out = torch.stack([reduce(piece) for piece in x.split(128, 1)[:pieces]], 1) / most
    return torch.where(out == 0, empty, out)


def size(rows, columns, up=True, each=4):
    blocks = math.ceil(rows / 128) * math.ceil(columns / 128) if up else (rows // 128) * (columns // 128)
    return rows * columns + each * blocks


def product(a, a_scale, b, b_scale, core, of_a=True, of_b=True, first=False, width=128, whole=True):
    K = a.shape[1] if whole else a.shape[1] // 128 * 128
    total = torch.zeros(len(a), len(b))
    for i, start in enumerate(range(0, K, width)):
        part = core(a[:, start:min(start + width, K)], b[:, start:min(start + width, K)])
        i = 0 if first else i
        part = part * a_scale[:, i, None] if of_a else part
        total += part * b_scale[:, i].repeat_interleave(128)[:len(b)] if of_b else part
    return total


def in_one_go(a, a_scale, b, b_scale, core):
    a = a * a_scale.repeat_interleave(128, 1)[:, :a.shape[1]]
    return a @ (b * b_scale.repeat_interleave(128, 0)[:len(b)].repeat_interleave(128, 1)[:, :b.shape[1]]).T


WRONG = {
    "e4m3_value": [
        (lambda c: value(c, nan=False), "no numbers"),
        (lambda c: value(c, bias=8), "bias 8"),
        (lambda c: value(c, least=False), "without the 1"),
        (lambda c: value(c, one=0), "where is the 1"),
        (lambda c: value(c, parts=7), "eighths"),
        (lambda c: value(c, sign=False), "sign forgotten"),
        (lambda c: value(c) + (c == 5), "for code 5"),
        (lambda c: [value(c)], "a number is needed"),
    ],
    "tile_scales": [
        (lambda x: scales(x, empty=0.0), "needs scale 1"),
        (lambda x: scales(x, lambda p: p.amax(1)), "magnitude"),
        (lambda x: scales(x, most=127), "INT8"),
        (lambda x: scales(x, most=1), "divide by 448"),
        (lambda x: scales(x, most=57344), "E5M2"),
        (lambda x: 1 / scales(x), "one over"),
        (lambda x: scales(x)[:, :max(1, x.shape[1] // 128)], "narrower tile"),
        (lambda x: x.abs().amax(1) / 448, "not one a row"),
    ],
    "fp8_bytes": [
        (lambda r, c: size(r, c, up=False), "Round the number of blocks up"),
        (lambda r, c: size(r, c, each=1), "one byte"),
        (lambda r, c: size(r, c, each=32), "32 bytes"),
        (lambda r, c: r * c, "where are the scales"),
        (lambda r, c: size(r, c) + r * c, "not two"),
        (lambda r, c: r * c + 4 * r * math.ceil(c / 128), "tiles of 1 x 128"),
        (lambda r, c: r * c + 4 * math.ceil(r * c / 16384), "cut apart"),
        (lambda r, c: size(r, c) + 0.5, "whole number of bytes"),
    ],
    "smallest_kept": [
        (lambda m: m / 448 / 512, "half of it"),
        (lambda m: 2**-10, "where is the scale"),
        (lambda m: m * 448 / 1024, "multiplied by 448"),
        (lambda m: 448 / m / 1024, "higher"),
        (lambda m: m / 448 / 64, "subnormal"),
        (lambda m: m / 448 / 128, "half of the smallest number with a full"),
        (lambda m: m / 254, "INT8"),
        (lambda m: m / 1024, "its 448"),
    ],
    "promoted_product": [
        (lambda *x: product(*x, of_a=False, of_b=False), "scales are missing"),
        (lambda *x: product(*x, of_b=False), "b's scales"),
        (lambda *x: product(*x, of_a=False), "a's scales"),
        (lambda *x: product(*x, first=True), "of its own"),
        (lambda *x: product(*x, whole=False), "last piece"),
        (lambda *x: product(*x, width=1024), "promote after every 128"),
        (lambda a, s, b, t, core: product(a, 1 / s, b, 1 / t, core), "divided"),
        (in_one_go, "not used"),
    ],
}
RIGHT = {
    "e4m3_value": [value, lambda c: fp8.all_values("e4m3")[c], lambda c: torch.tensor(value(c))],
    "tile_scales": [scales, lambda x: fp8.quantize_tiles(x)[1], lambda x: scales(x).double()],
    "fp8_bytes": [size, lambda r, c: float(size(r, c))],
    "smallest_kept": [lambda m: m / (448 * 1024), lambda m: torch.tensor(m / 448 / 1024)],
    "promoted_product": [product, lambda *x: product(*x).double()],
}
