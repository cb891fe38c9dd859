"""The lab's run: training.loop with a clock, and what it tells on the way, in plain numbers and strings."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from llm_core import tokenizer as tokenizers
from llm_core.checkpoint.hf_folder import save_hf
from llm_core.generation import generate
from llm_core.model import LanguageModel
from llm_core.programs import reason
from llm_core.sampling import Sampler
from llm_core.tokenizer import Tokenizer
from llm_core.training.card import SAMPLE_SEED, TEMPERATURE, TOP_K
from llm_core.training.lab.plan import Settings
from llm_core.training.lab.texts import as_tokens, corpus, held_out_windows
from llm_core.training.loop import train

PROGRESS_EVERY = 0.25  # seconds between two lines on the training loss
SAMPLE_TOKENS = 40
MARKS = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]  # steps whose loss is told, to compare runs

Say = Callable[[dict[str, Any]], None]


def learn(settings: Settings, source: str, own: str, seconds: float, say: Say,
          stopped: Callable[[], bool] = lambda: False, folder: Path | None = None,
          clock: Callable[[], float] = time.perf_counter) -> None:
    """Train until the time is up or `stopped` says so, and tell:

    {"kind": "started", train_tokens, held_out_tokens, held_out_bytes, blind}   blind: bits per byte of an even guess
    {"kind": "progress", step, seconds, bits_per_byte}        training loss, mean since the line before
    {"kind": "mark", step, loss}                              the very loss of that step, in nats a token
    {"kind": "look", step, seconds, bits_per_byte}            on held-out text
    {"kind": "sample", step, prompt, text}
    {"kind": "done", why, step, seconds, best_step, best_bits_per_byte, file}   why: "time" or "stopped"

    folder: where the model with the best weights is put, as a zip in Hugging Face's form; `file` is its name.
    ValueError if the text is too short, or if the loss stops being a number.
    """
    words = tokenizers.get("course")
    documents = corpus(source, own)
    text = as_tokens(documents, words, settings.context)
    inputs, targets, n_bytes = held_out_windows(text.held_out, words, settings.context)
    told = _Telling(settings, words, _prompt(source, documents.held_out[0], words), seconds, say, stopped, clock,
                    nats_to_bits=len(text.train) / math.log(2) / sum(len(d.encode()) for d in documents.train))
    scored = int((targets != -100).sum())
    say({"kind": "started", "train_tokens": len(text.train), "held_out_tokens": scored, "held_out_bytes": n_bytes,
         "blind": round(scored * math.log2(words.vocab_size) / n_bytes, 4)})
    told.begin()
    result = train(settings.recipe(), text.train, (inputs, targets), n_bytes, told.report, config=settings.config(),
                   due=told.due)
    told.sample(result.model, result.best_step)
    file = _written(result.model, words, folder, settings.file_name) if folder else ""
    say({"kind": "done", "why": told.why, "step": told.step, "seconds": round(told.seconds, 2),
         "best_step": result.best_step, "best_bits_per_byte": round(result.best_bits_per_byte, 4), "file": file})


class _Telling:
    """Watches the clock for the loop (`due`) and passes on what the loop reports (`report`)."""

    def __init__(self, settings: Settings, words: Tokenizer, prompt: str, limit: float, say: Say,
                 stopped: Callable[[], bool], clock: Callable[[], float], nats_to_bits: float):
        self.settings, self.words, self.prompt, self.limit = settings, words, prompt, limit
        self.say, self.stopped, self.clock, self.nats_to_bits = say, stopped, clock, nats_to_bits
        self.step, self.why, self.losses = 0, "time", []

    def begin(self) -> None:
        self.began = self.told = self.looked = self.sampled = self.clock()
        self.looking = 0.0  # how long the last look took, its sample included

    @property
    def seconds(self) -> float:
        return self.clock() - self.began

    def due(self) -> str:
        """A look at the first step, then each second or so, and never for more than about a tenth of the time."""
        if self.stopped():
            self.why = "stopped"
            return "end"
        now = self.clock()
        if now - self.began >= self.limit:
            return "end"
        gap = max(1.0, self.limit / 40, 10 * self.looking)
        if self.step and now - self.looked < gap:
            return ""
        self.looked = now
        return "look"

    def report(self, row: dict) -> None:
        self.step = row["step"]
        if not math.isfinite(row["loss"] + row.get("bits_per_byte", 0.0)):
            raise ValueError(f"at step {self.step} the loss was no number any more: with the learning rate "
                             f"{self.settings.learning_rate:g} each step overshoots, until a weight is too large for "
                             "32 bits; take a lower one, such as 0.003")
        self.losses.append(row["loss"])
        if self.step in MARKS:
            self.say({"kind": "mark", "step": self.step, "loss": row["loss"]})
        if "model" in row or self.clock() - self.told >= PROGRESS_EVERY:
            mean = sum(self.losses) / len(self.losses) * self.nats_to_bits
            self.say({"kind": "progress", "step": self.step, "seconds": round(self.seconds, 2),
                      "bits_per_byte": round(mean, 4)})
            self.losses, self.told = [], self.clock()
        if "model" in row:
            self.say({"kind": "look", "step": self.step, "seconds": round(self.seconds, 2),
                      "bits_per_byte": row["bits_per_byte"]})
            if self.step == 1 or self.clock() - self.sampled >= max(2.0, self.limit / 10):
                self.sample(row["model"], self.step)
                self.sampled = self.clock()
            self.looking = self.clock() - self.looked

    def sample(self, model: LanguageModel, step: int) -> None:
        ids = self.words.encode(self.prompt)
        new = min(SAMPLE_TOKENS, self.settings.context - len(ids))
        written = generate(model, ids, new, Sampler(TEMPERATURE, TOP_K, seed=SAMPLE_SEED))[0, len(ids):].tolist()
        self.say({"kind": "sample", "step": step, "prompt": self.prompt, "text": self.words.decode(written)})


def _prompt(source: str, held_out: str, words: Tokenizer) -> str:
    """What the samples go on from: a speaker, or the first few tokens that the model never saw."""
    if source != "own":
        return "ROMEO:\n"
    start = words.decode(words.encode(held_out.lstrip()[:80])[:6])
    return start.rstrip("\N{REPLACEMENT CHARACTER}") or "The"


def _written(model: LanguageModel, words: Tokenizer, folder: Path, name: str) -> str:
    """The model as folder/NAME.zip, which holds one folder NAME; the zip's name comes back."""
    whole = folder / "written"
    try:
        save_hf(model, whole / name, words, dtype=torch.float32)
        shutil.make_archive(str(folder / name), "zip", whole, name)
    except OSError as problem:
        why = reason(problem.__cause__ or problem)
        raise OSError(f"the model was trained, and its file could not be written ({why}); whoever runs this site has "
                      "to make room for temporary files") from None
    shutil.rmtree(whole)
    return f"{name}.zip"
