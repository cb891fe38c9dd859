"""The training loop: a batch, the loss, the gradient, one step of AdamW; now and then a look at held-out text.

A run can be stopped at any moment and goes on exactly: its state is everything that decides the next step, and the
batches depend on the step alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from llm_core import presets
from llm_core.balancing import load, max_violation
from llm_core.config import ModelConfig
from llm_core.data import batch_at
from llm_core.model import LanguageModel
from llm_core.moe import Routing
from llm_core.mtp import mtp_loss
from llm_core.quantization.fp8_training import train_in_fp8
from llm_core.training import checkpoints
from llm_core.training.evaluate import bits_per_byte
from llm_core.training.log import Log
from llm_core.training.ranks import ALONE, Ranks
from llm_core.training.recipe import Recipe

LOG_EVERY = 10  # steps between two lines of the log


@dataclass
class Result:
    """The model with its best weights put back, and what was measured on the way."""

    model: LanguageModel
    best_step: int = 0
    best_bits_per_byte: float = float("inf")
    curve: list[dict] = field(default_factory=list)  # step, train_loss (nats a token), bits_per_byte (held out)
    seconds: float = 0.0


@dataclass
class Step:
    """What one step measured: the main model's loss, before the step, in nats a token; the weighted loss of the MTP
    modules, 0 without them; the norm of the gradient before clipping; how uneven the experts' load was in this batch,
    mean of all routers (balancing.max_violation: 0 is even), None without experts."""

    loss: float
    mtp_loss: float
    gradient_norm: float
    max_violation: float | None = None


def build_optimizer(model: LanguageModel, recipe: Recipe) -> torch.optim.AdamW:
    """Weight decay on matrices only: norms and biases have no reason to be small."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": recipe.weight_decay},
                              {"params": others, "weight_decay": 0.0}],
                             lr=recipe.learning_rate, betas=recipe.betas, fused=True)


class Objective(nn.Module):
    """What is minimised, as a module, so that several ranks can share it: forward(inputs, targets) gives losses_of."""

    def __init__(self, model: LanguageModel, recipe: Recipe):
        super().__init__()
        self.model, self.recipe = model, recipe

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, list[Routing]]:
        return losses_of(self.model, inputs, targets, self.recipe)


def train_step(model: LanguageModel, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor,
               recipe: Recipe, step: int, objective: nn.Module | None = None, ranks: Ranks = ALONE) -> Step:
    """One step on inputs and targets [B, T], in `accumulate` parts of equal size.

    With ranks, these are this rank's rows, and the objective is the model's as ranks.spread made it.
    """
    objective = objective or Objective(model, recipe)
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate_at(step)
    optimizer.zero_grad()
    losses, routings = [], []
    for x, y in zip(inputs.chunk(recipe.accumulate), targets.chunk(recipe.accumulate), strict=True):
        loss, further, routing = objective(x, y)
        ((loss + further) / recipe.accumulate).backward()
        losses.append((loss.item(), further.item()))
        routings.append(routing)
    norm = ranks.clip(model, recipe.clip_norm)
    optimizer.step()
    routing = [together(parts, ranks) for parts in zip(*routings, strict=True)]
    model.update_router_biases(routing, recipe.bias_update_speed)
    uneven = [max_violation(load(chosen)) for chosen in routing]
    main, further = ranks.mean([sum(part) / len(losses) for part in zip(*losses)])
    return Step(main, further, norm, sum(uneven) / len(uneven) if uneven else None)


def losses_of(model: LanguageModel, inputs: Tensor, targets: Tensor, recipe: Recipe
              ) -> tuple[Tensor, Tensor, list[Routing]]:
    """The main loss, the weighted MTP loss (0 without modules), and what the routers chose, MTP's last."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        out = model(inputs)
        loss = F.cross_entropy(out.logits.flatten(0, 1).float(), targets.flatten())
        if not len(model.mtp):
            return loss, loss.new_zeros(()), out.routing
        ahead = model.predict_ahead(out.hidden, inputs)
        routing = [*out.routing, *(depth.routing for depth in ahead if depth.routing is not None)]
        return loss, mtp_loss(ahead, targets, recipe.mtp_weight), routing


def together(parts: list[Routing], ranks: Ranks) -> Routing:
    """One router's choices over all parts of a batch, on all ranks."""
    return Routing(*(ranks.joined(torch.cat([getattr(part, name).detach() for part in parts]))
                     for name in ("experts", "weights", "scores")))


