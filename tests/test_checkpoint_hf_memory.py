"""Loading a folder takes no more memory than the model and a fifth."""

import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm_core import LanguageModel
from llm_core.checkpoint.hf_folder import save_hf
from llm_core.config import FeedForwardConfig, GroupedAttentionConfig, ModelConfig, RopeConfig
from tests.small_folders import FILE

PEAK = """
import sys, torch
from llm_core.checkpoint.hf_folder import load_hf
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
torch.randn(8, 8) @ torch.randn(8, 8)
before = status("VmRSS")
model = load_hf(sys.argv[1])
size = sum(tensor.nbytes for tensor in model.state_dict().values())
print(before, status("VmHWM"), size)
"""
BIG = ModelConfig(vocab_size=16000, max_seq_len=64, d_model=1024, n_layers=3, attention=GroupedAttentionConfig(16, 4),
                  feed_forward=FeedForwardConfig(8192, "swiglu"), rope=RopeConfig(layout="halves"))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
@pytest.mark.parametrize("stored", ["float32", "fp8"])
def test_loading_takes_no_more_memory_than_the_model_and_a_fifth(tmp_path, stored):
    """450 MB in 32 bits. The same file read at once and then converted would take twice that, or more."""
    with torch.device("cpu"):
        model = LanguageModel.unfilled(BIG).to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    save_hf(model, tmp_path / "big", dtype=torch.float32)
    if stored == "fp8":
        tensors = load_file(tmp_path / "big" / FILE)
        for name, tensor in [*tensors.items()]:
            if "proj" in name:
                tensors[name] = tensor.to(torch.float8_e4m3fn)
                tensors[name + "_scale_inv"] = torch.ones([math.ceil(n / 128) for n in tensor.shape])
        save_file(tensors, tmp_path / "big" / FILE)
        del tensors
    del model
    needed = []
    for _ in range(3):  # how many of the mapped file's pages count at the peak is the system's choice; so the least
        command = [sys.executable, "-c", PEAK, tmp_path / "big"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        before, peak, size = map(int, done.stdout.split())
        assert size > 400e6
        needed.append((peak - before) / size)
        if needed[-1] < 1.2:
            break
    assert min(needed) < 1.2, f"{min(needed):.2f} x the model"
