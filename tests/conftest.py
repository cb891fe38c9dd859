"""Set before torch, gradio or transformers is imported: no network, and no more threads than there are cores."""

import os

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


@pytest.fixture
def folder(tmp_path):
    """A small DeepSeek-V3 as a folder in Hugging Face's form."""
    import torch

    from llm_core.checkpoint.hf_folder import save_hf
    from tests.tiny_configs import build

    save_hf(build("DeepSeek-V3"), tmp_path / "v3", dtype=torch.float32)
    return tmp_path / "v3"
