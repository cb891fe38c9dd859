"""Sizes that others publish beside our counts: a file that holds more than the model, and models of unknown size.

The file: DeepSeek-V3 has 671 B parameters, and its page on the hub says 685 B. Every number in the file is accounted
for. The unknown: what is said about models whose makers never told. Those are estimates of others, of many kinds, and
none is a count: nothing here is used in any other figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from llm_core import presets
from llm_core.accounting.parameters import count_parameters, mtp_rows, rows
from llm_core.config import ModelConfig

V3_ON_THE_HUB = 684_531_386_000  # numbers in DeepSeek-V3's published safetensors files, by the hub's own count


def block_scales(config: ModelConfig, block: int = 128) -> int:
    """Scales of an FP8 file as DeepSeek writes it: one for each block of 128 x 128 of each matrix.

    The last block of a row or column may be smaller. Embedding, head, router, norms and the MTP projection stay in 16
    bits (arXiv:2412.19437, section 3.3) and have none.
    """
    matrices = [row for row in rows(config) + mtp_rows(config) if len(row.shape) == 2 and row.name != "eh_proj"
                and row.where not in ("input", "output") and row.part != "router"]
    return sum(row.copies * prod(-(-size // block) for size in row.shape) for row in matrices)


def numbers_in_v3_file() -> dict[str, int]:
    """What DeepSeek-V3's published file holds, number by number; the values sum to V3_ON_THE_HUB.

    Beside the MTP module the file stores the embedding and the head once more, though the module shares them.
    """
    config = presets.get("deepseek-v3")
    n, table = count_parameters(config), config.vocab_size * config.d_model
    return {"main model": n.total, "MTP module": n.mtp, "embedding, a second time": table,
            "output head, a second time": table, "scales of FP8 blocks": block_scales(config),
            "biases of the routers": n.router_biases + n.mtp_router_biases}


@dataclass(frozen=True)
class Estimate:
    """What somebody says about a model whose maker published no size. parameters: the least and the most said.

    kind: what sort of source it is. said_by: who. A rumour that is repeated often is still one rumour.
    """

    model: str
    parameters: tuple[float, float]
    kind: str
    said_by: str


ESTIMATES = (
    Estimate("GPT-4", (1e12, 1e12), "press report",
             "Semafor, March 2023, from eight people it does not name; the lectures say about 1 T, too"),
    Estimate("GPT-4", (1.76e12, 1.8e12), "rumour",
             "G. Hotz (June 2023: 8 × 220 B) and SemiAnalysis (July 2023: 1.8 T), never confirmed"),
    Estimate("GPT-4.5", (5e12, 10e12), "guess", "the lectures, as an estimate; we know of no source behind it"),
)
NEVER_PUBLISHED = ("OpenAI has published the size of neither; the GPT-4 report (arXiv:2303.08774, section 2) says that "
                   "it leaves architecture and size out on purpose.")
