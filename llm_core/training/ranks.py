"""Training in several processes ("ranks"): the same command under torchrun, on one machine or many.

    torchrun --nproc-per-node 4 -m llm_core.training --model deepseek-mini

Every rank holds the model, reads its own part of each batch, and averages its gradients with the others' (data
parallelism, PyTorch's DDP). With `--parallel fsdp` the parameters, gradients and optimiser states are split between the
ranks too, and each layer is put together only while it is used (PyTorch's fully_shard). With `--parallel experts` each
rank keeps a part of the experts, and tokens travel (expert_parallel.py). In every way a step is the step that one
process would do on the whole batch. NCCL carries the messages where there are GPUs, gloo elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.nn.parallel import DistributedDataParallel

from llm_core.model import LanguageModel
from llm_core.training.expert_parallel import spread_experts
from llm_core.validation import one_of

WAYS = ("ddp", "fsdp", "experts")


@dataclass(frozen=True)
class Ranks:
    """This process among `size`, or alone. way: how the model is spread over them."""

    rank: int = 0
    size: int = 1
    way: str = "ddp"
    device: torch.device = torch.device("cpu")

    @property
    def first(self) -> bool:
        """Whether this one speaks for all: prints, and writes files."""
        return self.rank == 0

    def spread(self, objective: nn.Module, model: nn.Module, blocks: Iterable[nn.Module]) -> nn.Module:
        """The objective, whose forward gives the model's loss, such that gradients become the mean over all ranks."""
        if self.size == 1:
            return objective
        if self.way == "fsdp":
            for block in blocks:  # one block at a time is whole; what is left goes with the model itself
                fully_shard(block)
            fully_shard(model)
            return objective
        if self.way == "experts":  # their gradients are not averaged: each rank has experts of its own
            own = [f"model.{name}" for name in spread_experts(model, self.rank, self.size)]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(objective, own)
        return DistributedDataParallel(objective)

    def clip(self, model: nn.Module, norm: float) -> float:
        """Shrink the gradient to `norm` if it is larger, all ranks' parts of it together; how large it was."""
        if self.way != "experts" or self.size == 1:
            return whole(torch.nn.utils.clip_grad_norm_(model.parameters(), norm)).item()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        own = sum((g.square().sum() for name, g in gradients.items() if is_expert(name)), torch.zeros(()))
        shared = sum(g.square().sum() for name, g in gradients.items() if not is_expert(name))
        dist.all_reduce(own)
        total = (own + shared).sqrt()
        torch._foreach_mul_(list(gradients.values()), (norm / (total + 1e-6)).clamp(max=1.0))
        return total.item()

    def split(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the model or its optimiser, such that it knows that other ranks hold the rest of it.

        FSDP's tensors are DTensors already; of experts that are spread, each rank has a plain tensor of its own.
        """
        if self.way == "experts" and self.size > 1 and is_expert(name) and tensor.dim() == 3:
            return DTensor.from_local(tensor, _mesh(self.device.type, self.size), [Shard(0)])
        return tensor

    def own(self, tensor: Tensor) -> Tensor:
        """Undo `split`."""
        return tensor.to_local() if self.way == "experts" and isinstance(tensor, DTensor) else tensor

    def mine(self, rows: int) -> slice:
        """Which rows of a batch are this rank's."""
        if rows % self.size:
            raise ValueError(f"a batch of {rows} texts cannot be shared by {self.size} processes; nearest that can: "
                             f"{max(1, rows // self.size) * self.size}")
        return slice(self.rank, None, self.size)

    def mean(self, values: Sequence[float]) -> list[float]:
        """Of each number the mean over all ranks."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return (total / self.size).tolist()

    def joined(self, tensor: Tensor) -> Tensor:
        """All ranks' tensors of one shape, one behind the other along dimension 0."""
        if self.size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def told(self, problem: str) -> str:
        """What the first of the ranks that have a problem says; '' if none has. All must call it, and wait here."""
        if self.size == 1:
            return problem
        said = [""] * self.size
        dist.all_gather_object(said, problem)
        return next((words for words in said if words), "")

    def agree(self, problem: str) -> None:
        """OSError on every rank if one of them has a problem to tell."""
        if said := self.told(problem):
            raise OSError(said)

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()


ALONE = Ranks()


def start(way: str = "ddp") -> Ranks:
    """Join the other processes if torchrun started us. ValueError for another way."""
    one_of("parallel", way, WAYS)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    return Ranks(dist.get_rank(), size, way, device)


def lost(error: RuntimeError) -> bool:
    """Whether an error of the messaging says that another process is gone."""
    return any(word in str(error) for word in ("Connection closed by peer", "Connection reset by peer", "Broken pipe",
                                               "Timed out waiting", "NCCL"))


def gathered(model: LanguageModel, ranks: Ranks) -> LanguageModel:
    """A model of one's own with the numbers of one that is split between ranks. All ranks must call it."""
    out = LanguageModel.unfilled(model.config)
    numbers = {name: whole(ranks.split(name, tensor)).cpu() for name, tensor in model.state_dict().items()}
    out.load_state_dict(numbers, assign=True)
    return out.eval()


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is split between ranks, put together on each; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@cache
def _mesh(device: str, size: int) -> DeviceMesh:
    return init_device_mesh(device, (size,))


def is_expert(name: str) -> bool:
    """Whether a parameter belongs to the routed experts, which are stacked."""
    return ".experts." in name
