"""Several processes do what one does: losses, weights, checkpoints; when one is gone, the run ends with a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llm_core import LanguageModel, load_pretrained, presets
from llm_core.training import checkpoints
from llm_core.training.expert_parallel import spread_experts
from llm_core.training.log import Log
from llm_core.training.ranks import Ranks, lost, start
from tests import ranks_program

ROOT = Path(__file__).resolve().parents[1]


def launch(ranks: int, cwd: Path = ROOT, **asked):
    """The program under torchrun (or alone): the finished process."""
    program = [str(ROOT / "tests" / "ranks_program.py"), json.dumps(asked)]
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *start, *program], capture_output=True, text=True, timeout=240, cwd=cwd,
                          env=environment)


def result(done):
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == 1, done.stderr[-3000:]
    return json.loads(lines[0].removeprefix("RESULT "))


def same(got, wanted):
    assert [row["step"] for row in got["curve"]] == [row["step"] for row in wanted["curve"]]
    for mine, its in zip(got["curve"], wanted["curve"]):
        assert mine["train_loss"] == pytest.approx(its["train_loss"], abs=1.1e-4)
        assert mine["bits_per_byte"] == pytest.approx(its["bits_per_byte"], abs=2e-3)
    assert got["weights"].keys() == wanted["weights"].keys()
    for name, total in wanted["weights"].items():
        assert got["weights"][name] == pytest.approx(total, abs=2e-2), name


@pytest.fixture(scope="module")
def alone():
    return ranks_program.run()


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "way", "changes"), [
    (2, "ddp", {}), (4, "fsdp", {}), (4, "experts", {}), (2, "ddp", {"accumulate": 2}),
    (2, "experts", {"clip_norm": 0.1})])
def test_torchrun_gives_the_losses_of_one_process(alone, ranks, way, changes):
    got = result(launch(ranks, way=way, **changes))
    assert got["size"] == ranks and got["told"] == "the last one's problem"
    same(got, ranks_program.run(**changes) if "clip_norm" in changes else alone)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then", "way"), [
    (4, 1, "ddp"), (1, 4, "fsdp"), (2, 1, "fsdp"), (1, 2, "experts"), (4, 2, "experts")])
def test_ranks_may_change_at_a_checkpoint(alone, tmp_path, first, then, way):
    launch(first, way=way, folder=str(tmp_path), stop_at=7)
    assert checkpoints.steps(tmp_path / "checkpoints") == [4]
    same(result(launch(then, way=way, folder=str(tmp_path))), alone)
    assert [row["step"] for row in Log(tmp_path / "log.csv").rows()] == [10, 12]


@pytest.mark.slow
def test_torchrun_ends_with_a_sentence_when_a_rank_is_killed(tmp_path):
    done = launch(2, folder=str(tmp_path), kill_at=6)
    assert done.returncode != 0 and "RESULT" not in done.stdout
    assert done.stderr.count("a process is gone") == 1 and "another error" not in done.stderr
    assert checkpoints.steps(tmp_path / "checkpoints") == [4]


@pytest.mark.slow
def test_torchrun_runs_the_command_and_writes_one_model(tmp_path):
    (tmp_path / "text.txt").write_text("The king is dead. Long live the king!\n" * 400)
    asked = ["--model", "gpt-mini", "--data", "text.txt", "--steps", "2", "--out", "out", "--batch-size", "4",
             "--context", "32"]
    done = launch(2, cwd=tmp_path, command=asked)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("wrote out") == 1
    model, _ = load_pretrained(tmp_path / "out")
    assert model.config == presets.get("gpt-mini")
    wrong = launch(2, cwd=tmp_path, command=[*asked[:-3], "5", "--context", "32", "--out", "other"])
    assert wrong.stderr.count("a batch of 5 texts cannot be shared by 2 processes; nearest that can: 4") == 1


def test_ranks_alone_change_nothing():
    ranks = start()
    assert ranks == Ranks() and ranks.first and ranks.mine(7) == slice(0, None, 1)
    assert ranks.mean([1.5, 2]) == [1.5, 2] and ranks.joined(torch.ones(2)).tolist() == [1, 1]
    ranks.agree("")
    with pytest.raises(OSError, match="no room"):
        ranks.agree("no room")
    with pytest.raises(ValueError, match="parallel must be one of ddp, fsdp, experts, not 'pipeline'"):
        start("pipeline")


def test_ranks_share_every_row_once():
    rows = list(range(12))
    shares = [rows[Ranks(rank, 4).mine(12)] for rank in range(4)]
    assert sorted(sum(shares, [])) == rows and {len(share) for share in shares} == {3}
    with pytest.raises(ValueError, match="a batch of 10 texts cannot be shared by 4 processes; nearest that can: 8"):
        Ranks(0, 4).mine(10)


def test_ranks_without_experts_or_with_a_number_that_does_not_fit():
    gpt, deepseek = (LanguageModel.unfilled(presets.get(name)) for name in ("gpt-mini", "deepseek-mini"))
    with pytest.raises(ValueError, match="no experts to spread over processes; ddp or fsdp would do"):
        spread_experts(gpt, 0, 2)
    with pytest.raises(ValueError, match="8 experts cannot be shared evenly by 3 processes"):
        spread_experts(deepseek, 0, 3)


def test_ranks_know_an_error_that_says_another_is_gone():
    assert lost(RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:2342"))
    assert not lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
