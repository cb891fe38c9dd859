"""Set before torch, gradio or transformers is imported: no network, and no more threads than there are cores."""

import json
import os
import sys

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

# Under xdist each process would otherwise start a thread for every core, and they would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    processes = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))

# A busy machine must not fail a property test by its clock; in CI the same examples come up every time.
settings.register_profile("course", deadline=None, derandomize=os.environ.get("CI", "").lower() == "true")
settings.load_profile("course")


@pytest.fixture(autouse=True)
def plotly_checks_every_figure(monkeypatch):
    """Figures are made without Plotly's checks; here each is made with them too, and must be the same."""
    stage = sys.modules.get("llm_core.plots.stage")
    if stage is None:
        return
    quickly = stage._made

    def made(traces, layout):
        fig, checked = quickly(traces, layout), stage.go.Figure(traces, layout)
        checked.layout.template = None
        assert json.loads(fig.to_json()) == json.loads(checked.to_json())
        return fig

    monkeypatch.setattr(stage, "_made", made)


@pytest.fixture
def folder(tmp_path):
    """A small DeepSeek-V3 as a folder in Hugging Face's form."""
    import torch

    from llm_core.checkpoint.hf_folder import save_hf
    from tests.tiny_configs import build

    save_hf(build("DeepSeek-V3"), tmp_path / "v3", dtype=torch.float32)
    return tmp_path / "v3"
