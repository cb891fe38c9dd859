"""Checks of the lesson on real checkpoints: wrong answers get a hint, right ones may differ."""

import torch

OURS = {"kv_a_proj_with_mqa": "attention.kv_down", "kv_b_proj": "attention.kv_up", "o_proj": "attention.o_proj",
        "input_layernorm": "attention_norm"}


def name(theirs, table=OURS, block="blocks", number=None, end=".weight"):
    parts = theirs.split(".")
    return f"{block}.{parts[2] if number is None else number(parts[2])}.{table[parts[-2]]}{end}"


def turn(x, angles, pairs, keep=None, sign=1, interleaved=False):
    used = torch.zeros_like(angles)
    keep = slice(0, pairs) if keep is None else keep
    used[:, keep] = sign * angles[:, keep]
    z = torch.complex(*((x[:, 0::2], x[:, 1::2]) if interleaved else x.chunk(2, -1)))
    z = z * torch.polar(torch.ones_like(used), used)
    return torch.stack([z.real, z.imag], -1).flatten(1) if interleaved else torch.cat([z.real, z.imag], -1)


def wide(q, G, group=None, first=False):
    H, r = q.shape
    mask = torch.zeros(H, G)
    heads = torch.arange(H)
    mask[heads, heads // (H // G) if group is None else group(heads)] = 1
    return (q[:, :, None] * mask[:, None] if first else mask[:, :, None] * q[:, None]).flatten(1)


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "our_name": [
        (lambda t: name(t, OURS | {"kv_a_proj_with_mqa": "attention.kv_up", "kv_b_proj": "attention.kv_down"}),
         "down and up confused"),
        (lambda t: name(t, block="layers"), "blocks.NUMBER"),
        (lambda t: name(t, number=lambda n: n[:1]), "more than one digit"),
        (lambda t: name(t, end=""), "ends with .weight"),
        (lambda t: name(t, OURS | {"input_layernorm": "norm"}), "it should be"),
        (lambda t: [name(t)], "is a list"),
    ],
    "converted_bytes": [
        (lambda L, G, p, r, b: L * (r + G * p) * b // 8, "a pair is two"),
        (lambda L, G, p, r, b: L * (r + 2 * p) * b // 8, "rope key of its own"),
        (lambda L, G, p, r, b: L * G * (r + 2 * p) * b // 8, "there once"),
        (lambda L, G, p, r, b: L * 2 * G * p * b // 8, "latent is missing"),
        (lambda L, G, p, r, b: L * r * b // 8, "rope keys are missing"),
        (lambda L, G, p, r, b: (r + 2 * G * p) * b // 8, "each layer"),
        (lambda L, G, p, r, b: L * (r + 2 * G * p), "8 bits are a byte"),
        (lambda L, G, p, r, b: L * (r + 2 * G * p) * b, "those are bits"),
        (lambda L, G, p, r, b: L * (r + 2 * G * p) * 2, "written in"),
        (lambda L, G, p, r, b: 2 * L * (r + 2 * G * p) * b // 8, "counted twice"),
    ],
    "turn_some": [
        (lambda x, a, p: x, "nothing is turned"),
        (lambda x, a, p: turn(x, a, p, slice(None)), "all pairs"),
        (lambda x, a, p: turn(x, a, p, slice(p, None)), "the other pairs"),
        (lambda x, a, p: turn(x, a, p, sign=-1), "the other way"),
        (lambda x, a, p: turn(x, a, p, interleaved=True), "neighbours"),
        (lambda x, a, p: turn(x, a, p)[:, :2 * p], "stand still belong"),
        (lambda x, a, p: turn(x, a, p) + 1, "it should be"),
    ],
    "queries_for_one_key": [
        (lambda q, G: q.repeat(1, G), "in every place"),
        (lambda q, G: wide(q, G, lambda h: 0 * h), "the first key"),
        (lambda q, G: wide(q, G, lambda h: h % G), "dealt out in turn"),
        (lambda q, G: wide(q, G, first=True), "wrong order"),
        (lambda q, G: wide(q, G).view(len(q), G, -1), "side by side"),
        (lambda q, G: q, "G * r numbers wide"),
        (lambda q, G: wide(torch.ones_like(q), G), "something other"),
    ],
}

RIGHT = {
    "our_name": [name],
    "converted_bytes": [lambda L, G, p, r, b: torch.tensor(L * (r + 2 * G * p) * b / 8)],
    "turn_some": [turn],
    "queries_for_one_key": [wide],
}
