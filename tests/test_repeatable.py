"""The same seed gives the same text and the same losses: in another process, and with 1, 2 or 4 threads.

On one machine and with one version of torch, that is: others may add up in another order.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llm_core import checks, generate, load_pretrained
from llm_core.sampling import Sampler
from tests.faulty import environment
from tests.test_checks import define, solutions, verdict

MODELS = ("gpt-mini", "deepseek-mini")
THREADS = (1, 2, 4)


@pytest.fixture
def threads():
    """torch.set_num_threads, taken back at the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def written(name: str, seed: int = 3, tokens: int = 60) -> list[int]:
    model, tokenizer = load_pretrained(name)
    return generate(model, tokenizer.encode("ROMEO:\n"), tokens, Sampler(0.8, 50, seed=seed))[0].tolist()


def first_losses(name: str) -> list[float]:
    """Of a training run, whose weights, batches and dropout are drawn."""
    from llm_core import data, tokenizer
    from llm_core.training.loop import train
    from llm_core.training.recipe import Recipe

    text = "".join(f"{n} green bottles hanging on the wall,\nand if one should fall,\n" for n in range(100))
    tokens = torch.tensor(tokenizer.get("course").encode(text))
    recipe = Recipe(name, steps=3, batch_size=2, context=32, warmup_steps=1, evaluate_every=3)
    losses = []
    train(recipe, tokens, data.windows(tokens[:200], 32), 500, lambda row: losses.append(row["loss"]))
    return losses


def elsewhere(what: str, name: str) -> list:
    """The same in a process of its own."""
    code = f"from tests.test_repeatable import *; import torch; torch.set_num_threads(1); print({what}({name!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[1], env=environment(),
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return [float(number) for number in done.stdout.strip("[]\n").split(",")]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("what", [written, first_losses])
def test_a_seed_gives_the_same_in_two_processes(what, name, threads):
    threads(1)
    here = what(name)
    assert elsewhere(what.__name__, name) == here
    if what is written:
        assert written(name, seed=4) != here


@pytest.mark.parametrize("name", MODELS)
def test_a_text_is_the_same_with_more_threads(name, threads):
    texts = []
    for count in THREADS:
        threads(count)
        texts.append(written(name))
    assert texts[1:] == texts[:1] * 2


@pytest.mark.long
@pytest.mark.parametrize("count", THREADS)
@pytest.mark.parametrize("name", checks.__all__)
def test_a_check_accepts_the_solution_with_any_number_of_threads(name, count, threads, capsys):
    threads(count)
    assert verdict(name, define(name, solutions()[name]), capsys).startswith("right: ")
