"""The server is killed, interrupted, short of rights or of a network; nobody looks with a browser here."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import ROOT

from tests.faulty import NAMESPACE, READ_ONLY, environment, mounts
from tests.load.client import Visitor
from tests.ports import free_port
from tests.test_training_lab_run import gone

PATIENCE = 120  # seconds, on a machine that is busy with other tests
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes under /proc")


class Server:
    """The site in a process group of its own, as a terminal would start it."""

    def __init__(self, port: int, folder: Path, before=(), **more: str):
        self.port, self.address, self.folder = port, f"http://127.0.0.1:{port}", folder
        self.printed = folder / f"printed-{time.monotonic_ns()}"
        surroundings = environment(PYTHONUNBUFFERED="1", GRADIO_TEMP_DIR=str(folder / "temporary"), **more)
        with self.printed.open("w") as out:
            self.process = subprocess.Popen([*before, sys.executable, "-m", "apps", "--port", str(port)], cwd=ROOT,
                                            env=surroundings, stdout=out, stderr=out, start_new_session=True)

    def answers(self) -> bool:
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"{self.address}/config", timeout=5) as answer:
                    self.config = json.load(answer)
                    return True
            except OSError:
                time.sleep(0.1)
        return False

    def visitor(self) -> Visitor:
        return Visitor(self.port, self.config)

    def said(self) -> str:
        return self.printed.read_text()

    def runs(self) -> list[Path]:
        """Folders of training runs."""
        return list((self.folder / "temporary" / "training").glob("training-lab-*"))

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)


def until(true, seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.01)
    return False


def writing(server: Server):
    """A text that is being written, slowly, past its first token."""
    visitor = server.visitor()
    stream = visitor.start("write", visitor.inputs("write"))
    assert any(message["msg"] == "process_generating" for message, _ in stream)
    return stream


def training(server: Server):
    """A run that has told of its loss; the events, and the process that trains."""
    visitor = server.visitor()
    stream = visitor.start("training_run", visitor.inputs("training_run"))
    assert any("tokens read" in json.dumps(message) for message, _ in stream)
    children = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and is_child(path, server)]
    assert len(children) == 1
    return stream, children[0]


def is_child(path: Path, server: Server) -> bool:
    try:
        return "llm_core.training.lab.child" in (path / "cmdline").read_text() and (
            int((path / "stat").read_text().rpartition(")")[2].split()[1]) == server.process.pid)
    except OSError:
        return False


def test_killed_while_it_trains_and_writes_it_starts_again(tmp_path):
    port = free_port()
    first = Server(port, tmp_path)
    try:
        assert first.answers(), first.said()
        (run, child), text = training(first), writing(first)
        first.process.kill()
        assert gone(child) and until(lambda: not first.runs(), 10)
        text.close()
        run.close()
    finally:
        first.end()
    again = Server(port, tmp_path)  # the same port, at once
    try:
        assert again.answers(), again.said()
        visitor = again.visitor()
        assert visitor.ask("kv_cache_context", visitor.inputs("kv_cache_context")).data
    finally:
        again.end()


def test_ctrl_c_while_it_trains_and_writes(tmp_path):
    """And until then nothing outside this computer was asked, and nothing was written at home, where there is no right
    to (as far as this system lets a test take it)."""
    outside, home = tmp_path / "outside", tmp_path / "home"
    home.mkdir()
    before = [*NAMESPACE, "sh", "-c", READ_ONLY.replace('cd "$0"', f'cd "{ROOT}"'), str(home)] if mounts() else []
    server = Server(free_port(), tmp_path, before, OUTSIDE=str(outside), HOME=str(home), XDG_CACHE_HOME="")
    try:
        assert server.answers(), server.said()
        with urllib.request.urlopen(f"{server.address}/kv-cache", timeout=30) as page:
            assert page.status == 200
        (run, child), text = training(server), writing(server)
        os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does: to all of them
        assert server.process.wait(30) in (0, 130)
        assert gone(child, 10) and server.runs() == []
        text.close()
        run.close()
        assert "Traceback" not in server.said(), server.said()
        assert re.fullmatch(r"Serving at http://\S+ \(Ctrl\+C stops it\)\n.*\n", server.said())
        assert not outside.exists(), outside.read_text()
        assert list(home.iterdir()) == []
    finally:
        server.end()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="on Windows each user has a folder for temporary files")
def test_two_users_of_a_computer_do_not_share_a_folder_for_temporary_files(tmp_path):
    """Gradio's own choice, /tmp/gradio, belongs to whoever came first."""
    code = "import apps; from gradio.utils import get_upload_folder; print(get_upload_folder())"
    surroundings = environment(TMPDIR=str(tmp_path))
    surroundings.pop("GRADIO_TEMP_DIR", None)
    said = subprocess.run([sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, timeout=60)
    assert said.stdout == f"{tmp_path}/gradio-{os.getuid()}\n", said.stderr
