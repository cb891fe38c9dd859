"""What test_training_ranks.py starts in several processes: a short run, described by JSON on the command line."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import torch

from llm_core import data, presets
from llm_core.training import __main__ as command
from llm_core.training.loop import train
from llm_core.training.ranks import gathered, lost, start
from llm_core.training.recipe import Recipe

# Experts, a router bias and an MTP module. No dropout: each rank draws its own, so only then must losses be equal.
CONFIG = presets.get("deepseek-mini").replace(d_model=32, n_layers=2, n_mtp_modules=1, dropout=0.0)
CONFIG = CONFIG.replace(attention=CONFIG.attention.replace(n_heads=2, kv_lora_rank=16, q_lora_rank=None))
RECIPE = Recipe("ranks", steps=12, batch_size=8, context=24, learning_rate=1e-2, warmup_steps=4, evaluate_every=4)
TEXT = (torch.arange(3000) * 7) % 60
HELD_OUT = data.windows(TEXT[:150], 24)


def run(way="ddp", folder=None, stop_at=None, kill_at=None, **changes):
    """Train; the curve and the sums of the weights. stop_at: all ranks end there; kill_at: rank 1 does, roughly."""
    ranks = start(way)

    def report(row):
        if row["step"] == stop_at:
            raise KeyboardInterrupt
        if row["step"] == kill_at and ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    recipe = dataclasses.replace(RECIPE, **changes)
    result = train(recipe, TEXT, HELD_OUT, 150, report, folder=folder and Path(folder), checkpoint_every=4,
                   config=CONFIG, ranks=ranks)
    model = gathered(result.model, ranks)
    told = ranks.told("the last one's problem" if ranks.rank == ranks.size - 1 else "")
    out = {"size": ranks.size, "told": told, "curve": result.curve,
           "weights": {name: tensor.double().sum().item() for name, tensor in model.state_dict().items()}}
    if ranks.first:
        print("RESULT", json.dumps(out), flush=True)
    ranks.close()
    return out


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = json.loads(sys.argv[1])
    if "command" in asked:
        sys.exit(command.main(asked["command"]))
    try:
        run(**asked)
    except KeyboardInterrupt:
        os._exit(0)
    except RuntimeError as error:
        sys.exit("a process is gone" if lost(error) else f"another error: {error}")