class Run:
    """A run between two steps. `state` and `restore` hold everything that decides how it goes on."""

    def __init__(self, recipe: Recipe, model: LanguageModel, ranks: Ranks = ALONE):
        self.recipe, self.model, self.ranks = recipe, model, ranks
        blocks = [*model.blocks, *(module.block for module in model.mtp)]
        self.objective = ranks.spread(Objective(model, recipe), model, blocks)
        self.optimizer = build_optimizer(model, recipe)
        self.result = Result(model)
        self.best: dict[str, Tensor] = {}
        self.step, self.losses = 0, []  # losses since the last look at held-out text

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Tensors, of which this rank may hold a part, and facts. Random numbers matter too: dropout draws them."""
        self.settle()
        names = {p: name for name, p in self.model.named_parameters()}
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        for p, of in self.optimizer.state.items():
            tensors |= {f"optimizer/{names[p]}/{key}": torch.as_tensor(value) for key, value in of.items()}
        tensors = {name: self.ranks.split(name, tensor) for name, tensor in tensors.items()}
        tensors[f"random/{self.ranks.rank}"] = torch.get_rng_state()
        r = self.result
        return tensors, {"recipe": asdict(self.recipe), "step": self.step, "losses": self.losses, "curve": r.curve,
                         "best_step": r.best_step, "best_bits_per_byte": r.best_bits_per_byte, "seconds": r.seconds}

    def places(self, sizes: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors to read a state into, given its names and sizes: the model's own, and new ones for the rest."""
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        if any(name.startswith("best/") for name in sizes):
            tensors |= {f"best/{name}": torch.empty_like(tensor) for name, tensor in self.model.state_dict().items()}
        for name, p in self.model.named_parameters():
            of = f"optimizer/{name}/"
            tensors |= {key: torch.empty_like(p if size.dim() else size, device=p.device).detach()
                        for key, size in sizes.items() if key.startswith(of)}  # "step" is one number, the rest like p
        tensors = {name: self.ranks.split(name, tensor) for name, tensor in tensors.items()}
        mine = f"random/{self.ranks.rank}"
        return tensors | ({mine: torch.get_rng_state()} if mine in sizes else {})

    def restore(self, tensors: dict[str, Tensor], facts: dict) -> None:
        """Go on from a state that was read into `places`."""
        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): self.ranks.own(t) for name, t in tensors.items()
                    if name.startswith(prefix)}

        self.best = part("best/")
        for name, p in self.model.named_parameters():
            self.optimizer.state[p] = part(f"optimizer/{name}/")
        mine = f"random/{self.ranks.rank}"
        if mine in tensors:
            torch.set_rng_state(tensors[mine])
        else:  # there were fewer ranks before
            torch.manual_seed(self.recipe.seed + 1000 * facts["step"] + self.ranks.rank)
        self.step, self.losses, r = facts["step"], facts["losses"], self.result
        r.curve, r.best_step, r.best_bits_per_byte, r.seconds = (
            facts[key] for key in ("curve", "best_step", "best_bits_per_byte", "seconds"))

    def settle(self) -> None:
        """Split again what a forward pass without a backward one has left whole (FSDP)."""
        if isinstance(self.model, FSDPModule):
            self.model.reshard()

    def evaluate(self, held_out: tuple[Tensor, Tensor], held_out_bytes: int) -> dict:
        """A row of the curve; the weights are remembered if they are the best so far."""
        own = [part[self.ranks.rank::self.ranks.size].to(self.ranks.device) for part in held_out]
        lacking = -(-len(held_out[0]) // self.ranks.size) - len(own[0])  # the ranks' forward passes must go together
        if lacking:
            own = [torch.cat([own[0], torch.zeros_like(own[0][:1])]),
                   torch.cat([own[1], torch.full_like(own[1][:1], -100)])]
        held, r = self.ranks.mean([bits_per_byte(self.model, *own, held_out_bytes)])[0] * self.ranks.size, self.result
        self.settle()
        if held < r.best_bits_per_byte:
            r.best_bits_per_byte, r.best_step = held, self.step
            self.best = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        r.curve.append({"step": self.step, "train_loss": round(sum(self.losses) / len(self.losses), 4),
                        "bits_per_byte": round(held, 4)})
        self.losses = []
        return r.curve[-1]


def train(recipe: Recipe, train_tokens: Tensor | np.ndarray, held_out: tuple[Tensor, Tensor], held_out_bytes: int,
          report: Callable[[dict], None] = lambda row: None, *, folder: Path | None = None,
          checkpoint_every: int = 200, config: ModelConfig | None = None, ranks: Ranks = ALONE,
          due: Callable[[], str] = lambda: "") -> Result:
    """Train the recipe's preset, or `config` if one is given.

    Over-fitting sets in on a small corpus, so the best weights are kept, not the last. train_tokens [N]; held_out:
    inputs and targets of data.windows. report gets each row of the curve, and {"step": n} after every other step, both
    with the step's own loss. due: asked after each step, in a run of one process, for what a clock or a person wants:
    "look" at the held-out text now, "end" with this step, or "" to go on as the recipe says.
    folder: where log and checkpoints go; a run that was stopped there goes on from its last one.
    ValueError if the folder holds a run of another recipe or text; OSError if a checkpoint cannot be written.
    """
    rows = ranks.mine(recipe.batch_size)
    batch_at(train_tokens, 0, recipe.batch_size, recipe.context, recipe.seed)  # says so, if the text is too short
    torch.manual_seed(recipe.seed)
    model = LanguageModel(config or presets.get(recipe.preset)).train().to(ranks.device)
    run = Run(recipe, train_in_fp8(model) if recipe.precision == "fp8" else model, ranks)
    if ranks.rank:
        torch.manual_seed(recipe.seed + ranks.rank)  # the same model everywhere, but dropout of one's own
    log, text = Log(folder / "log.csv" if folder and ranks.first else None), fingerprint(train_tokens)
    if folder:
        resume(run, folder / "checkpoints", text)
    log.rewind(run.step)
    before, began = run.result.seconds, time.perf_counter()
    while run.step < recipe.steps:
        batch = batch_at(train_tokens, run.step, recipe.batch_size, recipe.context, recipe.seed, rows)
        measured = train_step(run.model, run.optimizer, *(part.to(ranks.device) for part in batch), recipe, run.step,
                              run.objective, ranks)
        run.losses.append(measured.loss)
        run.step += 1
        wanted = due()
        last = run.step == recipe.steps or wanted == "end"
        run.result.seconds = before + time.perf_counter() - began
        if run.step % LOG_EVERY == 0 or last:
            uneven = measured.max_violation
            log.write({"step": run.step, "loss": round(measured.loss, 4),
                       "mtp_loss": round(measured.mtp_loss, 4) if len(run.model.mtp) else "",
                       "learning_rate": f"{recipe.learning_rate_at(run.step - 1):.4g}",
                       "gradient_norm": round(measured.gradient_norm, 4), "max_violation":
                       "" if uneven is None else round(uneven, 4), "seconds": round(run.result.seconds, 1),
                       "tokens": run.step * recipe.batch_size * recipe.context})
        if run.step % recipe.evaluate_every == 0 or last or wanted == "look":
            report({**run.evaluate(held_out, held_out_bytes), "loss": measured.loss,
                    "seconds": round(run.result.seconds), "model": run.model})
        else:
            report({"step": run.step, "loss": measured.loss})
        if folder and (run.step % checkpoint_every == 0 or last):
            tensors, facts = run.state()
            checkpoints.save(folder / "checkpoints", run.step, tensors, {**facts, "text": text}, ranks)
        if last:
            break
    with torch.no_grad():
        for name, place in run.model.state_dict().items():
            place.copy_(run.best[name])
    run.model.eval()
    return run.result


def resume(run: Run, folder: Path, text: str) -> None:
    """Go on from the last checkpoint in the folder, if there is one. ValueError if it is of another run."""
    def places(sizes: dict[str, Tensor], facts: dict) -> dict[str, Tensor]:
        refuse_another(run.recipe, text, facts, folder.parent)
        return run.places(sizes)

    found = checkpoints.latest(folder, places, run.ranks)
    if found is not None:
        run.restore(*found)


def refuse_another(recipe: Recipe, text: str, facts: dict, folder: Path) -> None:
    mine = {**asdict(recipe), "betas": list(recipe.betas)}
    other = {name: facts["recipe"].get(name) for name in mine if facts["recipe"].get(name) != mine[name]}
    if other:
        name, value = next(iter(other.items()))
        raise ValueError(f"{folder} holds a run with {name} {value}, and this one has {mine[name]}; "
                         "go on with that one's settings, or name another folder with --out")
    if facts["text"] != text:
        raise ValueError(f"{folder} holds a run on another text; go on with that one's --data, or name another "
                         "folder with --out")


def fingerprint(tokens: Tensor | np.ndarray) -> str:
    """Tells one text from another: a hash of its length and of some of its tokens."""
    some = tokens[::max(1, len(tokens) // 4096)]
    return hashlib.sha256(f"{len(tokens)} {some.tolist()}".encode()).hexdigest()[:16]
