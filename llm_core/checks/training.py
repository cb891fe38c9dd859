"""Checks of the lesson "Training a GPT"."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core.checks.core import Wrong, attempt, check, compare, random, same, tensor
from llm_core.training.recipe import Recipe


def _several(function: Callable, *arguments, names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...],
             hints: dict[str, str] | None = None) -> list[Tensor]:
    """The function's result, which must be as many tensors as there are names, each of its shape."""
    result = attempt(function, *arguments, hints=hints)
    if not isinstance(result, (tuple, list)) or len(result) != len(names):
        many = f" of {len(result)}" if isinstance(result, (tuple, list)) else ""
        raise Wrong(f"{len(names)} results are needed, as in `return {', '.join(names)}`, and your function returned a "
                    f"{type(result).__name__}{many}")
    return [tensor(lambda part=part: part, shape=shape, names=name) for part, shape, name in zip(result, shapes, names)]


def _number(result, what: str) -> float:
    """A finite or infinite number, from a number or a tensor of one."""
    if isinstance(result, Tensor):
        if result.numel() != 1 or result.is_complex():
            raise Wrong(f"{what} is one number, and yours is a tensor of shape {list(result.shape)}")
        result = result.item()
    if isinstance(result, bool) or not isinstance(result, (int, float)):
        raise Wrong(f"{what} is one number, and your function returned a {type(result).__name__}")
    return float(result)


def _judge(got: float, truth: float, mistakes: list[tuple[str, float]], place: str = "") -> None:
    def near(number: float) -> bool:
        return math.isclose(got, number, rel_tol=1e-4, abs_tol=1e-9)

    if near(truth):
        return
    for sentence, number in mistakes:
        if near(number):
            raise Wrong(sentence + place)
    raise Wrong(f"it should be {truth:.6g}, and you have {got:.6g}{place}")


@check
def shifted_tasks(function) -> str:
    """function(ids [B, T + 1]) -> inputs [B, T], targets [B, T]."""
    ids = torch.tensor([[3, 7, 1, 9, 4], [8, 2, 2, 6, 5]])
    before, after = ids[:, :-1].float(), ids[:, 1:].float()
    result = attempt(function, ids)
    if isinstance(result, (tuple, list)) and len(result) == 2 and all(
            isinstance(part, Tensor) and part.shape == ids.shape for part in result):
        rolled = " Does roll bring the first token to the end? It is no target of the last." if torch.equal(
            result[1].float(), ids.roll(-1, 1).float()) else ""
        raise Wrong("the inputs leave the last token out, since nothing after it is there to be guessed: both results "
                    f"are one shorter than ids.{rolled}")
    got = _several(function, ids, names=("inputs", "targets"), shapes=((2, 4), (2, 4)))
    if not same(got[0], before) or not same(got[1], after):
        if same(got[0], after) and same(got[1], before):
            raise Wrong("the model would learn to say what came before: are inputs and targets swapped?")
        if same(got[0], got[1]):
            raise Wrong("inputs and targets are the same: each token would be its own answer, and the loss would fall "
                        "to nothing. The target is the token one place further on")
        if same(got[0], before):
            raise Wrong("the inputs are right. Target t is the token after input t: ids from place 1 on")
        if same(got[1], after):
            raise Wrong("the targets are right. The inputs are all ids but the last")
        raise Wrong("the inputs are all ids but the last, the targets all but the first, in each text of the batch")
    again = _several(function, ids[:1, :2], names=("inputs", "targets"), shapes=((1, 1), (1, 1)))
    if not same(again[0], before[:1, :1]) or not same(again[1], after[:1, :1]):
        raise Wrong("for a text of two tokens there is one task: the first is the input, the second the target")
    return "each input's target is the token after it, in every text of the batch"


