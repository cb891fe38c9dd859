"""The site laid out as a Hugging Face Space: its files, and that they start by themselves, as far as one can here."""

import os
import re
import subprocess
import sys
import time
import urllib.request

import pytest
from conftest import ROOT, stop

from apps import space
from tests.ports import free_port


def test_the_folder_holds_what_a_space_needs(tmp_path):
    folder = tmp_path / "space"
    space.build(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "LICENSE", "README.md", "app.py", "apps", "llm_core", "requirements.txt"]
    front = dict(re.findall(r"^(\w+): (.*)$", (folder / "README.md").read_text(encoding="utf-8").split("---")[1],
                            re.MULTILINE))
    assert front["sdk"] == "gradio" and (folder / front["app_file"]).is_file()
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"gradio=={front['sdk_version']}" in constraints
    needed = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {"torch", "plotly", "tiktoken"} <= {line.split("==")[0] for line in needed}
    assert all(line.replace("_", "-") in constraints for line in needed)
    assert not [path for path in folder.rglob("*") if path.name == "__pycache__"]
    # The hub takes no file of 10 MB or more without Git LFS.
    assert max(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 10_000_000
    with pytest.raises(ValueError, match="space is there and not empty"):
        space.build(folder)


@pytest.mark.slow
def test_it_starts_by_itself(tmp_path):
    folder = tmp_path / "space"
    space.build(folder)
    port = free_port()
    environment = {**os.environ, "GRADIO_SERVER_NAME": "127.0.0.1", "PORT": str(port), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    process = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=environment, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    try:
        end = time.monotonic() + 180
        while process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/kv-cache", timeout=10) as answer:
                    assert answer.status == 200
                    break
            except OSError:
                assert time.monotonic() < end, "it did not start"
                time.sleep(0.3)
        again = subprocess.run([sys.executable, "app.py"], cwd=folder, env=environment, capture_output=True, text=True)
        assert again.returncode == 1 and again.stderr.splitlines()[-1].startswith("cannot serve on 127.0.0.1 port")
        assert "Traceback" not in again.stderr
    finally:
        printed = stop(process)
    assert "Traceback" not in printed, printed[-3000:]
