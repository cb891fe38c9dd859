"""Record the two runs that the page opens with, into recorded.json: python -m llm_core.training.lab

Their clock is the processor's, so that it does not matter what else the machine is busy with.
"""

from __future__ import annotations

import json
import sys
import time

import torch

from llm_core.training.card import machine
from llm_core.training.lab.learning import learn
from llm_core.training.lab.plan import Settings
from llm_core.training.lab.record import RECORDED, new_record

RUNS = {"gpt": Settings(), "deepseek": Settings("deepseek", "MLA", "moe")}


def main(seconds: int = 60) -> int:
    torch.set_num_threads(1)
    out: dict = {"command": "python -m llm_core.training.lab", "clock": "time of one core",
                 "machine": machine()}
    for name, settings in RUNS.items():
        record = new_record(settings, seconds)
        learn(settings, "plays", "", seconds, record.add, clock=time.process_time)
        record.progress = record.progress[::2]
        out[name] = record.to_dict()
        print(f"{record.name}: {record.done}")
    RECORDED.write_text(json.dumps(out, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