@check
def mean_loss(function) -> str:
    """function(logits [N, V], targets [N]) -> the mean cross-entropy, in nats."""
    logits, targets = random(6, 10, seed=1) * 2, torch.tensor([3, 0, 9, 3, 7, 5])
    N = torch.arange(6)
    shares = logits.softmax(-1)
    right = shares[N, targets]
    hints = {"out of bounds": "Row n's right answer stands in column targets[n].",
             "out of range": "Row n's right answer stands in column targets[n]."}
    got = _number(attempt(function, logits, targets, hints=hints), "the mean loss")
    mean = -right.log().mean().item()
    _judge(got, mean, [
        ("the sign is wrong: the logarithm of a share is negative, and a loss is minus that", -mean),
        ("that is the sum over the tasks; their mean is wanted", 6 * mean),
        ("is it divided by the number of logits? The mean runs over the tasks, one a row", mean / 10),
        ("those are bits: log is to the base e here (torch.log), and gives nats", mean / math.log(2)),
        ("is it log10? A loss in nats has the natural logarithm", mean / math.log(10)),
        ("is the mean taken before the logarithm? Each task has its own loss; the mean comes last",
         -right.mean().log().item()),
        ("that is the mean share of the right tokens; where is the logarithm?", right.mean().item()),
        ("that is minus the mean share of the right tokens; where is the logarithm?", -right.mean().item()),
        ("are the logits taken for shares? They need a softmax first", -logits[N, targets].mean().item()),
        ("is the softmax over dimension 0? Each task's shares, one row, sum to 1",
         -logits.softmax(0)[N, targets].log().mean().item()),
        ("is only the best guess looked at? The loss asks for the share of the right token, likely or not",
         -shares.amax(-1).log().mean().item()),
        ("is the softmax applied twice?", F.cross_entropy(shares, targets).item()),
        ("does every column count? Only the right token's does", -shares.log().mean().item()),
    ])
    for shift in (1000.0, -1000.0):
        got = _number(attempt(function, logits + shift, targets), "the mean loss")
        if not math.isclose(got, mean, rel_tol=1e-3):
            raise Wrong(f"right for small logits, but with {shift:g} added to all it is {got:.4g}: e to the 1000 is "
                        "too large for a number, e to the -1000 is 0. Subtract the row's largest logit first: no share "
                        "changes")
    return f"{mean:.4f} as torch has it, also where e to the logits would overflow"


def _adamw(w, g, m, v, t, lr, beta1, beta2, eps, decay, *, correct=True, decoupled=True, root=True, square=True,
           scale_decay=True, sign=1.0, late=0):
    if not decoupled:
        g = g + decay * w
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g * g if square else g.abs())
    m_hat, v_hat = (m / (1 - beta1**(t + late)), v / (1 - beta2**(t + late))) if correct else (m, v)
    step = m_hat / (v_hat.sqrt() + eps if root else (v_hat + eps).sqrt())
    if decoupled:
        w = w * (1 - (lr if scale_decay else 1) * decay)
    return w - sign * lr * step, m, v


