"""A small router that really learns, one step at a time: how it collapses, and what a bias or a loss does about it.

512 choices a step: N = 256 tokens, each sent to K = 2 of E = 8 experts of llm_core.moe. Tokens come in eight kinds, the
commonest eight times as often as the rarest (1, 1/2, 1/3 ...), and share a direction, as tokens of a young model do. An
expert has to learn what each kind is to become: one rule for all tokens, and a smaller one for each kind. Router and
experts learn it together by Adam, so whoever is chosen learns, and whoever has learned is chosen.

Everything comes from the seed alone: first weights, kinds, rules, and the tokens of every step.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core import balancing
from llm_core.config import MoEConfig
from llm_core.moe import Experts, Router
from llm_core.validation import real, whole

TOKENS, WIDTH, EXPERTS, CHOSEN, EXPERT_WIDTH = 256, 16, 8, 2, 8
MOST_STEPS = 400
WORST = EXPERTS / CHOSEN  # the imbalance if each token goes to the same K experts
ROUTER_RATE, EXPERT_RATE = 0.03, 0.01  # learning rates


@dataclass(frozen=True)
class Setting:
    """gamma: how far V3's bias moves in a step (arXiv:2412.19437, section 2.1.2); alpha: the factor of the balance loss
    (the same section, its formulas 17 to 20, over all tokens of a step as one text). 0 switches each off."""

    gamma: float = 0.0
    alpha: float = 0.0
    seed: int = 0

    def __post_init__(self):
        real("gamma", self.gamma, or_zero=True)
        real("alpha", self.alpha, or_zero=True)
        whole("seed", self.seed, least=0)
        for name, value, most in (("gamma", self.gamma, 1), ("alpha", self.alpha, 10), ("seed", self.seed, 2**31)):
            if value > most:
                raise ValueError(f"{name} {value:,} is too large for this little router; {most:,} is the most")


@dataclass(frozen=True)
class Step:
    """What is seen at one step, before anything is changed.

    load: tokens that each expert got, [E]; bias: the selection bias by which they were chosen, [E]; imbalance: the
    largest load over the mean one, 1 in balance and E / K = 4 at the worst; error: mean squared, of what is to be
    learned.
    """

    load: tuple[int, ...]
    bias: tuple[float, ...]
    imbalance: float
    error: float

    @property
    def mean(self) -> float:
        """The mean load, in tokens."""
        return sum(self.load) / len(self.load)

    def moves(self, gamma: float) -> list[float]:
        """How far each expert's bias moves after this step: -gamma, 0 or +gamma."""
        return [gamma * ((n < self.mean) - (n > self.mean)) for n in self.load]


class Run:
    """One run, which goes on as far as it is asked to. `until` may be called from several threads."""

    def __init__(self, setting: Setting):
        self.setting, self.path, self._lock = setting, [], threading.Lock()
        self._draw = torch.Generator().manual_seed(setting.seed)
        self._kinds = 2 * F.normalize(self._normal(EXPERTS, WIDTH), dim=-1)  # each of size 2
        self._shared = 2 * F.normalize(self._normal(WIDTH), dim=-1)  # what all tokens have in common, as large
        self._rule = 2 * self._normal(WIDTH, WIDTH) / WIDTH**0.5
        self._rules = 0.3 * self._normal(EXPERTS, WIDTH, WIDTH) / WIDTH**0.5
        self.router = Router(WIDTH, MoEConfig(EXPERTS, CHOSEN, EXPERT_WIDTH, scoring="sigmoid", norm_topk_prob=True,
                                              selection_bias=True))
        self.experts = Experts(EXPERTS, WIDTH, EXPERT_WIDTH)
        with torch.no_grad():
            for weight in (self.router.weight, *self.experts.parameters()):
                weight.copy_(self._normal(*weight.shape) * (0.15 if weight is self.router.weight else 0.3))
        self._optimizer = torch.optim.Adam([{"params": self.router.parameters(), "lr": ROUTER_RATE},
                                            {"params": self.experts.parameters(), "lr": EXPERT_RATE}])

    def until(self, step: int) -> list[Step]:
        """The steps from 0 to this one. ValueError beyond MOST_STEPS."""
        whole("step", step, least=0)
        if step > MOST_STEPS:
            raise ValueError(f"step {step:,} is beyond the last one, {MOST_STEPS}")
        with self._lock:
            while len(self.path) <= step:
                self.path.append(self._advance())
            return self.path[:step + 1]

    def tokens(self) -> tuple[Tensor, Tensor]:
        """The next step's tokens [N, D], and what they are to become [N, D]."""
        often = 1 / torch.arange(1, EXPERTS + 1).float()
        kind = torch.multinomial(often, TOKENS, replacement=True, generator=self._draw)
        x = self._kinds[kind] + self._shared + 0.3 * self._normal(TOKENS, WIDTH)
        return x, x @ self._rule + torch.einsum("nd,nde->ne", x, self._rules[kind])

    def _advance(self) -> Step:
        x, target = self.tokens()
        bias = tuple(self.router.selection_bias.tolist())
        with torch.enable_grad():
            routing = self.router(x)
            error = F.mse_loss(self.experts(x, routing), target)
            loss = error
            if self.setting.alpha:
                loss = error + self.setting.alpha * balancing.sequence_balance_loss(routing, 1)
            self._optimizer.zero_grad()
            loss.backward()
        self._optimizer.step()
        self.router.update_bias(routing.experts, self.setting.gamma)
        load = balancing.load(routing)
        return Step(tuple(load.tolist()), bias, balancing.max_violation(load) + 1, error.item())

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._draw)


@functools.lru_cache(maxsize=64)
def run(setting: Setting) -> Run:
    """The run of a setting, kept, so that looking at another step of it costs nothing."""
    return Run(setting)