@check
def adamw_step(function) -> str:
    """function(w, g, m, v, t, lr, beta1, beta2, eps, decay) -> the new w, m and v; t counts from 1."""
    shape, settings = (3, 4), (0.1, 0.8, 0.9, 1e-3, 0.5)
    w, g = random(*shape, seed=2), random(*shape, seed=3) * 0.05
    g[0, 0] = 0.0
    parameter = torch.nn.Parameter(w.clone())
    lr, beta1, beta2, eps, decay = settings
    optimizer = torch.optim.AdamW([parameter], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    m, v = torch.zeros(shape), torch.zeros(shape)
    for t in (1, 2, 3):
        gradient = g * t
        parameter.grad = gradient.clone()
        optimizer.step()
        state = optimizer.state[parameter]
        got = _several(function, w, gradient, m, v, t, *settings, names=("w", "m", "v"), shapes=(shape,) * 3)
        truth = parameter.detach(), state["exp_avg"], state["exp_avg_sq"]
        if not all(same(a, b) for a, b in zip(got, truth)):
            _explain_step(t, got, truth, (w, gradient, m, v, t, *settings))
        w, m, v = (part.clone() for part in truth)
    return "three steps, equal to torch.optim.AdamW: weights and both moments"


def _explain_step(t: int, got, truth, case) -> None:
    w, g, m, v, _, lr, beta1, beta2, eps, decay = case
    at = f" (step {t})"
    where = [
        ("the bias correction is missing: m and v begin at 0, so in step t they are divided by 1 - beta to the t",
         _adamw(*case, correct=False)),
        ("t in the correction is one too large: the first step has t = 1, so 1 - beta to the 1", _adamw(*case, late=1)),
        ("is the weight decay added to the gradient? Then it passes through the moments: that is Adam with L2. In "
         "AdamW w itself shrinks, by lr x decay", _adamw(*case, decoupled=False)),
        ("is the weight decay multiplied by lr? w shrinks by lr x decay", _adamw(*case, scale_decay=False)),
        ("where is the weight decay? w shrinks by lr x decay", _adamw(*case[:-1], 0.0)),
        ("the weights go up the slope: the step is subtracted", _adamw(*case, sign=-1.0)),
        ("is eps under the root? In AdamW it is added to the root", _adamw(*case, root=False)),
        ("v is the mean of the gradient's square", _adamw(*case, square=False)),
        ("are the two betas swapped? beta1 belongs to m, beta2 to v",
         _adamw(w, g, m, v, t, lr, beta2, beta1, eps, decay)),
        ("are the corrected moments returned? m and v go on uncorrected; only the step uses the corrected ones",
         (truth[0], truth[1] / (1 - beta1**t), truth[2] / (1 - beta2**t))),
    ]
    for sentence, wrong in where:
        if all(same(a, b) for a, b in zip(got, wrong)):
            raise Wrong(sentence + at)
    for name, mine, theirs in zip("mvw", (got[1], got[2], got[0]), (truth[1], truth[2], truth[0])):
        if not same(mine, theirs):
            worst = (mine - theirs).abs().nan_to_num(nan=float("inf")).argmax()
            raise Wrong(f"{name} is the first that differs: {mine.flatten()[worst].item():.4g} instead of "
                        f"{theirs.flatten()[worst].item():.4g}{at}")


@check
def rate_at(function) -> str:
    """function(step, steps, warmup, highest, lowest) -> the learning rate of that step; steps count from 0."""
    steps, warmup, highest, lowest = 100, 10, 0.02, 0.002
    recipe = Recipe("gpt-mini", steps=steps, warmup_steps=warmup, learning_rate=highest, final_learning_rate=lowest)

    def cosine(progress):
        return lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * progress))

    for step in (4, 0, 9, 10, 40, 55, 99, 100, 150):  # 4 first: at 0 some mistakes give the same
        got = _number(attempt(function, step, steps, warmup, highest, lowest,
                              hints={"math domain": "Is anything divided or rooted below 0?"}), "a learning rate")
        after = (step - warmup) / (steps - warmup)
        mistakes = [
            ("at step 0 nothing would be learned. It is the first of the warm-up: (step + 1) / warmup of the highest",
             highest * step / warmup),
            ("does the cosine begin at step 0? It begins where the warm-up ends", cosine(step / steps)),
            ("does the cosine end at 0? It ends at lowest", 0.5 * highest * (1 + math.cos(math.pi * after))),
            ("is that a straight line down? Half a cosine is wanted", highest + (lowest - highest) * after),
            ("is the angle in degrees? cos counts in radians: half a turn is pi",
             lowest + (highest - lowest) * 0.5 * (1 + math.cos(180 * after))),
            ("is it a whole turn? From the highest down to the lowest is half a turn, pi", cosine(2 * after)),
            ("is that a quarter of a turn? Half a cosine goes from 1 to -1: 0.5 x (1 + cos)",
             lowest + (highest - lowest) * math.cos(0.5 * math.pi * after)),
            ("is the cosine divided by steps? From the end of the warm-up to the last step it is steps - warmup",
             cosine((step - warmup) / steps)),
            ("the warm-up is missing: it rises in a straight line first", highest if step < warmup else math.inf),
            ("the cosine is right while it lasts; what after the last step? It stays at lowest", cosine(after)),
        ]
        _judge(got, recipe.learning_rate_at(step), mistakes, f" (at step {step} of {steps})")
    return "a straight line up, half a cosine down, and the lowest rate from then on, as llm_core's recipe has it"


@check
def bits_per_byte_of(function) -> str:
    """function(losses [N], in nats a token, text) -> bits a byte."""
    text = "A true friend, ein wahrer Freund für dich, सच्चा मित्र"
    losses = random(23, seed=4).abs() * 3 + 0.5
    total, n_bytes, n_characters = losses.sum().item(), len(text.encode()), len(text)
    got = _number(attempt(function, losses, text, hints={
        "has no len": "len counts the characters of a text, or the bytes of text.encode()."}), "bits a byte")
    ln2 = math.log(2)
    _judge(got, total / ln2 / n_bytes, [
        ("those are nats a byte: 1 bit is ln 2 nats, so divide by ln 2", total / n_bytes),
        ("are the nats multiplied by ln 2? A bit is the smaller unit, 0.69 nats: divide", total * ln2 / n_bytes),
        ("is the text counted in characters? The sign म is one character and three bytes: text.encode()",
         total / ln2 / n_characters),
        ("is the text counted in characters, and the loss in nats?", total / n_characters),
        ("that is bits a token; all losses together are shared out over the bytes", total / ln2 / 23),
        ("that is the mean loss a token, in nats", total / 23),
        ("is the mean of the losses taken? All of them together are what the text costs", total / 23 / ln2 / n_bytes),
        ("that is what the whole text costs, in bits; divide by its bytes", total / ln2),
        ("is it turned upside down? Bits over bytes", n_bytes * ln2 / total),
    ])
    return f"{total / ln2 / n_bytes:.3f} bits a byte: what the whole text costs, shared out over its {n_bytes} bytes"


@check
def clipped(function) -> str:
    """function(gradients, most) -> the same list of tensors, scaled so that all together are no longer than most."""
    parts = [random(3, 4, seed=5), random(5, seed=6) * 4, random(2, 2, 2, seed=7)]
    shapes, names = tuple(tuple(part.shape) for part in parts), ("first", "second", "third")
    norm = math.sqrt(sum(part.square().sum().item() for part in parts))

    def answer(gradients: list[Tensor], most: float) -> Tensor:
        def call(*tensors):
            return function(list(tensors), most)
        return torch.cat([part.flatten() for part in _several(call, *gradients, names=names, shapes=shapes)])

    def flat(gradients) -> Tensor:
        return torch.cat([part.flatten() for part in gradients])

    compare(answer(parts, 1.0), flat(parts) / norm, [
        ("nothing is scaled", flat(parts)),
        ("is each tensor clipped by itself? The length is that of all of them together, so that the direction of the "
         "step stays", flat(part / max(1.0, part.norm().item()) for part in parts)),
        ("are the single numbers clipped? That turns the direction; all are multiplied by one factor",
         flat(parts).clamp(-1, 1)),
        ("is the root missing? The length is the root of the sum of squares", flat(parts) / norm**2),
        ("is that divided by the largest number? The length is the root of the sum of squares",
         flat(parts) / flat(parts).abs().max()),
        ("is that divided by the sum of all sizes? The length is the root of the sum of squares",
         flat(parts) / flat(parts).abs().sum()),
        ("are the three lengths added? Lengths at right angles add by their squares",
         flat(parts) / sum(part.norm() for part in parts)),
    ], nan="Is a length of 0 divided by?")
    compare(answer(parts, 3.0), flat(parts) * 3 / norm, [
        ("is it always scaled to length 1? It may be as long as `most`", flat(parts) / norm)])
    small = [part / norm / 2 for part in parts]
    compare(answer(small, 1.0), flat(small), [
        ("a gradient that is short enough must stay as it is; yours is made longer", flat(small) * 2)])
    nothing = [torch.zeros_like(part) for part in parts]
    compare(answer(nothing, 1.0), flat(nothing), [], nan="A gradient of zeros has length 0: nothing is to be divided.")
    return "one factor for all, only when they are too long, and no division by 0"
